//! The emulator itself: the violations that it must report, and the operations of a warp against their definitions.

use crate::common::random;
use actbench_kernels::DType;
use actbench_kernels::cuda::emulator::{EmulatedBackend, EmulatedBuffer, EmulatorOptions, emulated_parameters};
use actbench_kernels::cuda::registry::SOURCES;
use actbench_kernels::cuda::{Argument, Device, KernelSet, Launch};

/// Runs a self-test kernel with `inputs`. Returns the 32-bit words of its output of length `out_len`, or the error
/// message.
fn launch(
    options: EmulatorOptions,
    kernel: &str,
    threads: u32,
    shared_bytes: u32,
    inputs: &[&[u8]],
    out_len: usize,
) -> Result<Vec<u32>, String> {
    let backend = EmulatedBackend::emulated(options, KernelSet::Plain);
    let device = backend.device();
    let buffers: Vec<EmulatedBuffer> = inputs
        .iter()
        .map(|bytes| {
            let mut buffer = device.alloc(bytes.len()).unwrap();
            device.write(&mut buffer, bytes).unwrap();
            buffer
        })
        .collect();
    let mut out = device.alloc(out_len * 4).unwrap();
    let mut arguments: Vec<Argument<'_, EmulatedBuffer>> = buffers.iter().map(Argument::Read).collect();
    arguments.push(Argument::Write(&mut out));
    let launch = Launch { kernel: kernel.to_owned().into(), grid: [2, 1, 1], threads, shared_bytes };
    device.launch(&launch, &mut arguments).map_err(|error| error.to_string())?;
    let mut bits = vec![0u32; out_len];
    device.read(&out, bytemuck::cast_slice_mut(&mut bits)).unwrap();
    Ok(bits)
}

fn floats(bits: Vec<u32>) -> Vec<f32> {
    bits.into_iter().map(f32::from_bits).collect()
}

#[test]
fn shared_memory_starts_as_nan() {
    for options in EmulatorOptions::matrix() {
        // The kernel writes ones at its end, which the second block would see.
        let initial = floats(launch(options, "read_untouched_shared", 32, 128, &[], 64).unwrap());
        assert!(initial.iter().all(|value| value.is_nan()), "{options:?}");
    }
}

#[test]
fn rule_violations_name_kernel_and_block() {
    for options in EmulatorOptions::matrix() {
        let message = |kernel, threads, shared| launch(options, kernel, threads, shared, &[], 64).unwrap_err();
        let dynamic = message("write_behind_dynamic", 32, 128);
        assert!(dynamic.contains("write_behind_dynamic, block (0,0,0): wrote behind its 128 bytes"), "{dynamic}");
        assert!(message("write_behind_static", 32, 0).contains("behind a static shared array of 32 bytes"));
        let apart = message("wait_apart", 32, 0);
        assert!(apart.contains("block (0,0,0): deadlock: 31 threads wait at barrier self_test.cu:"), "{apart}");
        assert!(apart.contains("1 threads wait at shfl"), "{apart}");
        assert!(message("wait_at_two_barriers", 64, 0).contains("while others are at self_test.cu:"));
        assert!(message("sum_lanes", 48, 0).contains("shfl by some lanes of a warp is not supported"));
    }
}

#[test]
fn cluster_blocks_run_concurrently() {
    for options in EmulatorOptions::matrix() {
        let numbers = floats(launch(options, "meet_in_cluster", 32, 0, &[], 64).unwrap());
        assert_eq!(numbers, [[0.0; 32], [1.0; 32]].concat(), "{options:?}");
        assert!(launch(options, "leave_cluster", 32, 0, &[], 32).is_ok(), "{options:?}");
    }
}

#[test]
fn cluster_rule_violations_are_errors() {
    for options in EmulatorOptions::matrix() {
        let message = |kernel| launch(options, kernel, 32, 0, &[], 64).unwrap_err();
        let late = message("answer_too_late");
        assert!(
            late.contains("block (0,0,0): a thread arrives at a barrier of block 1 of the cluster, which"),
            "{late}"
        );
        let apart = message("wait_apart_in_cluster");
        assert!(apart.contains("deadlock: 32 threads wait at mbarrier"), "{apart}");
        assert!(apart.contains("32 threads wait at the cluster's barrier self_test.cu:"), "{apart}");
        assert!(message("wait_at_two_cluster_barriers").contains("while others are at self_test.cu:"));
        assert!(message("reach_beyond_cluster").contains("there is no block 2 in a cluster of 2"));
        let grid = message("four_in_a_cluster");
        assert!(grid.contains("on 2 x 1 x 1 blocks in clusters of 4 x 32 threads"), "{grid}");
    }
}

