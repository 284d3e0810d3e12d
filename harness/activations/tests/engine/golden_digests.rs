//! The bits of every golden model's activations, pinned: a change of one bit changes the digests of stored features.
//!
//! Instruction sets that use one chain of fused multiply-adds per output have the same bits on every machine, so that their
//! digests can be stored. Those with bf16 instructions (AVX-512 BF16, AMX) have orders of their own and are left out.

use std::collections::BTreeMap;

use crate::golden_support::{batch, load};
use actbench_activations::model::{LayerOutput, run_batch};
use actbench_fixtures::golden::{Golden, cases};
use actbench_kernels::cpu::Isa;
use actbench_kernels::{CpuBackend, DType};

/// Lines of `golden dtype digest`: BLAKE3 of the outputs of all layers, in order.
const PINNED: &str = include_str!("../data/golden_digests.txt");

fn digest(golden: &Golden, dtype: DType, isa: Isa) -> String {
    let model = load(golden, dtype, CpuBackend::with_isa(2, isa).unwrap());
    let layers: Vec<usize> = (0..golden.n_layers).collect();
    let mut hasher = blake3::Hasher::new();
    let mut sink = |_: usize, bytes: &[u8]| {
        hasher.update(bytes);
        Ok(())
    };
    run_batch(&model, &batch(golden), &layers, LayerOutput::Tokens, &mut sink).unwrap();
    hasher.finalize().to_hex().to_string()
}

#[test]
fn activations_of_goldens_keep_their_bits() {
    let mut pinned = BTreeMap::new();
    for line in PINNED.lines() {
        let mut fields = line.split(' ');
        let (name, dtype, digest) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        pinned.insert((name, dtype.parse::<DType>().unwrap().to_string()), digest);
    }
    for name in cases().unwrap() {
        let golden = Golden::load(&name).unwrap();
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
                let known = pinned[&(&name[..], dtype.to_string())];
                assert_eq!(digest(&golden, dtype, isa), known, "{name} {dtype} {isa}");
            }
        }
    }
    assert_eq!(pinned.len(), 3 * cases().unwrap().len());
}
