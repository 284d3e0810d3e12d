//! Each fault planted in a copy of a kernel is seen in some mode of the emulator, by the message or by the values.
//!
//! A fault that no mode sees would mean that the modes, the shapes or the comparisons of the other tests are too weak:
//! they are the same here.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;
#[path = "common/operations.rs"]
mod operations;
#[path = "planted/list.rs"]
mod planted;

use std::panic::{AssertUnwindSafe, catch_unwind};

use actbench_kernels::cuda::emulator::{EmulatedBackend, Emulator, EmulatorOptions};
use actbench_kernels::cuda::{Argument, Device, KernelSet, Launch, Tiles};
use actbench_kernels::{AttentionShape, Backend, DType, PoolMethod};
use common::*;
use operations::MatmulKind;
use planted::{PLANTED, Planted};

/// The operation that the fault's kernel serves, on shapes with tails.
fn run<B: Backend>(fault: &Planted, backend: &B) -> Vec<u8> {
    let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 48 };
    match fault.file {
        "rms_norm" => operations::rms_norm(backend, DType::Bf16, 4, 136),
        "linear" => operations::matmul(backend, MatmulKind::Linear, true, DType::F16, (0, 3), 20, 131),
        "pool" => operations::pool(backend, DType::F16, 136, PoolMethod::Sum),
        "attention" => operations::attention(backend, DType::F32, shape, [5, 300]),
        "linear_mma" => operations::matmul(backend, MatmulKind::Linear, true, DType::F16, (0, 130), 136, 130),
        // More steps than slots, and a tail of each side; outputs that are stored one by one and eight at a time.
        "linear_wgmma" => {
            let outputs = if ["eight", "exchange"].iter().any(|word| fault.name.contains(word)) { 264 } else { 262 };
            operations::matmul(backend, MatmulKind::Linear, true, DType::F16, (0, 130), 392, outputs)
        }
        "attention_mma" => operations::attention(backend, DType::F16, shape, [3, 150]),
        other => panic!("no operation for a fault in {other}"),
    }
}

