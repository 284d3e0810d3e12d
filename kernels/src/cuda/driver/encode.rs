//! Encodes a launch for the driver, after checking its arguments against the kernel's parameters.

use std::sync::Arc;

use super::context::DriverContext;
use super::encoded_launch::{ArgumentSummary, EncodedLaunch, LaunchConfig};
use super::kernel::LoadedKernel;
use super::memory::DriverBuffer;
use super::tensor_map::{self, TensorMaps};
use crate::cuda::{Argument, Launch};
use crate::error::KernelError;

/// Encodes `launch` of `kernel` with `arguments`. Their memory must not be freed before the launch is in the stream.
///
/// # Errors
/// Arguments that do not match the kernel's parameters, or a matrix that cannot have a tensor map.
pub(super) fn encode(
    context: &DriverContext,
    maps: &TensorMaps,
    kernel: Arc<LoadedKernel>,
    launch: &Launch,
    arguments: &[Argument<'_, DriverBuffer>],
) -> Result<EncodedLaunch, KernelError> {
    let mut parameters = Vec::with_capacity(kernel.parameter_words);
    for argument in arguments {
        match argument {
            Argument::Read(buffer) => parameters.push(buffer.start()),
            Argument::Write(buffer) => parameters.push(buffer.start()),
            Argument::Tiles(tiles) => parameters.extend_from_slice(&maps.encoded(context, tiles)?),
            Argument::Null => parameters.push(0),
            // The driver reads the first 4 bytes of the word: every host with a GPU is little-endian.
            Argument::U32(value) => parameters.push(u64::from(*value)),
            Argument::U64(value) => parameters.push(*value),
            Argument::F32(value) => parameters.push(u64::from(value.to_bits())),
        }
    }
    let arguments: Vec<ArgumentSummary> = arguments.iter().map(summary).collect();
    if !arguments.iter().map(size).eq(kernel.parameter_bytes.iter().copied()) {
        let sizes: Vec<usize> = arguments.iter().map(size).collect();
        let message =
            format!("{}: expected parameters of {:?} bytes, got {sizes:?}", launch.kernel, kernel.parameter_bytes);
        return Err(context.error("launch", message));
    }
    let config = LaunchConfig { grid: launch.grid, threads: launch.threads, shared_bytes: launch.shared_bytes };
    Ok(EncodedLaunch { kernel, config, parameters, arguments })
}

fn summary(argument: &Argument<'_, DriverBuffer>) -> ArgumentSummary {
    match argument {
        Argument::Read(buffer) => ArgumentSummary::Read(buffer.len()),
        Argument::Write(buffer) => ArgumentSummary::Write(buffer.len()),
        Argument::Tiles(tiles) => ArgumentSummary::Tiles {
            rows: tiles.rows,
            columns: tiles.columns,
            tile_rows: tiles.tile_rows,
            tile_columns: tiles.tile_columns,
        },
        Argument::Null => ArgumentSummary::Null,
        Argument::U32(value) => ArgumentSummary::U32(*value),
        Argument::U64(value) => ArgumentSummary::U64(*value),
        Argument::F32(value) => ArgumentSummary::F32(*value),
    }
}

/// The size of the parameter for an argument, in bytes.
fn size(argument: &ArgumentSummary) -> usize {
    match argument {
        ArgumentSummary::Read(_) | ArgumentSummary::Write(_) | ArgumentSummary::Null | ArgumentSummary::U64(_) => 8,
        ArgumentSummary::U32(_) | ArgumentSummary::F32(_) => 4,
        ArgumentSummary::Tiles { .. } => tensor_map::MAP_BYTES,
    }
}
