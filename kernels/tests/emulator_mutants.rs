//! Each mutant of a kernel is detected in some mode of the emulator, by its message or by its values.
//!
//! An undetected mutant means that the modes, shapes or comparisons of the other tests are too weak: they are the same here.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;
#[path = "mutants/list.rs"]
mod mutants;
#[path = "common/operations.rs"]
mod operations;

use std::panic::{AssertUnwindSafe, catch_unwind};

use actbench_kernels::cuda::emulator::{EmulatedBackend, Emulator, EmulatorOptions};
use actbench_kernels::cuda::registry::{self, SOURCES, Variant};
use actbench_kernels::cuda::{Argument, Device, KernelSet, Tiles};
use actbench_kernels::{Activation, AttentionShape, Backend, DType, PoolMethod, QkvPart, ScoreRule};
use common::*;
use mutants::{KernelPath, Mutant, mutants};
use operations::{MatmulKind, NormKind, QkvCase};

/// The operation of the mutant's kernel, on shapes with tails.
fn run<B: Backend>(mutant: &Mutant, backend: &B) -> Vec<u8> {
    let (dtype, path) = (dtype(mutant), mutant.path);
    let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 48 };
    let usual = ScoreRule::of_head_dim(shape.head_dim);
    let scores = match path {
        KernelPath::Window => ScoreRule { window: Some(70), ..usual },
        KernelPath::SoftCap => ScoreRule { scale: 0.31, soft_cap: Some(2.5), ..usual },
        _ => usual,
    };
    let kind = match path {
        KernelPath::Activated => MatmulKind::Activated(Activation::Gelu),
        KernelPath::Gated => MatmulKind::Gated(Activation::GeluTanh),
        KernelPath::Added => MatmulKind::Residual,
        _ => MatmulKind::Linear,
    };
    let is_added = matches!(path, KernelPath::Added | KernelPath::AddedWide);
    if path == KernelPath::Qkv {
        // Keys and values in one tile with two heads of queries, and a half of each head rotated.
        let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 64 };
        let case = QkvCase { shape, rotary_dim: 32, biased: true, dtype, inputs: 8 };
        return operations::qkv(backend, case, QkvPart::All, (0, 20)).concat();
    }
    match mutant.file {
        "rms_norm" if is_added => operations::norm(backend, NormKind::RmsResidual, dtype, (0, 4), 136),
        "rms_norm" => operations::norm(backend, NormKind::Rms, dtype, (0, 4), 136),
        // Fewer heads than warps of the last block.
        "rms_norm_heads" => operations::norm(backend, NormKind::RmsHeads, dtype, (0, 3), 136),
        "layer_norm" => operations::norm(backend, NormKind::Layer, dtype, (0, 4), 136),
        // A table in memory is converted as a whole.
        "cast" => operations::scaled_embedding(backend, dtype, 136),
        "embed" if is_added => operations::added_embedding(backend, dtype, 136),
        "embed" => operations::scaled_embedding(backend, dtype, 136),
        "rope" => operations::rope(backend, dtype, 48, 16, &[3, 0, 9]),
        "route" => operations::routes(backend, dtype, operations::route_rules(3)[2], (0, 5), 130),
        "add_weighted_rows" => operations::weighted_rows(backend, dtype, 136),
        // The last block is shorter, and two tiles in both dimensions.
        "linear_mma" | "linear_wgmma" if path == KernelPath::Squares => {
            operations::residual_squares(backend, dtype, (0, 130), 72, 328).1
        }
        "linear_mma" if path == KernelPath::Normed => operations::normed(backend, dtype, false, 130, 136, 264),
        // The tiles of a block have different rows.
        "linear_wgmma" if path == KernelPath::Normed => operations::normed(backend, dtype, false, 300, 72, 264),
        "fold_norm" => operations::normed(backend, dtype, true, 3, 136, 8),
        "square_sums" => {
            let x = upload(backend, dtype, 3, 131, &random(1, dtype, 3 * 131));
            let mut squares = filled_with_nan(backend, DType::F32, 3, 3);
            backend.square_sums(&x, &mut squares).unwrap();
            let mut bytes = vec![0; 3 * 3 * 4];
            backend.download(&squares, 3, &mut bytes).unwrap();
            bytes
        }
        "linear" => operations::matmul(backend, kind, true, dtype, (0, 3), 20, 131),
        "pool" => operations::pool(backend, dtype, 136, PoolMethod::Sum),
        "attention" => operations::attention(backend, dtype, shape, scores, [5, 300]),
        "linear_mma" => operations::matmul(backend, kind, true, dtype, (0, 130), 136, 130),
        // More tiles than clusters, more steps than stages, and a tail of each side. A residual is still on its way after
        // few steps alone.
        "linear_wgmma" => {
            let inputs = if path == KernelPath::Added { 72 } else { 392 };
            operations::matmul(backend, kind, true, dtype, (0, 130), inputs, 264)
        }
        // Tiles that begin within the heads of a query, and three blocks of keys.
        "attention_mma" => {
            let shape = match path {
                KernelPath::Packed => AttentionShape { n_heads: 6, n_kv_heads: 2, head_dim: 16 },
                KernelPath::OneStage => AttentionShape { n_heads: 1, n_kv_heads: 1, head_dim: 136 },
                _ => AttentionShape { n_heads: 3, ..shape },
            };
            match path {
                KernelPath::Packed => operations::attention(backend, dtype, shape, scores, [3, 30]),
                KernelPath::Node => operations::attention_of_node(backend, dtype, shape, scores, 80, 60),
                _ => operations::attention(backend, dtype, shape, scores, [3, 150]),
            }
        }
        // More blocks of keys than stages, more tiles than thread blocks, and a consumer that sees fewer keys than the other.
        "attention_wgmma" => {
            let shape = AttentionShape { n_heads: 3, head_dim: 64, ..shape };
            match path {
                KernelPath::Packed => {
                    let shape = AttentionShape { n_heads: 6, n_kv_heads: 2, ..shape };
                    operations::attention(backend, dtype, shape, scores, [3, 100])
                }
                KernelPath::Node => operations::attention_of_node(backend, dtype, shape, scores, 330, 280),
                KernelPath::BeforeNan => operations::attention_before_nan(backend, dtype, shape, scores, 107),
                _ => operations::attention(backend, dtype, shape, scores, [3, 300]),
            }
        }
        other => panic!("no operation for a mutant of {other}"),
    }
}