/// How the fault shows in this mode, if it does.
fn symptom(fault: &Planted, options: EmulatorOptions, expected: &[u8]) -> Option<String> {
    let dtype = match fault.file {
        "rms_norm" => DType::Bf16,
        "attention" => DType::F32,
        _ => DType::F16,
    };
    let kernels = match fault.file {
        file if file.ends_with("_wgmma") => KernelSet::Fast,
        file if file.ends_with("_mma") || fault.name.contains("_wide_") => KernelSet::Mma,
        _ => KernelSet::Plain,
    };
    let backend = EmulatedBackend::planted(options, kernels, fault.name).unwrap();
    let got = match catch_unwind(AssertUnwindSafe(|| run(fault, &backend))) {
        Ok(got) => got,
        Err(panic) => return Some(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
    };
    let expected = dtype.to_f32_vec(expected);
    let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let worst = dtype.to_f32_vec(&got).into_iter().zip(&expected).map(|(got, expected)| (got - expected).abs() / scale);
    let seen = worst.filter(|error| error.is_nan() || f64::from(*error) > tolerance(dtype)).count();
    (seen > 0).then(|| format!("{seen} wrong values"))
}

/// The modes that see each fault: one line a fault, a mark a mode.
fn table() -> Vec<(&'static str, Vec<Option<String>>)> {
    let cpu = fused_multiply_add_cpu();
    PLANTED
        .iter()
        .map(|fault| {
            let expected = run(fault, &cpu);
            let modes = EmulatorOptions::matrix();
            (fault.name, modes.into_iter().map(|options| symptom(fault, options, &expected)).collect())
        })
        .collect()
}

#[test]
fn every_planted_fault_is_seen() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let table = table();
    std::panic::set_hook(quiet);
    for (name, modes) in &table {
        let marks: String = modes.iter().map(|symptom| if symptom.is_some() { 'x' } else { '.' }).collect();
        println!("{marks} {name}: {}", modes.iter().flatten().next().map_or("", String::as_str));
    }
    let unseen: Vec<_> = table.iter().filter(|(_, modes)| modes.iter().all(Option::is_none)).map(|row| row.0).collect();
    assert!(unseen.is_empty(), "no mode sees {unseen:?}");
    // What the times of copies are for: races show where they come early, missing waits where they come late.
    for (mode, time) in [(0, "early"), (1, "late")] {
        let hidden = table.iter().filter(|(_, modes)| modes[mode].is_none()).count();
        assert!(hidden >= 3, "only {hidden} faults are hidden by {time} copies");
    }
    let said = |name: &str, words: &str| {
        let (_, modes) = table.iter().find(|row| row.0 == name).unwrap();
        assert!(modes.iter().flatten().any(|symptom| symptom.contains(words)), "{name}: {modes:?}");
    };
    said("mma_row_beyond_the_end", "reaches beyond the end of argument 6");
    said("mma_copies_a_row_too_many", "from beyond its memory");
    said("mma_missing_wait", "asynchronous copies it did not wait for");
    said("wgmma_missing_fence", "is not fenced");
    said("wgmma_missing_wait_for_products", "products that it did not wait for");
    said("wgmma_barriers_not_initialised_in_time", "a barrier that was not initialised");
    said("wgmma_cluster_not_awaited", "a barrier that was not initialised");
    said("wgmma_arrives_where_nobody_waits", "arrives at a barrier of block");
    said("wgmma_arrives_where_nobody_waits", "arrivals of other blocks under way");
    said("wgmma_tells_its_own_block_alone", "deadlock: ");
    said("wgmma_copies_for_its_own_block_alone", "deadlock: ");
    said("wgmma_ring_is_not_aligned", "not a multiple of 1024");
    said("wgmma_expects_too_many_bytes", "threads wait at mbarrier");
    said("wgmma_one_warp_multiplies_less", "warp 11 has other products than its warpgroup");
    said("wgmma_takes_more_registers_than_there_are", "registers");
    said("wgmma_row_beyond_the_end", "reaches beyond the end of argument 6");
    said("flash_warp_skips_a_barrier", "is at the barrier");
    said("flash_lanes_leave_their_warp", "deadlock: ");
}

/// Faults of the host: maps that do not fit the kernel.
#[test]
fn maps_of_other_tiles_than_the_kernels_are_seen() {
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
        let mut out = device.alloc(rows * outputs * 2).unwrap();
        let tiles = |buffer, rows, tile_rows| Tiles {
            buffer,
            dtype: DType::Bf16,
            rows,
            columns: inputs,
            tile_rows,
            tile_columns,
            swizzled,
        };
        let launch = Launch {
            kernel: "linear_wgmma_bf16".into(),
            grid: [2, 1, 1],
            threads: 384,
            shared_bytes: 4 * 384 * 64 * 2 + 1024,
        };
        let mut arguments = [
            Argument::Tiles(tiles(&x, rows, tile_rows)),
            Argument::Tiles(tiles(&weights, outputs, 128)),
            Argument::Null,
            Argument::U32(rows as u32),
            Argument::U32(inputs as u32),
            Argument::U32(outputs as u32),
            Argument::Write(&mut out),
        ];
        device.launch(&launch, &mut arguments).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; rows * outputs * 2];
        device.read(&out, &mut bytes).unwrap();
        Ok::<_, String>(bytes)
    };
    let whole = launched(EmulatorOptions::matrix()[0], 128, 64, true).unwrap();
    for options in EmulatorOptions::matrix() {
        assert!(launched(options, 128, 64, true).unwrap() == whole, "{options:?}");
        assert!(launched(options, 128, 64, false).unwrap() != whole, "no swizzle goes unseen with {options:?}");
        for (tile_rows, tile_columns) in [(64, 64), (128, 32)] {
            let message = launched(options, tile_rows, tile_columns, true).unwrap_err();
            assert!(message.contains("deadlock: ") && message.contains("threads wait at mbarrier"), "{message}");
        }
    }
}
