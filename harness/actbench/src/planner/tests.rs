//! Predicted counts compared with the counts of runs, and how predictions scale.

use std::sync::Arc;

use super::calibration::Calibration;
use super::job::{Job, SyntheticTokens};
use super::predict;
use crate::case::{CaseObserver, CaseSpec, Injection, Method, NoopObserver, RunConfig, Task};
use crate::test_support::small_config;
use crate::workload::prepare::prepare;
use crate::workload::{request, run_case, with_layers};
use actbench_activations::model::memory_model::filled_batch_tokens;
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::plan::PlanCost;

fn calibration() -> Calibration {
    Calibration {
        gpu: None,
        base_rss: 30 << 20,
        base_heap: 1 << 20,
        weight_element: 2,
        lazy_flops: 1e11,
        eager_flops: 5e10,
        full_bytes: 1e9,
        pool_bytes: 2e9,
        disk_bytes: 1e8,
        file_s: 0.01,
        probe_work: 1e9,
        start_s: 0.1,
        block_s: 0.01,
        block_bytes: 1e6,
    }
}

#[test]
fn counts_equal_those_of_a_run() {
    let requested =
        RunConfig { samples: 30, threads: Some(1), memory_limit: "none".parse().unwrap(), ..small_config() };
    let data = prepare(request(&requested, true)).unwrap();
    let config = with_layers(&requested, &data);
    let job = Job::from_data(&config, &data);
    let directory = tempfile::tempdir().unwrap();
    let observer: Arc<dyn CaseObserver> = Arc::new(NoopObserver);
    for (task, method) in job.cases() {
        let cache = directory.path().join(format!("{task}-{method}"));
        std::fs::create_dir(&cache).unwrap();
        let spec = CaseSpec {
            task,
            method,
            config: config.clone(),
            cache_directory: cache,
            fault: None,
            injection: Injection::default(),
        };
        let metrics = run_case(&spec, &observer).unwrap().metrics;
        let count = job.count(task, method).unwrap();
        for (name, measured, counted) in [
            ("flops", metrics.flops, count.flops),
            ("tokens_computed", metrics.tokens_computed, count.tokens_computed),
            ("batches", metrics.batches, count.batches),
            ("tokens_total", metrics.tokens_total, count.tokens),
        ] {
            assert_eq!(measured, Some(counted), "{task} {method}: {name}");
        }
    }
}

fn synthetic(samples: usize, tokens: SyntheticTokens) -> Job {
    let text = r#"{"model_type": "llama", "vocab_size": 900, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    let model = DecoderSpec::parse(text, "test").unwrap();
    let config = RunConfig { samples, layer: Some(3), sweep_layers: Some(4), threads: Some(2), ..small_config() };
    Job::synthetic(&config, model, false, tokens).unwrap()
}

#[test]
fn uncounted_samples_scale_counts_but_not_batches() {
    let tokens = SyntheticTokens { length: 2048, shared: 1024, pooled: 512 };
    // 4 Mi tokens are counted, that is 2,048 of these sequences.
    let (counted, scaled) = (synthetic(2048, tokens), synthetic(20_480, tokens));
    assert_eq!(scaled.samples().iter().sum::<u64>(), 20_480);
    for (task, method) in scaled.cases() {
        let (one, ten) = (counted.count(task, method).unwrap(), scaled.count(task, method).unwrap());
        let ratio = ten.flops as f64 / one.flops as f64;
        assert!((ratio - 10.0).abs() < 0.01, "{task} {method}: {ratio}");
        assert_eq!(ten.largest, one.largest);
        // Lazy computes the shared half about once; eager computes it for each sequence.
        let rows_per_sample = one.tokens_computed as f64 / 2048.0;
        let expected = if method == Method::Eager { 2048.0 } else { 1024.0 };
        assert!((rows_per_sample - expected).abs() < 2.0, "{task} {method}: {rows_per_sample}");
    }
}

#[test]
fn predictions_differ_by_tensors_cache_and_rate() {
    let job = synthetic(400, SyntheticTokens { length: 32, shared: 0, pooled: 16 });
    let all = predict(&job, &calibration()).unwrap();
    let find = |task, method| all.iter().find(|it| (it.task, it.method) == (task, method)).unwrap();
    let (eager, lazy, disk) =
        (find(Task::Sweep, Method::Eager), find(Task::Sweep, Method::Lazy), find(Task::Sweep, Method::LazyDisk));
    let pooled = 400 * 4 * 64 * 2;
    assert_eq!((eager.disk_bytes, lazy.disk_bytes, disk.disk_bytes), (0, 0, pooled));
    assert!(eager.rss_bytes >= lazy.rss_bytes + 30 * pooled && lazy.rss_bytes > disk.rss_bytes);
    assert!(disk.extract_s > lazy.extract_s + 0.01);
    let seconds = lazy.flops as f64 / 1e11;
    assert!((lazy.extract_s - seconds).abs() < 1e-9);
    assert!(all.iter().all(|it| it.elapsed_s.is_finite() && it.elapsed_s > 0.0 && it.heap_bytes < it.rss_bytes));
}

#[test]
fn batches_fill_a_gpu_unless_a_size_is_named() {
    // So wide that a filled batch has no more than 2,048 tokens.
    let tokens = SyntheticTokens { length: 64, shared: 0, pooled: 32 };
    let narrow = synthetic(200, tokens);
    let wide = DecoderSpec { hidden_size: 1 << 16, ..narrow.model };
    let job = Job::synthetic(&narrow.config, wide, false, tokens).unwrap();
    let filled = filled_batch_tokens(&job.model, job.config.dtype) as u64;
    let count = |job: &Job, method| job.count(Task::Train, method).unwrap();
    let on_cpu = count(&job, Method::Lazy);
    assert!(on_cpu.largest.tokens <= 4 * 64 && on_cpu.largest.tokens > 3 * 64, "{on_cpu:?}");
    let on_gpu = job.clone().on_gpu(true);
    let lazy = count(&on_gpu, Method::Lazy);
    assert!(lazy.largest.tokens <= filled && lazy.largest.tokens > filled - 64, "{lazy:?}");
    assert_eq!((lazy.tokens_computed, lazy.flops), (on_cpu.tokens_computed, on_cpu.flops));
    let on_threads = count(&job, Method::Eager);
    assert_eq!(on_threads.streams, 2);
    assert_eq!(count(&on_gpu, Method::Eager), PlanCost { streams: 1, ..on_threads });
    assert_eq!(count(&on_gpu.with_batch_size(4), Method::Lazy), on_cpu);
}

#[test]
fn contradicting_extents_are_refused() {
    for (length, shared, pooled) in [(0, 0, 0), (8, 8, 1), (8, 0, 0), (8, 0, 9)] {
        let config = RunConfig { layer: Some(0), sweep_layers: Some(1), ..small_config() };
        let model = synthetic(4, SyntheticTokens { length: 2, shared: 0, pooled: 1 }).model;
        let error = Job::synthetic(&config, model, false, SyntheticTokens { length, shared, pooled }).unwrap_err();
        assert!(error.to_string().contains("--shared-tokens"), "{error}");
    }
}
