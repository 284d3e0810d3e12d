//! Invalid settings and unwritable outputs: one line on standard error and exit status 2 before any case runs. Broken
//! models and data are in `bad_model.rs` and `bad_data.rs`.

use crate::common_cli::refusal;
use crate::runner_support::{SMALL, Sandbox, stderr};
use insta::assert_snapshot;

/// The error for each of `command_lines`, one per line.
#[track_caller]
fn refusals(command_lines: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let errors = command_lines.iter().map(|line| {
        let arguments: Vec<&str> = line.split(' ').collect();
        refusal(&sandbox, &arguments)
    });
    errors.collect::<Vec<_>>().join("\n")
}

#[test]
fn unknown_name_lists_known_names() {
    let lines = [
        "--pool median",
        "--dtype int8",
        "--tasks train,test",
        "--methods greedy",
        "--mask user",
        "--no-opt everything",
        "--device-map tpu",
        "--device-map cuda:x",
    ];
    assert_snapshot!(refusals(&lines), @r#"
error: invalid value 'median' for '--pool <METHOD>': pool: unknown pool 'median': use mean, max, last or sum
error: invalid value 'int8' for '--dtype <DTYPE>': unknown dtype 'int8': use one of fp32, fp16, bf16 (or float32, float16, bfloat16)
error: invalid value 'test' for '--tasks <TASK,...>' [possible values: train, sweep]
error: invalid value 'greedy' for '--methods <METHOD,...>' [possible values: eager, lazy, lazy-disk]
error: invalid value 'user' for '--mask <MASK>': unknown mask 'user': use assistant or content
error: unknown optimizer rule 'everything': use depth, packing, mask, tail, pooling, prefix, layers, batch or all
error: invalid value 'tpu' for '--device-map <DEVICE>': unknown device 'tpu': use auto, cpu, cuda, cuda:N, balanced or replicas:K
error: invalid value 'cuda:x' for '--device-map <DEVICE>': unknown device 'cuda:x': use auto, cpu, cuda, cuda:N, balanced or replicas:K
"#);
}

#[test]
fn missing_gpu_is_refused() {
    assert_snapshot!(refusals(&["--device-map cuda", "--device-map cuda:3"]), @r#"
error: --device-map cuda: ACTBENCH_CUDA=none hides all GPUs; unset it, or pass --device-map auto or cpu
error: --device-map cuda:3: ACTBENCH_CUDA=none hides all GPUs; unset it, or pass --device-map auto or cpu
"#);
}

#[test]
fn counts_of_zero_are_refused() {
    let lines = [
        "--samples 0",
        "--batch-size 0",
        "--repetitions 0",
        "--threads 0",
        "--sweep-layers 0",
        "--train-max-iter 0",
        "--sweep-max-iter 0",
    ];
    assert_snapshot!(refusals(&lines), @r#"
error: --samples must be at least 1
error: --batch-size must be at least 1
error: --repetitions must be at least 1
error: --threads must be at least 1
error: --sweep-layers must be at least 1
error: --train-max-iter must be at least 1
error: --sweep-max-iter must be at least 1
"#);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let lines = [
        "--train-c NaN",
        "--train-c=-1",
        "--train-c inf",
        "--sweep-cs 1.0,-0.5",
        "--sweep-cs 0",
        "--train-frac 0",
        "--train-frac 1",
        "--train-frac NaN",
        "--train-frac eighty",
        "--samples=-5",
        "--seed 1.5",
        "--threads 99999999999999999999",
    ];
    assert_snapshot!(refusals(&lines), @r#"
error: --train-c NaN: C must be positive and finite
error: --train-c -1: C must be positive and finite
error: --train-c inf: C must be positive and finite
error: --sweep-cs -0.5: C must be positive and finite
error: --sweep-cs 0: C must be positive and finite
error: --train-frac 0 is not between 0 and 1 (both excluded)
error: --train-frac 1 is not between 0 and 1 (both excluded)
error: --train-frac NaN is not between 0 and 1 (both excluded)
error: invalid value 'eighty' for '--train-frac <FRACTION>': give a number
error: invalid value '-5' for '--samples <N>': give a whole number from 0 on
error: invalid value '1.5' for '--seed <SEED>': give a whole number from 0 on
error: invalid value '99999999999999999999' for '--threads <N>': give a smaller number
"#);
}

#[test]
fn unknown_flags_are_refused() {
    assert_snapshot!(refusals(&["--sampels 3", "more", "--samples"]), @r#"
error: unexpected argument '--sampels' found; tip: a similar argument exists: '--samples'
error: unexpected argument 'more' found
error: a value is required for '--samples <N>' but none was supplied
"#);
}

#[test]
fn embedded_model_names_its_depth() {
    assert_snapshot!(refusals(&["--layer 8", "--sweep-layers 9", "--layer 99 --tasks train"]), @r#"
error: --layer 8 is too deep: the model has 8 layers; pass one of --layer 0 to 7
error: --sweep-layers 9 is too deep: layer 8 is asked for and the model has 8 layers; pass --sweep-layers 8 or fewer
error: --layer 99 is too deep: the model has 8 layers; pass one of --layer 0 to 7
"#);
}

#[test]
fn unwritable_output_is_found_before_work() {
    // The missing model is not reported: the output is checked before the model is read.
    assert_snapshot!(refusals(&["--output absent/results.json --model ./absent", "--output temporary"]), @r#"
error: absent/results.json: cannot be written (--output): the directory absent does not exist; create it or use another path
error: temporary: is a directory; --output needs a file name for a result file
"#);
}

#[test]
fn panic_of_child_is_one_line() {
    let sandbox = Sandbox::new();
    let panicking = ["--tasks", "train", "--repetitions", "1", "--quiet", "--inject-fault", "train/lazy=panic"];
    let output = sandbox.output(&[&["run"], &SMALL[..], &panicking].concat());
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("internal error: injected panic") && message.contains("please report it"), "{message}");
    assert!(!message.contains("RUST_BACKTRACE") && !message.contains("panicked at"), "{message}");
}
