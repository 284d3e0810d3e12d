//! Data sets that are not there or hold what cannot be used: one clear line on standard error and exit status 2.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests may fail as tests do.

mod common_cli;
mod runner_support;

use common_cli::{good_rows, lines, refusal, refused_data};
use insta::assert_snapshot;
use runner_support::Sandbox;
use serde_json::{Value, json};

#[test]
fn a_data_set_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let refused = |dataset: &str| refusal(&sandbox, &["--dataset", dataset]);
    assert_snapshot!(refused(sandbox.path("absent.jsonl").to_str().unwrap()), @"");
    assert_snapshot!(refused("absent.csv"), @"");
    assert_snapshot!(refused("absent.parquet"), @"");
    assert_snapshot!(refused("absent"), @"");
    assert_snapshot!(refused("embedded:endless"), @"");
    assert_snapshot!(refused("rows.txt"), @"");
    assert_snapshot!(refused("repe"), @"");
    assert_snapshot!(refusal(&sandbox, &["--dataset", "repe", "--data-dir", "absent"]), @"");
}

#[test]
fn a_folder_in_place_of_a_file_is_named() {
    let sandbox = Sandbox::new();
    let refused = |name: &str| {
        std::fs::create_dir(sandbox.path(name)).unwrap();
        let told = refusal(&sandbox, &["--dataset", sandbox.path(name).to_str().unwrap()]);
        std::fs::remove_dir(sandbox.path(name)).unwrap();
        told
    };
    assert_snapshot!(refused("rows.jsonl"), @"");
    assert_snapshot!(refused("rows"), @"");
}

#[test]
#[cfg(unix)]
fn a_folder_that_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let folder = sandbox.path("closed.jsonl");
    std::fs::create_dir(&folder).unwrap();
    let allow = |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    let told = refusal(&sandbox, &["--dataset", folder.to_str().unwrap()]);
    allow(0o700);
    assert_snapshot!(told, @"");
}

/// What is said of good rows of which the fourth is changed.
#[track_caller]
fn refused_row(change: impl FnOnce(&mut Value)) -> String {
    let mut rows = good_rows();
    change(&mut rows[3]);
    refused_data("rows.jsonl", lines(&rows))
}

#[test]
fn a_row_that_cannot_be_used_is_named_by_its_line() {
    assert_snapshot!(refused_row(|row| { row.as_object_mut().unwrap().remove("label"); }), @"");
    assert_snapshot!(refused_row(|row| row["label"] = Value::Null), @"");
    assert_snapshot!(refused_row(|row| row["label"] = json!(2)), @"");
    assert_snapshot!(refused_row(|row| row["label"] = json!("yes")), @"");
    assert_snapshot!(refused_row(|row| row["messages"][0]["role"] = json!("tool")), @"");
    assert_snapshot!(refused_row(|row| row["messages"] = json!([])), @"");
    assert_snapshot!(refused_row(|row| row["messages"][1]["content"] = json!(["a", "b"])), @"");
    assert_snapshot!(refused_row(|row| *row = json!([1, 2])), @"");
}

#[test]
fn rows_of_one_class_are_refused() {
    let mut rows = good_rows();
    for row in &mut rows {
        row["label"] = json!(1);
    }
    assert_snapshot!(refused_data("rows.jsonl", lines(&rows)), @"");
}

#[test]
fn so_few_rows_that_a_side_lacks_a_class_are_refused() {
    let sandbox = Sandbox::new();
    assert_snapshot!(refusal(&sandbox, &["--samples", "2"]), @"");
    assert_snapshot!(refusal(&sandbox, &["--samples", "10", "--train-frac", "0.01"]), @"");
}

#[test]
fn empty_files_are_refused() {
    assert_snapshot!(refused_data("rows.jsonl", ""), @"");
    assert_snapshot!(refused_data("blank.jsonl", "\n \n"), @"");
    assert_snapshot!(refused_data("rows.csv", ""), @"");
    assert_snapshot!(refused_data("header.csv", "messages,label\n"), @"");
    assert_snapshot!(refused_data("rows.parquet", ""), @"");
}

#[test]
fn files_that_are_not_what_their_name_says_are_refused() {
    assert_snapshot!(refused_data("rows.jsonl", "{\"messages\": [\n"), @"");
    assert_snapshot!(refused_data("latin.jsonl", b"\xe4\n"), @"");
    assert_snapshot!(refused_data("rows.csv", "user,assistant,label\nA,B\n"), @"");
    assert_snapshot!(refused_data("columns.csv", "text,label\nA,1\n"), @"");
    assert_snapshot!(refused_data("rows.parquet", "PAR1 this is no Parquet at all PAR1"), @"");
}
