//! On the emulated CUDA kernels, the features of a sample are bit-identical for all batches and shared prefixes.

use std::sync::Arc;

use crate::fake_driver::{FakeDriver, options};
use crate::shared_prefixes::{features, tiny_over, tokens};
use actbench_activations::eager;
use actbench_activations::model::ActivationModel;
use actbench_activations::model::decoder::Decoder;
use actbench_activations::plan::batches::Batching;
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::plan::{Acts, Axis, Rule, Rules};
use actbench_kernels::cpu::Isa;
use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::cuda::emulator::{CopyTime, EmulatedBackend, EmulatorOptions, ThreadOrder};
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{CpuBackend, DType, PoolMethod};

fn tiny(dtype: DType, kernels: KernelSet, order: ThreadOrder) -> Decoder<EmulatedBackend> {
    let emulator = EmulatorOptions { order, copies: CopyTime::Mixed, seed: 3 };
    tiny_over(EmulatedBackend::emulated(emulator, kernels), dtype, 2)
}

#[test]
fn sharing_packing_and_pruning_keep_bits() {
    let tokens = tokens();
    let all: Vec<usize> = (0..tokens.len()).collect();
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    let one = Batching { max_samples: 1, max_tokens: 1, padded: false, masked_only: false };
    for kernels in [KernelSet::Plain, KernelSet::Mma, KernelSet::Fast] {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let alone = tiny(dtype, kernels, ThreadOrder::Forward);
            let expected = features(&alone, &[0, 1], &tokens, &SharedPrefixes::none(&all), one, PoolMethod::Mean);
            let model = tiny(dtype, kernels, ThreadOrder::Random);
            for (prefixes, masked_only) in
                [(SharedPrefixes::none(&reversed), true), (SharedPrefixes::of(&tokens, &all), false)]
            {
                let batching = Batching { max_samples: 3, max_tokens: 200, padded: false, masked_only };
                let got = features(&model, &[0, 1], &tokens, &prefixes, batching, PoolMethod::Mean);
                assert!(got == expected, "{kernels:?} {dtype} {batching:?}");
            }
        }
    }
}

#[test]
fn eager_and_unpooled_features_equal_cpu_bits() {
    let tokens = tokens();
    let extracted = |model: Arc<dyn ActivationModel>| {
        let pooled = eager::extract_layer_pooled(model.as_ref(), &tokens, 1, 3, PoolMethod::Mean, None).unwrap();
        let full = eager::extract_full(model.as_ref(), &tokens, &[1, 0], 3, None).unwrap();
        let plan = Acts::collect(model, Arc::new(tokens.clone()), &[1], 3)
            .unwrap()
            .with_rules(Rules::all().without(Rule::Pooling));
        let unpooled = plan.mean_pool(Axis::Sequence).unwrap().realize().unwrap();
        [pooled.tensor, full.tensor, unpooled].map(|tensor| tensor.bytes().to_vec())
    };
    let cpu = CpuBackend::with_isa(2, Isa::Avx512).unwrap();
    let expected = extracted(Arc::new(tiny_over(cpu, DType::F32, 2)));
    assert!(extracted(Arc::new(tiny(DType::F32, KernelSet::Plain, ThreadOrder::Random))) == expected);
    for settings in ["", "others=1"] {
        let _driver = FakeDriver::new(settings);
        let device = DriverDevice::open(0, &options(false)).unwrap();
        let model = tiny_over(CudaBackend::new(device, KernelSet::Plain), DType::F32, 2);
        assert!(extracted(Arc::new(model)) == expected, "{settings}");
    }
}
