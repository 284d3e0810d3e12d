//! Matrices that a kernel copies to shared memory by tiles, described to the device by a tensor map.
//!
//! The tensor memory accelerator (TMA) of `sm_90` and later reads the map, which is a kernel parameter. It fills tiles with
//! zeros beyond the matrix.

use crate::dtype::DType;

/// The maximum rows and columns of a tile (CUDA driver API, `cuTensorMapEncodeTiled`: `boxDim`).
const MAX_TILE_SIDE: u32 = 256;

/// The alignment of addresses and rows in bytes (`globalAddress`, `globalStrides`).
pub const TILE_ALIGNMENT: usize = 16;

/// The maximum bytes of a tile's row with the 128-byte swizzle.
pub const SWIZZLED_ROW_BYTES: usize = 128;

/// Whether the tensor-core kernels take rows of `width` elements of `dtype`: they copy 16 bytes at a time.
pub(super) fn fits_tensor_cores(dtype: DType, width: u32) -> bool {
    dtype != DType::F32 && width.is_multiple_of(8)
}

/// A row-major matrix at the start of a buffer, and its tiles.
pub struct Tiles<'a, B> {
    /// The memory of the matrix.
    pub buffer: &'a B,
    /// The element type.
    pub dtype: DType,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// Rows of a tile.
    pub tile_rows: u32,
    /// Columns of a tile.
    pub tile_columns: u32,
    /// Whether the 16-byte chunks of a row are swizzled by the row's index, against bank conflicts.
    pub swizzled: bool,
}

impl<B> Tiles<'_, B> {
    /// Bytes of a row of the matrix.
    pub fn row_bytes(&self) -> usize {
        self.columns * self.dtype.size()
    }

    /// Checks the rules of a tensor map for a buffer of `buffer_bytes` bytes.
    ///
    /// # Errors
    /// The violated rule with its numbers, in one line.
    pub fn check(&self, buffer_bytes: usize) -> Result<(), String> {
        let (rows, row_bytes) = (self.rows, self.row_bytes());
        let tile_row_bytes = self.tile_columns as usize * self.dtype.size();
        if rows == 0 || self.columns == 0 || self.tile_rows == 0 || self.tile_columns == 0 {
            return Err("an empty matrix or tile".to_owned());
        }
        if !row_bytes.is_multiple_of(TILE_ALIGNMENT) || !tile_row_bytes.is_multiple_of(TILE_ALIGNMENT) {
            return Err(format!(
                "rows of {row_bytes} bytes by tiles of {tile_row_bytes}, not multiples of {TILE_ALIGNMENT}"
            ));
        }
        if self.tile_rows > MAX_TILE_SIDE || self.tile_columns > MAX_TILE_SIDE {
            let (rows, columns) = (self.tile_rows, self.tile_columns);
            return Err(format!("tiles of {rows} x {columns}, more than {MAX_TILE_SIDE}"));
        }
        if self.swizzled && tile_row_bytes > SWIZZLED_ROW_BYTES {
            return Err(format!("swizzled rows of {tile_row_bytes} bytes, more than {SWIZZLED_ROW_BYTES}"));
        }
        match rows.checked_mul(row_bytes) {
            Some(bytes) if bytes <= buffer_bytes => Ok(()),
            _ => Err(format!("{rows} rows of {row_bytes} bytes in a buffer of {buffer_bytes}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_tensor_maps_name_the_rule() {
        let valid = || Tiles {
            buffer: &(),
            dtype: DType::Bf16,
            rows: 5,
            columns: 24,
            tile_rows: 256,
            tile_columns: 64,
            swizzled: true,
        };
        assert_eq!(valid().check(240), Ok(()));
        let errors = [
            valid().check(239),
            Tiles { rows: 0, ..valid() }.check(240),
            Tiles { columns: 20, ..valid() }.check(240),
            Tiles { tile_columns: 20, ..valid() }.check(240),
            Tiles { tile_rows: 257, ..valid() }.check(240),
            Tiles { tile_columns: 128, ..valid() }.check(240),
            Tiles { rows: usize::MAX, ..valid() }.check(240),
        ];
        insta::assert_snapshot!(errors.map(Result::unwrap_err).join("\n"), @r"
5 rows of 48 bytes in a buffer of 239
an empty matrix or tile
rows of 40 bytes by tiles of 128, not multiples of 16
rows of 48 bytes by tiles of 40, not multiples of 16
tiles of 257 x 64, more than 256
swizzled rows of 256 bytes, more than 128
18446744073709551615 rows of 48 bytes in a buffer of 240
");
        assert_eq!(Tiles { tile_columns: 128, swizzled: false, ..valid() }.check(240), Ok(()));
    }
}
