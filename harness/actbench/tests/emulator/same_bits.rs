//! On the emulated CUDA kernels, the features of a sample are bit-identical for all batches and shared prefixes.

use crate::shared_prefixes::{features, tiny_over, tokens};
use actbench_activations::model::decoder::Decoder;
use actbench_activations::plan::batches::Batching;
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_kernels::cuda::KernelSet;
use actbench_kernels::cuda::emulator::{CopyTime, EmulatedBackend, EmulatorOptions, ThreadOrder};
use actbench_kernels::{DType, PoolMethod};

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
