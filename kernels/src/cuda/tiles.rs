//! Matrices that a kernel copies to shared memory by tiles: what a device makes a tensor map of.
//!
//! The unit that does such copies, the tensor memory accelerator of `sm_90` and later, is told of the matrix once, in a
//! map that is a kernel's parameter. What lies beyond the matrix is zeros in a tile.

use crate::dtype::DType;

/// Rows of a tile at most, and columns (CUDA driver API, `cuTensorMapEncodeTiled`: `boxDim`).
const MAX_TILE_SIDE: u32 = 256;

/// What addresses and rows must be a multiple of, in bytes (as above: `globalAddress`, `globalStrides`).
pub const TILE_ALIGNMENT: usize = 16;

/// Bytes of a tile's row over which chunks of 16 bytes can be swapped.
pub const SWIZZLED_ROW_BYTES: usize = 128;

/// A row-major matrix at the start of a buffer, and the tiles that it is copied by.
pub struct Tiles<'a, B> {
    /// Memory of the matrix, which the kernel reads.
    pub buffer: &'a B,
    /// Its elements.
    pub dtype: DType,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Rows of a tile.
    pub tile_rows: u32,
    /// Columns of a tile.
    pub tile_columns: u32,
    /// Whether the 16-byte chunks of a tile's rows of 128 bytes are swapped by the row, so that reading a column of them
    /// meets no bank conflict.
    pub swizzled: bool,
}

impl<B> Tiles<'_, B> {
    /// Bytes of a row of the matrix.
    pub fn row_bytes(&self) -> usize {
        self.columns * self.dtype.size()
    }

    /// Whether a device can make a map of this in a buffer of `buffer_bytes` bytes; else what is wrong.
    ///
    /// # Errors
    /// One line that names the rule and the numbers.
    pub fn check(&self, buffer_bytes: usize) -> Result<(), String> {
        let (rows, row_bytes) = (self.rows, self.row_bytes());
        let tile_row_bytes = self.tile_columns as usize * self.dtype.size();
        if rows == 0 || self.columns == 0 || self.tile_rows == 0 || self.tile_columns == 0 {
            return Err("a matrix or a tile of nothing".to_owned());
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
    fn what_no_device_can_map_is_refused_by_its_rule() {
        let fine = || Tiles {
            buffer: &(),
            dtype: DType::Bf16,
            rows: 5,
            columns: 24,
            tile_rows: 256,
            tile_columns: 64,
            swizzled: true,
        };
        assert_eq!(fine().check(240), Ok(()));
        let told = [
            fine().check(239),
            Tiles { rows: 0, ..fine() }.check(240),
            Tiles { columns: 20, ..fine() }.check(240),
            Tiles { tile_columns: 20, ..fine() }.check(240),
            Tiles { tile_rows: 257, ..fine() }.check(240),
            Tiles { tile_columns: 128, ..fine() }.check(240),
            Tiles { rows: usize::MAX, ..fine() }.check(240),
        ];
        insta::assert_snapshot!(told.map(Result::unwrap_err).join("\n"), @r"
5 rows of 48 bytes in a buffer of 239
a matrix or a tile of nothing
rows of 40 bytes by tiles of 128, not multiples of 16
rows of 48 bytes by tiles of 40, not multiples of 16
tiles of 257 x 64, more than 256
swizzled rows of 256 bytes, more than 128
18446744073709551615 rows of 48 bytes in a buffer of 240
");
        assert_eq!(Tiles { tile_columns: 128, swizzled: false, ..fine() }.check(240), Ok(()));
    }
}