#[test]
fn unawaited_and_out_of_bounds_copies_are_errors() {
    let matrix = EmulatorOptions::matrix();
    let (early, late) = (matrix[0], matrix[1]);
    let enough = [0u8; 32 * 16];
    assert!(launch(early, "copy_and_leave", 32, 512, &[&enough], 32).is_ok());
    assert!(launch(late, "copy_and_leave", 32, 512, &[&enough], 32).unwrap_err().contains("did not wait for"));
    let short = launch(early, "copy_and_leave", 32, 512, &[&enough[16..]], 32).unwrap_err();
    assert!(short.contains("thread 31 copies asynchronously from beyond its memory"), "{short}");
    let small = launch(early, "copy_and_leave", 32, 256, &[&enough], 32).unwrap_err();
    assert!(small.contains("dynamic shared memory") || small.contains("not in shared memory"), "{small}");
}

#[test]
fn access_beyond_buffer_is_error() {
    for options in EmulatorOptions::matrix() {
        let read = |len: usize| launch(options, "read_beyond", 32, 0, &[&vec![0u8; len * 4]], 32);
        assert_eq!(floats(read(36).unwrap()), [0.0; 32]);
        let message = read(32).unwrap_err();
        assert!(message.contains("read_beyond, block (0,0,0): thread "), "{message}");
        assert!(message.contains("reaches beyond the end of argument 0"), "{message}");
        // The 16 bytes after the end are readable, and contain NaN.
        assert!(floats(read(34).unwrap())[31].is_nan());
        assert!(launch(options, "write_beyond", 32, 0, &[], 64).is_ok());
        assert!(launch(options, "write_beyond", 32, 0, &[], 60).unwrap_err().contains("reaches beyond the end"));
        let message = launch(options, "write_beyond", 32, 0, &[], 62).unwrap_err();
        assert!(message.contains("wrote behind the end of its argument 0"), "{message}");
    }
}

#[test]
fn mismatched_launches_are_errors() {
    let options = EmulatorOptions::matrix()[0];
    assert!(launch(options, "no_such_kernel", 32, 0, &[], 1).unwrap_err().contains("no kernel no_such_kernel"));
    assert!(launch(options, "sum_lanes", 32, 0, &[&[0; 4]], 32).unwrap_err().contains("2 arguments"));
    assert!(launch(options, "sum_lanes", 2048, 0, &[], 32).unwrap_err().contains("2048 threads"));
    assert!(launch(options, "sum_lanes", 32, 300_000, &[], 32).unwrap_err().contains("300000 bytes"));
}

#[test]
fn shuffles_exchange_lane_values() {
    for options in EmulatorOptions::matrix() {
        let sums = floats(launch(options, "sum_lanes", 32, 0, &[], 32).unwrap());
        assert_eq!(sums, [496.0; 32], "{options:?}");
    }
}

#[test]
fn warp_mma_equals_matrix_multiplication() {
    let (a, b) = (random(1, DType::F16, 256), random(2, DType::F16, 128));
    let (a_bytes, b_bytes) = (DType::F16.from_f32_slice(&a), DType::F16.from_f32_slice(&b));
    for options in EmulatorOptions::matrix() {
        let got = floats(launch(options, "multiply_by_hand", 32, 0, &[&a_bytes, &b_bytes], 128).unwrap());
        for row in 0..16 {
            for column in 0..8 {
                let exact: f64 = (0..16).map(|k| f64::from(a[row * 16 + k]) * f64::from(b[k * 8 + column])).sum();
                let error = (f64::from(got[row * 8 + column]) - exact).abs();
                assert!(error <= 1e-6, "{row} {column}: {error}");
            }
        }
    }
}

#[test]
fn ldmatrix_distributes_elements_as_documented() {
    // Element (row, column) of matrix m has the value m * 64 + row * 8 + column.
    let elements: Vec<u16> = (0..256u16).collect();
    let bits = launch(EmulatorOptions::matrix()[8], "load_by_ldmatrix", 32, 0, &[bytemuck::cast_slice(&elements)], 256);
    let bits = bits.unwrap();
    for lane in 0..32u32 {
        for matrix in 0..4u32 {
            let element = |row: u32, column: u32| matrix * 64 + row * 8 + column;
            let (major, minor) = (lane / 4, lane % 4 * 2);
            let straight = element(major, minor + 1) << 16 | element(major, minor);
            let transposed = element(minor + 1, major) << 16 | element(minor, major);
            assert_eq!(bits[(lane * 4 + matrix) as usize], straight);
            assert_eq!(bits[(128 + lane * 4 + matrix) as usize], transposed);
        }
    }
}

#[test]
fn kernel_parameter_counts_match_sources() {
    for source in SOURCES {
        for kernel in source.kernels() {
            assert_eq!(source.parameters_of(kernel.name), emulated_parameters(kernel.name), "{}", kernel.name);
        }
    }
    assert_eq!(emulated_parameters("no such kernel"), None);
}
