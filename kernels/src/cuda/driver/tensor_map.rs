//! Tensor maps: what tells a device how a kernel copies a matrix by tiles, in the driver's own form.

use std::ffi::c_void;

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

/// The map of `tiles`, as a kernel takes it by value. It holds for as long as the buffer stays where it is, so one is
/// made for each launch: keeping them would need to know when memory was given back.
pub(super) fn encode(session: &Session, tiles: &Tiles<'_, DriverBuffer>) -> Result<[u8; BYTES], KernelError> {
    const OP: &str = "launch";
    let what = || {
        let Tiles { rows, columns, tile_rows, tile_columns, dtype, .. } = tiles;
        format!("mapping {rows} x {columns} elements of {dtype} by tiles of {tile_rows} x {tile_columns}")
    };
    tiles.check(tiles.buffer.len()).map_err(|rule| session.error(OP, format!("{}: {rule}", what())))?;
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
    // fewer. The address is not read now; that the matrix lies in its buffer was checked above.
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
    session.check(OP, what, encoded.result())?;
    let mut bytes = [0; BYTES];
    for (part, word) in bytes.chunks_exact_mut(8).zip(map.opaque) {
        part.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(bytes)
}