/// The type of the mutant's operation.
fn dtype(mutant: &Mutant) -> DType {
    match mutant.file {
        "rms_norm" | "rms_norm_heads" | "fold_norm" | "square_sums" => DType::Bf16,
        "attention" | "layer_norm" => DType::F32,
        _ => DType::F16,
    }
}

/// Whether the mutant is one of folded norms: the CPU backend has none, so the bits are compared with the kernel's own.
fn is_folded(mutant: &Mutant) -> bool {
    matches!(mutant.path, KernelPath::Squares | KernelPath::Normed)
}

/// The set of kernels that has the mutant's.
fn kernel_set(mutant: &Mutant) -> KernelSet {
    let variants =
        SOURCES.iter().find(|source| source.file.strip_suffix(".cu") == Some(mutant.file)).unwrap().kernels();
    match variants.map(|kernel| kernel.variant).last() {
        Some(Variant::Wgmma) => KernelSet::Fast,
        Some(Variant::Mma) => KernelSet::Mma,
        Some(Variant::Wide) if matches!(mutant.path, KernelPath::Wide | KernelPath::AddedWide) => KernelSet::Mma,
        _ if is_folded(mutant) => KernelSet::Mma,
        _ => KernelSet::Plain,
    }
}

/// The symptom of the mutant in this mode, if it is detected.
fn symptom(mutant: &Mutant, options: EmulatorOptions, expected: &[u8]) -> Option<String> {
    let (dtype, kernels) = (dtype(mutant), kernel_set(mutant));
    let backend = EmulatedBackend::mutant(options, kernels, mutant.name).unwrap();
    let got = match catch_unwind(AssertUnwindSafe(|| run(mutant, &backend))) {
        Ok(got) => got,
        Err(panic) => return Some(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
    };
    if is_folded(mutant) {
        return (got != expected).then(|| "wrong bits".to_owned());
    }
    let expected = dtype.to_f32_vec(expected);
    let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let worst = dtype.to_f32_vec(&got).into_iter().zip(&expected).map(|(got, expected)| (got - expected).abs() / scale);
    let wrong = worst.filter(|error| error.is_nan() || f64::from(*error) > tolerance(dtype)).count();
    (wrong > 0).then(|| format!("{wrong} wrong values"))
}

/// The symptoms of each mutant by mode.
fn table() -> Vec<(&'static str, Vec<Option<String>>)> {
    let cpu = fused_multiply_add_cpu();
    mutants()
        .map(|mutant| {
            let modes = EmulatorOptions::matrix();
            // The CPU rounds before a rotation, the fused kernels do not, and it folds no norms.
            let expected = match mutant.path {
                KernelPath::Qkv | KernelPath::Squares | KernelPath::Normed => {
                    run(mutant, &EmulatedBackend::emulated(modes[0], kernel_set(mutant)))
                }
                _ => run(mutant, &cpu),
            };
            (mutant.name, modes.into_iter().map(|options| symptom(mutant, options, &expected)).collect())
        })
        .collect()
}

#[test]
fn every_mutant_is_detected() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let table = table();
    std::panic::set_hook(quiet);
    for (name, modes) in &table {
        let marks: String = modes.iter().map(|symptom| if symptom.is_some() { 'x' } else { '.' }).collect();
        println!("{marks} {name}: {}", modes.iter().flatten().next().map_or("", String::as_str));
    }
    let undetected: Vec<_> =
        table.iter().filter(|(_, modes)| modes.iter().all(Option::is_none)).map(|row| row.0).collect();
    assert!(undetected.is_empty(), "no mode detects {undetected:?}");
    // Early copies detect races, late ones detect missing waits: each hides the other's mutants.
    for (mode, time) in [(0, "early"), (1, "late")] {
        let hidden = table.iter().filter(|(_, modes)| modes[mode].is_none()).count();
        assert!(hidden >= 3, "only {hidden} mutants are hidden by {time} copies");
    }
    let assert_symptom = |name: &str, words: &str| {
        let (_, modes) = table.iter().find(|row| row.0 == name).unwrap();
        assert!(modes.iter().flatten().any(|symptom| symptom.contains(words)), "{name}: {modes:?}");
    };
    assert_symptom("mma_row_beyond_the_end", "reaches beyond the end of argument 7");
    assert_symptom("mma_copies_a_row_too_many", "from beyond its memory");
    assert_symptom("mma_missing_wait", "asynchronous copies it did not wait for");
    assert_symptom("wgmma_missing_fence", "is not fenced");
    assert_symptom("wgmma_missing_wait_group_0", "wgmmas that it did not wait for");
    assert_symptom("wgmma_barriers_used_before_init", "a barrier that was not initialized");
    assert_symptom("wgmma_missing_cluster_sync", "a barrier that was not initialized");
    assert_symptom("wgmma_arrives_after_last_refill", "arrives at a barrier of block");
    assert_symptom("wgmma_arrives_after_last_refill", "arrivals of other blocks in flight");
    assert_symptom("wgmma_arrives_at_own_cta_only", "deadlock: ");
    assert_symptom("wgmma_multicast_to_own_cta_only", "deadlock: ");
    assert_symptom("wgmma_stages_not_aligned", "not a multiple of 1024");
    assert_symptom("wgmma_expects_too_many_bytes", "threads wait at mbarrier");
    assert_symptom("wgmma_one_warp_skips_a_wgmma", "warp 11 has other wgmmas than its warpgroup");
    assert_symptom("wgmma_exceeds_the_register_file", "registers");
    assert_symptom("wgmma_refills_of_one_tile", "deadlock: ");
    assert_symptom("wgmma_slab_reused_before_bulk_wait", "wrong values");
    assert_symptom("wgmma_stores_not_waited_for", "TMA stores it did not wait for");
    assert_symptom("wgmma_missing_proxy_fence", "without fence.proxy.async");
    assert_symptom("flash_warp_skips_a_barrier", "is at the barrier");
    assert_symptom("flash_lanes_leave_their_warp", "deadlock: ");
    assert_symptom("heads_norm_wide_one_head_too_many", "reaches beyond the end of argument 0");
    assert_symptom("flash_row_before_its_window_is_nan", "wrong values");
    assert_symptom("flash_missing_wait", "asynchronous copies it did not wait for");
    assert_symptom("flash_heads_of_another_group", "wrong values");
    assert_symptom("flash_mask_off_by_one_block", "wrong values");
    assert_symptom("flash3_missing_fence", "is not fenced");
    assert_symptom("flash3_missing_wait_for_last_results", "wgmmas that it did not wait for");
    assert_symptom("flash3_stages_never_released", "deadlock: ");
    assert_symptom("flash3_gather_without_a_proxy_fence", "without fence.proxy.async");
    assert_symptom("flash3_zeroes_without_a_proxy_fence", "without fence.proxy.async");
    assert_symptom("flash3_values_not_zeroed", "wrong values");
    assert_symptom("flash3_mask_off_by_one_block", "wrong values");
    assert_symptom("flash3_heads_of_another_group", "wrong values");
    assert_symptom("flash3_stages_not_aligned", "not a multiple of 1024");
}

