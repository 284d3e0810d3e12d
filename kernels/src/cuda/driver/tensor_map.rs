//! Tensor maps: what tells a device how a kernel copies a matrix by tiles, in the driver's own form.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::DriverError;
use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType as Element, CUtensorMapFloatOOBfill as Fill,
    CUtensorMapInterleave as Layout, CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Swizzle,
};

use super::memory::DriverBuffer;
use super::session::Session;
use crate::cuda::Tiles;
use crate::dtype::DType;
use crate::error::KernelError;

/// Bytes of a map, whatever is in them.
pub(super) const BYTES: usize = size_of::<CUtensorMap>();

/// A map in words, as a kernel takes it by value.
pub(super) type Words = [u64; BYTES / size_of::<u64>()];

/// The most maps that are kept: of the weights of a large model, and of the workspace for some hundred numbers of rows.
const KEPT: usize = 2048;

/// Maps that were made before. A map is an address and a shape and knows nothing of who has the memory, so that one
/// stays right when the memory was given back and is another's.
#[derive(Default)]
pub(super) struct Maps(Mutex<HashMap<Matrix, Words>>);

/// All that a map depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Matrix {
    start: sys::CUdeviceptr,
    dtype: DType,
    extents: [usize; 2],
    tile: [u32; 2],
    is_swizzled: bool,
}

impl Maps {
    /// The map of `tiles`.
    ///
    /// # Errors
    /// A matrix that there is no map of, with the rule.
    pub(super) fn of(&self, session: &Session, tiles: &Tiles<'_, DriverBuffer>) -> Result<Words, KernelError> {
        let what = || {
            let Tiles { rows, columns, tile_rows, tile_columns, dtype, .. } = tiles;
            format!("mapping {rows} x {columns} elements of {dtype} by tiles of {tile_rows} x {tile_columns}")
        };
        tiles.check(tiles.buffer.len()).map_err(|rule| session.error("launch", format!("{}: {rule}", what())))?;
        let matrix = Matrix {
            start: tiles.buffer.start(),
            dtype: tiles.dtype,
            extents: [tiles.rows, tiles.columns],
            tile: [tiles.tile_rows, tiles.tile_columns],
            is_swizzled: tiles.swizzled,
        };
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = maps.get(&matrix) {
            return Ok(*map);
        }
        let map = session.check("launch", what, encode(tiles))?;
        if maps.len() >= KEPT {
            maps.clear();
        }
        maps.insert(matrix, map);
        Ok(map)
    }
}

/// The map of `tiles`, which follow the rules of [`Tiles::check`].
fn encode(tiles: &Tiles<'_, DriverBuffer>) -> Result<Words, DriverError> {
    let element = match tiles.dtype {
        DType::F32 => Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        DType::F16 => Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let swizzle = match tiles.swizzled {
        true => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        false => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
    };
    // The driver counts dimensions from the innermost one, and knows that one's stride.
    let (extents, strides) = ([tiles.columns as u64, tiles.rows as u64], [tiles.row_bytes() as u64]);
    let (tile, steps) = ([tiles.tile_columns, tiles.tile_rows], [1u32; 2]);
    let mut map = CUtensorMap { opaque: [0; 16] };
    // SAFETY: all pointers are to arrays of this scope with as many entries as a matrix has dimensions, and one stride
    // fewer. The address is not read now; that the matrix lies in its buffer the caller has checked.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            element,
            2,
            tiles.buffer.start() as *mut c_void,
            extents.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            Layout::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            // Zeros; the other choice is NaN.
            Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    encoded.result()?;
    Ok(map.opaque)
}
