//! Forward passes of short batches as CUDA graphs, over the fake driver: bit-identical to single launches.

use std::sync::Arc;

use crate::fake_driver::{FakeDriver, options};
use crate::shared_prefixes::{features, tiny_over, tokens};
use actbench_activations::plan::batches::Batching;
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{CpuBackend, DType, PoolMethod};

#[test]
fn graphs_have_the_bits_of_single_launches() {
    let tokens = tokens();
    let all: Vec<usize> = (0..tokens.len()).collect();
    let batching = |max_samples, masked_only| Batching { max_samples, max_tokens: 200, padded: false, masked_only };
    for settings in ["", "pools=0 others=1"] {
        let driver = FakeDriver::new(settings);
        let device = Arc::new(DriverDevice::open(0, &options(false)).unwrap());
        let model = tiny_over(CudaBackend::new(device.clone(), KernelSet::Fast), DType::Bf16, 4);
        for layers in [&[3][..], &[0, 1]] {
            device.set_graphs(false);
            let before = driver.counted("graphs");
            let expected =
                features(&model, layers, &tokens, &SharedPrefixes::none(&all), batching(1, false), PoolMethod::Mean);
            assert_eq!(driver.counted("graphs"), before);
            assert!(expected.iter().flatten().all(|row| row.iter().any(|byte| *byte != 0)));
            device.set_graphs(true);
            // Batches of varying length; with a prefix cache; with pruning in the last layer.
            for (prefixes, batching) in [
                (SharedPrefixes::none(&all), batching(1, false)),
                (SharedPrefixes::of(&tokens, &all), batching(1, false)),
                (SharedPrefixes::of(&tokens, &all), batching(2, true)),
            ] {
                let before = driver.counted("graphs");
                let got = features(&model, layers, &tokens, &prefixes, batching, PoolMethod::Mean);
                assert!(got == expected, "{settings} {layers:?} {batching:?}");
                assert!(driver.counted("graphs") >= before + layers.len(), "{settings} {layers:?} {batching:?}");
            }
        }
        // Equal groups at one position share a graph: the number of graphs does not grow with the batches.
        let (used, made) = (driver.counted("graphs"), driver.counted("graphs made"));
        assert!(made < used / 2, "{made} graphs were created for {used}");
        assert_eq!(device.graph_usage().refused, None);
    }
}

#[test]
fn passes_without_graphs_have_the_same_bits() {
    let tokens = tokens();
    let all: Vec<usize> = (0..tokens.len()).collect();
    let batching = Batching { max_samples: 2, max_tokens: 200, padded: false, masked_only: true };
    let pass = |model: &dyn actbench_activations::model::ActivationModel| {
        features(model, &[1], &tokens, &SharedPrefixes::of(&tokens, &all), batching, PoolMethod::Mean)
    };
    let on_driver = |settings: &str| {
        let _driver = FakeDriver::new(settings);
        let device = DriverDevice::open(0, &options(false)).unwrap();
        pass(&tiny_over(CudaBackend::new(device, KernelSet::Plain), DType::F32, 2))
    };
    let expected =
        pass(&tiny_over(CpuBackend::with_isa(2, actbench_kernels::cpu::Isa::Avx512).unwrap(), DType::F32, 2));
    assert!(on_driver("") == expected && on_driver("graphs=0") == expected);
}