/// Faults of the host: tensor maps that do not fit the kernel.
#[test]
fn tensor_maps_of_other_tiles_are_detected() {
    let [rows, inputs, outputs] = [130, 136, 40];
    let launched = |options: EmulatorOptions, tile_rows, tile_columns, swizzled| {
        let device = Emulator::new(options);
        let upload = |seed, len| {
            let bytes = DType::Bf16.from_f32_slice(&random(seed, DType::Bf16, len));
            let mut buffer = device.alloc(bytes.len()).unwrap();
            device.write(&mut buffer, &bytes).unwrap();
            buffer
        };
        let (x, weights) = (upload(1, rows * inputs), upload(2, outputs * inputs));
        let out = device.alloc(rows * outputs * 2).unwrap();
        let tiles = |buffer, rows, columns, tile_rows, tile_columns| {
            Argument::Tiles(Tiles { buffer, dtype: DType::Bf16, rows, columns, tile_rows, tile_columns, swizzled })
        };
        let launch = registry::named("linear_wgmma_bf16").unwrap().launch([2, 1, 1]);
        let mut arguments = [
            tiles(&x, rows, inputs, tile_rows, tile_columns),
            tiles(&weights, outputs, inputs, 128, tile_columns),
            tiles(&out, rows, outputs, 64, 64),
            Argument::Null,
            Argument::U32(rows as u32),
            Argument::U32(inputs as u32),
            Argument::U32(outputs as u32),
            Argument::U32(0),
            Argument::Null,
            Argument::F32(0.0),
        ];
        device.launch(&launch, &mut arguments).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; rows * outputs * 2];
        device.read(&out, &mut bytes).unwrap();
        Ok::<_, String>(bytes)
    };
    let whole = launched(EmulatorOptions::matrix()[0], 128, 64, true).unwrap();
    for options in EmulatorOptions::matrix() {
        assert!(launched(options, 128, 64, true).unwrap() == whole, "{options:?}");
        assert!(
            launched(options, 128, 64, false).unwrap() != whole,
            "a missing swizzle is not detected with {options:?}"
        );
        for (tile_rows, tile_columns) in [(64, 64), (128, 32)] {
            let message = launched(options, tile_rows, tile_columns, true).unwrap_err();
            assert!(message.contains("deadlock: ") && message.contains("threads wait at mbarrier"), "{message}");
        }
    }
}
