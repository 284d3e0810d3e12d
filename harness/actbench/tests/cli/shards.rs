//! `actbench cache --shard` and `--merge`: the joined file has the bytes of one process, or the shards are refused by name.

use std::fs;
use std::process::Output;

use crate::runner_support::{Sandbox, stderr, stdout};

/// 21 samples, so that the shards of four have different sizes.
const WORK: [&str; 6] = ["--samples", "21", "--sweep-layers", "2", "--threads", "1"];

fn cache(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    sandbox.output(&[&["cache"], &WORK[..], arguments].concat())
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let message = stderr(output);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
    assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
}

/// All of `count` shards in the directory `shards`.
fn with_shards(count: usize, arguments: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for index in 1..=count {
        let shard = format!("{index}/{count}");
        succeeds(&cache(&sandbox, &[&["--out", "shards", "--shard", &shard, "-q"], arguments].concat()));
    }
    sandbox
}

fn merge(sandbox: &Sandbox) -> Output {
    sandbox.output(&["cache", "--merge", "shards", "--out", "merged.safetensors", "-q"])
}

#[test]
fn merged_shards_have_the_bytes_of_one_process() {
    // Another batch size than that of the whole: it changes no bit.
    let sandbox = with_shards(4, &["--batch-size", "3"]);
    succeeds(&cache(&sandbox, &["--out", "whole.safetensors", "-q"]));
    let merged = succeeds(&merge(&sandbox));
    assert!(merged.contains("joined from 4 shards"), "{merged}");
    let read = |name: &str| fs::read(sandbox.path(name)).unwrap();
    assert!(read("merged.safetensors") == read("whole.safetensors"), "the joined file has other bytes");
    // A second time both are complete: nothing is computed or written.
    let again = succeeds(&merge(&sandbox));
    assert!(again.contains("was complete already"), "{again}");
    let shard = succeeds(&cache(&sandbox, &["--out", "shards", "--shard", "2/4", "-q"]));
    assert!(shard.contains("shard-2-of-4.safetensors") && shard.contains("ran the model on 0 of"), "{shard}");
    let names = fs::read_dir(sandbox.path("shards")).unwrap().count();
    assert_eq!(names, 4, "no other file is left in the directory");
}

#[test]
fn shard_of_a_launcher_is_named_in_the_log() {
    let sandbox = Sandbox::new();
    let arguments = [&["cache"], &WORK[..], &["--out", "shards", "--shard", "auto/4"]].concat();
    let output = sandbox.command(&arguments).env("SLURM_ARRAY_TASK_ID", "3").output().unwrap();
    assert!(succeeds(&output).contains("shard-4-of-4.safetensors"));
    assert!(stderr(&output).contains("note: shard 4/4, from SLURM_ARRAY_TASK_ID=3"), "{}", stderr(&output));
    let output = sandbox.command(&arguments).env_remove("SLURM_ARRAY_TASK_ID").output().unwrap();
    refused(&output, &["no launcher", "--shard I/N"]);
}

#[test]
fn shards_that_do_not_fit_are_refused() {
    let sandbox = with_shards(3, &[]);
    refused(&cache(&sandbox, &["--out", "shards", "--shard", "1/2", "-q"]), &["shard-1-of-3", "another directory"]);
    refused(&cache(&sandbox, &["--out", "new", "--shard", "1/22", "-q"]), &["21 samples"]);
    let third = sandbox.path("shards/shard-3-of-3.safetensors");
    let bytes = fs::read(&third).unwrap();
    fs::remove_file(&third).unwrap();
    refused(&merge(&sandbox), &["lacks 1 of 3 shards: 3", "--shard 3/3"]);
    for (arguments, difference) in [
        (["--seed", "7"], "the data set or its samples"),
        (["--mask", "content"], "the mask"),
        (["--dtype", "fp32"], "the model or its arithmetic"),
        (["--pool", "max"], "the pooling"),
    ] {
        let shard = [&["--out", "shards", "--shard", "3/3", "-q"][..], &arguments].concat();
        succeeds(&cache(&sandbox, &shard));
        refused(&merge(&sandbox), &["shard-3-of-3", "shard-1-of-3", difference]);
        fs::remove_file(&third).unwrap();
    }
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&third, damaged).unwrap();
    refused(&merge(&sandbox), &["shard-3-of-3", "damaged"]);
    fs::write(&third, &bytes[..middle]).unwrap();
    refused(&merge(&sandbox), &["shard-3-of-3", "truncated"]);
    fs::write(&third, fs::read(sandbox.path("shards/shard-2-of-3.safetensors")).unwrap()).unwrap();
    refused(&merge(&sandbox), &["shard-3-of-3", "is the file of shard 2/3"]);
    fs::write(&third, bytes).unwrap();
    assert!(!sandbox.path("merged.safetensors").exists());
    succeeds(&merge(&sandbox));
    // A file of something else is not replaced.
    succeeds(&cache(&sandbox, &["--out", "merged-2.safetensors", "--seed", "7", "-q"]));
    let other = sandbox.output(&["cache", "--merge", "shards", "--out", "merged-2.safetensors"]);
    refused(&other, &["merged-2", "the data set or its samples", "delete it"]);
}

#[test]
fn merge_takes_no_flags_of_an_extraction() {
    let sandbox = with_shards(1, &[]);
    for flags in [["--seed", "1"], ["--layer", "1"], ["--threads", "1"], ["--shard", "1/1"], ["--device-map", "cpu"]] {
        let merge = ["cache", "--merge", "shards", "--out", "merged.safetensors"];
        let output = sandbox.output(&[&merge[..], &flags].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(stderr(&output).contains(flags[0]), "{flags:?}: {}", stderr(&output));
    }
}
