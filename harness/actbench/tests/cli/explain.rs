//! `actbench explain` on the embedded model, and on settings that it refuses.

use crate::runner_support::Sandbox;

fn explained(arguments: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let command = sandbox.command(&[&["explain"], arguments].concat());
    let output = assert_cmd::Command::from_std(command).assert().code(0).get_output().clone();
    assert!(!sandbox.path("results.json").exists(), "nothing is run");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn plans_of_both_tasks() {
    insta::assert_snapshot!(explained(&["--samples", "40"]));
}

#[test]
fn disabled_rules_have_no_line() {
    let text = explained(&["--samples", "40", "--tasks", "train", "--no-opt", "prefix", "--no-opt", "mask"]);
    assert!(text.contains("rules: depth, packing, tail, pooling, layers, batch\n"), "{text}");
    assert!(text.contains("without packing") && !text.contains("without prefix") && !text.contains("sweep"), "{text}");
}

#[test]
fn threads_that_compute_batches_alone_are_named() {
    let arguments = ["--samples", "60", "--tasks", "train", "--batch-size", "32"];
    let with = |threads: &str| explained(&[&arguments[..], &["--threads", threads]].concat());
    assert!(with("2").contains("\nthreads: 2 batches at a time, a thread each\n"), "{}", with("2"));
    assert_eq!(with("1"), explained(&arguments));
    assert!(!with("1").contains("threads:"), "{}", with("1"));
}

#[test]
fn tasks_and_layers_are_selected() {
    let text = explained(&["--samples", "20", "--task", "sweep,sweep", "--sweep-layers", "2", "-q"]);
    assert!(text.starts_with("sweep\n") && text.matches("\nboth sides in one pass, plan: ").count() == 1, "{text}");
    let sandbox = Sandbox::new();
    let command = sandbox.command(&["explain", "--samples", "20", "--layer", "99"]);
    let output = assert_cmd::Command::from_std(command).assert().code(2).stdout("").get_output().clone();
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"error: --layer 99 is too deep: the model has 8 layers; pass one of --layer 0 to 7\n");
}
