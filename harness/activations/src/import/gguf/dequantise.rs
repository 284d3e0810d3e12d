//! Quantised weights back to `f32`, bit for bit as ggml's reference code computes them.
//!
//! A row is stored as blocks, each with its own scale and sometimes a minimum; the sums and products below are in
//! `f32`, in the order of ggml's `dequantize_row_*`, and are never fused, so that results agree in every bit.
//! Block layouts: ggml's `ggml-common.h`.

use half::{bf16, f16};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 four-bit numbers and a scale.
    Q4_0,
    /// 32 four-bit numbers, a scale and a minimum.
    Q4_1,
    /// 32 eight-bit numbers and a scale.
    Q8_0,
    /// 256 four-bit numbers in 8 groups with six-bit scales and minima.
    Q4K,
    /// 256 six-bit numbers in 16 groups with eight-bit scales.
    Q6K,
}

/// Elements of a K-quant's block.
const QK_K: usize = 256;

impl TensorType {
    /// All types that are read.
    pub const ALL: [TensorType; 8] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::Bf16,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q8_0,
        TensorType::Q4K,
        TensorType::Q6K,
    ];

    /// The type's number in a GGUF file.
    pub const fn id(self) -> u32 {
        match self {
            TensorType::F32 => 0,
            TensorType::F16 => 1,
            TensorType::Q4_0 => 2,
            TensorType::Q4_1 => 3,
            TensorType::Q8_0 => 8,
            TensorType::Q4K => 12,
            TensorType::Q6K => 14,
            TensorType::Bf16 => 30,
        }
    }

    /// ggml's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            TensorType::F32 => "F32",
            TensorType::F16 => "F16",
            TensorType::Bf16 => "BF16",
            TensorType::Q4_0 => "Q4_0",
            TensorType::Q4_1 => "Q4_1",
            TensorType::Q8_0 => "Q8_0",
            TensorType::Q4K => "Q4_K",
            TensorType::Q6K => "Q6_K",
        }
    }

    /// Elements of one block; a row is a whole number of blocks.
    pub const fn block_elements(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => 1,
            TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q8_0 => 32,
            TensorType::Q4K | TensorType::Q6K => QK_K,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::Q4_0 => 2 + 16,
            TensorType::Q4_1 => 2 + 2 + 16,
            TensorType::Q8_0 => 2 + 32,
            TensorType::Q4K => 2 + 2 + 12 + QK_K / 2,
            TensorType::Q6K => QK_K / 2 + QK_K / 4 + QK_K / 16 + 2,
        }
    }

    /// Bytes of `elements` elements in whole blocks; `None` where they do not fill blocks or overflow.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Widens whole blocks to `f32`.
    ///
    /// # Panics
    /// When `blocks` does not hold exactly `out.len()` elements: a bug of the caller, never an input's fault.
    pub fn dequantise(self, blocks: &[u8], out: &mut [f32]) {
        assert_eq!(self.bytes_of(out.len()), Some(blocks.len()), "dequantise: lengths differ");
        let pairs = blocks.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block_elements()));
        match self {
            TensorType::F32 => pairs.for_each(|(b, out)| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            TensorType::F16 => pairs.for_each(|(b, out)| out[0] = half_at(b, 0)),
            TensorType::Bf16 => pairs.for_each(|(b, out)| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            TensorType::Q4_0 => pairs.for_each(|(block, out)| q4_0(block, out)),
            TensorType::Q4_1 => pairs.for_each(|(block, out)| q4_1(block, out)),
            TensorType::Q8_0 => pairs.for_each(|(block, out)| q8_0(block, out)),
            TensorType::Q4K => pairs.for_each(|(block, out)| q4_k(block, out)),
            TensorType::Q6K => pairs.for_each(|(block, out)| q6_k(block, out)),
        }
    }
}

/// The half-precision number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d q`, with `q` in -8..8. Low nibbles are the first 16 elements, high nibbles the last 16.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[2..].iter().zip(low).zip(high) {
        *low = d * (f32::from(byte & 15) - 8.0);
        *high = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// `d q + m`, with `q` in 0..16, in the order of `Q4_0`.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[4..].iter().zip(low).zip(high) {
        *low = d * f32::from(byte & 15) + m;
        *high = d * f32::from(byte >> 4) + m;
    }
}

/// `d q`, with `q` in -128..128.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (&byte, value) in block[2..].iter().zip(out) {
        *value = f32::from(byte as i8) * d;
    }
}

/// `(d s) q - (dmin m)`, with `q` in 0..16 and a six-bit scale `s` and minimum `m` for each 32 elements.
///
/// A run of 32 bytes holds two groups: the low nibbles are one, the high nibbles the next.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, nibbles) = (&block[4..16], &block[16..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bit_pair(packed, group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let shift = 4 * (group % 2);
        for (&byte, value) in nibbles[group / 2 * 32..].iter().zip(out) {
            *value = scale * f32::from((byte >> shift) & 15) - minimum;
        }
    }
}

/// Group `group`'s scale and minimum out of 12 bytes that hold eight of each, six bits apiece: the first four groups'
/// in the low six bits of bytes 0..4 and 4..8; the others' low four bits in bytes 8..12, their high two on top of the
/// first four's.
fn six_bit_pair(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        ((low & 15) | ((packed[group - 4] >> 6) << 4), (low >> 4) | ((packed[group] >> 6) << 4))
    }
}

/// `(d s) q`, with `q` in -32..32 and an eight-bit scale `s` for each 16 elements.
///
/// Each half of the block, 128 elements in four runs of 32, has 64 bytes of low nibbles (runs 0 and 2 in one half of
/// them, 1 and 3 in the other) and 32 bytes of high bit pairs, one pair a run.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low_bits, rest) = block.split_at(QK_K / 2);
    let (high_bits, rest) = rest.split_at(QK_K / 4);
    let (scales, _) = rest.split_at(QK_K / 16);
    let d = half_at(block, block.len() - 2);
    for (index, value) in out.iter_mut().enumerate() {
        let (half, run, lane) = (index / 128, index / 32 % 4, index % 32);
        let low = (low_bits[64 * half + 32 * (run % 2) + lane] >> (4 * (run / 2))) & 15;
        let high = (high_bits[32 * half + lane] >> (2 * run)) & 3;
        let q = f32::from(low | (high << 4)) - 32.0;
        *value = d * f32::from(scales[index / 16] as i8) * q;
    }
}
