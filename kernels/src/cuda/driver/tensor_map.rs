//! Tensor maps: descriptors of matrices that kernels copy by tiles (TMA), encoded by the driver.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::DriverError;
use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType as Element, CUtensorMapFloatOOBfill as Fill,
    CUtensorMapInterleave as Layout, CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Swizzle,
};

use super::context::DriverContext;
use super::memory::DriverBuffer;
use crate::cuda::Tiles;
use crate::dtype::DType;
use crate::error::KernelError;

/// The size of a map in bytes.
pub(super) const MAP_BYTES: usize = size_of::<CUtensorMap>();

/// A map as a kernel takes it, by value, in words of 8 bytes.
pub(super) type EncodedMap = [u64; MAP_BYTES / size_of::<u64>()];

/// The number of cached maps: those of the weights of a large model, and of its workspace for a few hundred numbers of
/// rows.
const MAX_CACHED: usize = 2048;

/// The cached maps of a device. A map contains an address and a shape alone, so it stays valid when its memory is freed
/// and allocated again.
#[derive(Default)]
pub(super) struct TensorMaps(Mutex<HashMap<MapKey, EncodedMap>>);

/// Everything that a map depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MapKey {
    start: sys::CUdeviceptr,
    dtype: DType,
    /// Rows and columns.
    shape: [usize; 2],
    /// Rows and columns.
    tile: [u32; 2],
    is_swizzled: bool,
}

impl TensorMaps {
    /// The map of `tiles`, from the cache or encoded now.
    ///
    /// # Errors
    /// A matrix that cannot have a map, with the violated rule.
    pub(super) fn encoded(
        &self,
        context: &DriverContext,
        tiles: &Tiles<'_, DriverBuffer>,
    ) -> Result<EncodedMap, KernelError> {
        let action = || {
            let Tiles { rows, columns, tile_rows, tile_columns, dtype, .. } = tiles;
            format!("tensor map of {rows} x {columns} elements of {dtype} in tiles of {tile_rows} x {tile_columns}")
        };
        tiles.check(tiles.buffer.len()).map_err(|rule| context.error("launch", format!("{}: {rule}", action())))?;
        let key = MapKey {
            start: tiles.buffer.start(),
            dtype: tiles.dtype,
            shape: [tiles.rows, tiles.columns],
            tile: [tiles.tile_rows, tiles.tile_columns],
            is_swizzled: tiles.swizzled,
        };
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = maps.get(&key) {
            return Ok(*map);
        }
        let map = context.check("launch", action, encode(tiles))?;
        if maps.len() >= MAX_CACHED {
            maps.clear();
        }
        maps.insert(key, map);
        Ok(map)
    }
}

/// Encodes the map of `tiles`, which satisfy [`Tiles::check`].
fn encode(tiles: &Tiles<'_, DriverBuffer>) -> Result<EncodedMap, DriverError> {
    let element = match tiles.dtype {
        DType::F32 => Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        DType::F16 => Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let swizzle =
        if tiles.swizzled { Swizzle::CU_TENSOR_MAP_SWIZZLE_128B } else { Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE };
    // The driver orders dimensions from the innermost one, whose stride is implied.
    let (dimensions, strides) = ([tiles.columns as u64, tiles.rows as u64], [tiles.row_bytes() as u64]);
    let (tile, steps) = ([tiles.tile_columns, tiles.tile_rows], [1u32; 2]);
    let mut map = CUtensorMap { opaque: [0; 16] };
    // SAFETY: all pointers are to local arrays with two entries, and one for the strides. The address is not read now;
    // the caller has checked that the matrix lies in its buffer.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            element,
            2,
            tiles.buffer.start() as *mut c_void,
            dimensions.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            Layout::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            // Elements beyond the matrix read as 0. The alternative is NaN.
            Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    encoded.result()?;
    Ok(map.opaque)
}
