//! Dequantizes weights to `f32`, bit for bit like ggml's reference code.
//!
//! A row is stored as blocks, each with its own scale and sometimes a minimum. The arithmetic below is in `f32`, in the
//! order of ggml's `dequantize_row_*` and without fused multiply-adds, so that all bits agree.
//! Block layouts: ggml's `ggml-common.h`.

use half::{bf16, f16};

/// The storage type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlType {
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

impl GgmlType {
    /// All supported types.
    pub const ALL: [GgmlType; 8] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::Bf16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q8_0,
        GgmlType::Q4K,
        GgmlType::Q6K,
    ];

    /// The type's number in a GGUF file.
    pub const fn id(self) -> u32 {
        match self {
            GgmlType::F32 => 0,
            GgmlType::F16 => 1,
            GgmlType::Q4_0 => 2,
            GgmlType::Q4_1 => 3,
            GgmlType::Q8_0 => 8,
            GgmlType::Q4K => 12,
            GgmlType::Q6K => 14,
            GgmlType::Bf16 => 30,
        }
    }

    /// ggml's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            GgmlType::F32 => "F32",
            GgmlType::F16 => "F16",
            GgmlType::Bf16 => "BF16",
            GgmlType::Q4_0 => "Q4_0",
            GgmlType::Q4_1 => "Q4_1",
            GgmlType::Q8_0 => "Q8_0",
            GgmlType::Q4K => "Q4_K",
            GgmlType::Q6K => "Q6_K",
        }
    }

    /// Elements of one block. A row consists of whole blocks.
    pub const fn block_elements(self) -> usize {
        match self {
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => 1,
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q8_0 => 32,
            GgmlType::Q4K | GgmlType::Q6K => QK_K,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            GgmlType::F32 => 4,
            GgmlType::F16 | GgmlType::Bf16 => 2,
            GgmlType::Q4_0 => 2 + 16,
            GgmlType::Q4_1 => 2 + 2 + 16,
            GgmlType::Q8_0 => 2 + 32,
            GgmlType::Q4K => 2 + 2 + 12 + QK_K / 2,
            GgmlType::Q6K => QK_K / 2 + QK_K / 4 + QK_K / 16 + 2,
        }
    }

    /// Bytes of `elements` elements; `None` if they are not whole blocks, or on overflow.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Converts whole blocks to `f32`.
    ///
    /// # Panics
    /// `blocks` does not have exactly `out.len()` elements. The header parser has checked all lengths, so no input
    /// causes it.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
        assert_eq!(self.bytes_of(out.len()), Some(blocks.len()), "dequantize: lengths differ");
        let pairs = blocks.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block_elements()));
        match self {
            GgmlType::F32 => pairs.for_each(|(b, out)| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            GgmlType::F16 => pairs.for_each(|(b, out)| out[0] = half_at(b, 0)),
            GgmlType::Bf16 => pairs.for_each(|(b, out)| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            GgmlType::Q4_0 => pairs.for_each(|(block, out)| q4_0(block, out)),
            GgmlType::Q4_1 => pairs.for_each(|(block, out)| q4_1(block, out)),
            GgmlType::Q8_0 => pairs.for_each(|(block, out)| q8_0(block, out)),
            GgmlType::Q4K => pairs.for_each(|(block, out)| q4_k(block, out)),
            GgmlType::Q6K => pairs.for_each(|(block, out)| q6_k(block, out)),
        }
    }
}

/// The half-precision number at byte `offset`.
fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
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

/// The scale and the minimum of `group`, unpacked from 12 bytes with eight of each, six bits apiece. Groups 0..4 are
/// in the low six bits of bytes 0..4 and 4..8. Groups 4..8 have their low four bits in bytes 8..12 and their high two
/// bits above those of groups 0..4.
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
/// Each half of the block (128 elements in four runs of 32) has 64 bytes of low nibbles, runs 0 and 2 in the first 32
/// bytes and runs 1 and 3 in the others, and 32 bytes of high bit pairs, one pair per run.
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
