//! Rates of GPUs that were measured elsewhere, to plan a run on a GPU that this machine lacks.

use actbench_kernels::DType;

use super::stored_rates::StoredRates;
use crate::case::RunConfig;
use crate::error::{Error, Result};

/// A GPU, its memory, and the rates of its machine.
#[derive(Debug, PartialEq)]
pub struct PublishedGpu {
    /// The value of `--calibrate`.
    pub name: &'static str,
    /// The GPU as its driver names it.
    pub device: &'static str,
    /// The data type of the rates.
    pub dtype: DType,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Floating-point operations per second with packed batches.
    pub lazy_flops: f64,
    /// The same with padded batches of which all tokens are copied to host memory.
    pub eager_flops: f64,
    /// Bytes of weights per second that are copied to the device.
    pub weight_bytes: f64,
    /// Resident bytes of a process that has opened the device and holds no data.
    pub base_rss: u64,
    /// The page with the measurements.
    pub source: &'static str,
}

/// All of them.
pub const PUBLISHED: [PublishedGpu; 1] = [PublishedGpu {
    name: "h100",
    device: "NVIDIA H100 80GB HBM3",
    dtype: DType::Bf16,
    memory_bytes: 81_079 << 20,
    // The step `run`: 200 short dialogues, the shape of Llama-3.2-1B, batches of 32. Lazy is the median of train (12.0 TFLOP in
    // 0.033 s) and sweep (14.8 TFLOP in 0.051 s), eager is train (20.7 TFLOP in 0.058 s): what `--calibrate` takes of results.
    lazy_flops: 3.27e14,
    eager_flops: 3.56e14,
    // The step `profile`: 2106.8 MB in 244.1 ms.
    weight_bytes: 8.6e9,
    // Lazy, train: 157 MiB, of which 7 MiB are heap.
    base_rss: 150 << 20,
    source: "docs/measurements/gpu.md",
}];

/// The GPU that `--calibrate` calls `name`.
pub fn find(name: &str) -> Option<&'static PublishedGpu> {
    PUBLISHED.iter().find(|gpu| gpu.name == name)
}

impl PublishedGpu {
    /// The rates of batches, in the place of measured ones.
    pub fn rates(&self) -> StoredRates {
        StoredRates { lazy_flops: Some(self.lazy_flops), eager_flops: Some(self.eager_flops), probe_work: None }
    }

    /// Checks that the rates are of the data type of `config`.
    ///
    /// # Errors
    /// Another data type.
    pub fn check(&self, config: &RunConfig) -> Result<()> {
        if config.dtype == self.dtype {
            return Ok(());
        }
        let (name, own, other) = (self.name, DType::name(self.dtype), DType::name(config.dtype));
        Err(Error::usage(format!("--calibrate {name}: its rates are of {own}, not of {other}; pass --dtype {own}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Method, Task};
    use crate::planner::calibration::Calibration;
    use crate::planner::describe::describe;
    use crate::planner::predict;
    use actbench_activations::model::config_only::find_model_spec;

    /// The run of the page, predicted from the rates that it has.
    #[test]
    fn rates_reproduce_their_run() {
        let gpu = find("h100").unwrap();
        let config = RunConfig {
            model: Some("synthetic:llama-3.2-1b".to_owned()),
            samples: 200,
            batch_size: 32,
            // The page is older than filled batches.
            batch_size_is_limit: true,
            layer: Some(12),
            sweep_layers: Some(16),
            dtype: gpu.dtype,
            ..crate::test_support::small_config()
        };
        let spec = find_model_spec(config.model.as_deref(), true).unwrap();
        let config =
            RunConfig { methods: vec![Method::Eager, Method::Lazy], tasks: vec![Task::Train, Task::Sweep], ..config };
        // Heap of the data, which is not counted in unit tests.
        let job = describe(&config, &spec, None, true).unwrap().job.with_data_bytes(1 << 20);
        let (lazy_flops, eager_flops) = gpu.rates().of_both_methods().unwrap();
        let host = Calibration {
            gpu: None,
            base_rss: 30 << 20,
            base_heap: 0,
            weight_element: 2,
            lazy_flops,
            eager_flops,
            // The machine of the page: the host memory of eager's sweep.
            full_bytes: 3.5e9,
            pool_bytes: 2e10,
            disk_bytes: 1e9,
            file_s: 0.01,
            probe_work: 1e9,
            start_s: 0.1,
            block_s: 0.01,
            block_bytes: 1.2e8,
        };
        let predictions = predict(&job, &host.with_model_on(gpu)).unwrap();
        // Seconds of extraction, RSS and GPU memory in MiB, as docs/measurements/gpu/run.txt has them.
        let measured = [
            (Task::Train, Method::Eager, 0.058, 182.0, 2105.0),
            (Task::Train, Method::Lazy, 0.033, 157.0, 2097.0),
            (Task::Sweep, Method::Eager, 0.337, 1028.0, 2454.0),
            (Task::Sweep, Method::Lazy, 0.051, 174.0, 2449.0),
        ];
        for (prediction, (task, method, extract, rss, memory)) in predictions.iter().zip(measured) {
            assert_eq!((prediction.task, prediction.method), (task, method));
            let near = |name: &str, predicted: f64, measured: f64, tolerance: f64| {
                let ratio = predicted / measured;
                assert!((ratio - 1.0).abs() <= tolerance, "{task} {method}, {name}: {predicted} against {measured}");
            };
            near("seconds", prediction.extract_s, extract, 0.2);
            near("RSS", prediction.rss_bytes as f64 / f64::from(1 << 20), rss, 0.2);
            near("GPU memory", prediction.gpu_bytes as f64 / f64::from(1 << 20), memory, 0.01);
        }
        assert_eq!(predictions.len(), measured.len());
    }

    #[test]
    fn other_data_types_are_refused() {
        let config = RunConfig { dtype: DType::F32, ..crate::test_support::small_config() };
        let error = find("h100").unwrap().check(&config).unwrap_err().to_string();
        assert_eq!(error, "--calibrate h100: its rates are of bf16, not of f32; pass --dtype bf16");
    }
}
