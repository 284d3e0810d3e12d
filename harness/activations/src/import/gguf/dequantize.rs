//! Dequantizes weights to `f32`, bit for bit like ggml's reference code.
//!
//! A row is stored as blocks, each with its own scale and sometimes a minimum. The arithmetic below is in `f32`, in the
//! order of ggml's `dequantize_row_*` and without fused multiply-adds, so that all bits agree.
//! Block layouts: ggml's `ggml-common.h`.

use half::bf16;

use super::k_quants::{self, QK_K, half_at};

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
    /// 32 five-bit numbers and a scale.
    Q5_0,
    /// 32 five-bit numbers, a scale and a minimum.
    Q5_1,
    /// 32 eight-bit numbers and a scale.
    Q8_0,
    /// 256 two-bit numbers in 16 groups with four-bit scales and minima.
    Q2K,
    /// 256 three-bit numbers in 16 groups with six-bit scales.
    Q3K,
    /// 256 four-bit numbers in 8 groups with six-bit scales and minima.
    Q4K,
    /// 256 five-bit numbers in 8 groups with six-bit scales and minima.
    Q5K,
    /// 256 six-bit numbers in 16 groups with eight-bit scales.
    Q6K,
    /// 32 four-bit indices into a table of 16 values, and a scale.
    Iq4Nl,
}

/// The values of `IQ4_NL`: denser around zero, where most weights are. ggml's `kvalues_iq4nl`.
const IQ4_NL_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl GgmlType {
    /// All supported types.
    pub const ALL: [GgmlType; 14] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::Bf16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q2K,
        GgmlType::Q3K,
        GgmlType::Q4K,
        GgmlType::Q5K,
        GgmlType::Q6K,
        GgmlType::Iq4Nl,
    ];

    /// The type's number in a GGUF file.
    pub const fn id(self) -> u32 {
        match self {
            GgmlType::F32 => 0,
            GgmlType::F16 => 1,
            GgmlType::Q4_0 => 2,
            GgmlType::Q4_1 => 3,
            GgmlType::Q5_0 => 6,
            GgmlType::Q5_1 => 7,
            GgmlType::Q8_0 => 8,
            GgmlType::Q2K => 10,
            GgmlType::Q3K => 11,
            GgmlType::Q4K => 12,
            GgmlType::Q5K => 13,
            GgmlType::Q6K => 14,
            GgmlType::Iq4Nl => 20,
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
            GgmlType::Q5_0 => "Q5_0",
            GgmlType::Q5_1 => "Q5_1",
            GgmlType::Q8_0 => "Q8_0",
            GgmlType::Q2K => "Q2_K",
            GgmlType::Q3K => "Q3_K",
            GgmlType::Q4K => "Q4_K",
            GgmlType::Q5K => "Q5_K",
            GgmlType::Q6K => "Q6_K",
            GgmlType::Iq4Nl => "IQ4_NL",
        }
    }

    /// Elements of one block. A row consists of whole blocks.
    pub const fn block_elements(self) -> usize {
        match self {
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => 1,
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q8_0 | GgmlType::Iq4Nl => 32,
            GgmlType::Q2K | GgmlType::Q3K | GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K => QK_K,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            GgmlType::F32 => 4,
            GgmlType::F16 | GgmlType::Bf16 => 2,
            GgmlType::Q4_0 | GgmlType::Iq4Nl => 2 + 16,
            GgmlType::Q4_1 => 2 + 2 + 16,
            GgmlType::Q5_0 => 2 + 4 + 16,
            GgmlType::Q5_1 => 2 + 2 + 4 + 16,
            GgmlType::Q8_0 => 2 + 32,
            GgmlType::Q2K => QK_K / 16 + QK_K / 4 + 2 + 2,
            GgmlType::Q3K => QK_K / 8 + QK_K / 4 + 12 + 2,
            GgmlType::Q4K => 2 + 2 + 12 + QK_K / 2,
            GgmlType::Q5K => 2 + 2 + 12 + QK_K / 8 + QK_K / 2,
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
            GgmlType::Q5_0 => pairs.for_each(|(block, out)| q5_0(block, out)),
            GgmlType::Q5_1 => pairs.for_each(|(block, out)| q5_1(block, out)),
            GgmlType::Q8_0 => pairs.for_each(|(block, out)| q8_0(block, out)),
            GgmlType::Q2K => pairs.for_each(|(block, out)| k_quants::q2_k(block, out)),
            GgmlType::Q3K => pairs.for_each(|(block, out)| k_quants::q3_k(block, out)),
            GgmlType::Q4K => pairs.for_each(|(block, out)| k_quants::q4_k(block, out)),
            GgmlType::Q5K => pairs.for_each(|(block, out)| k_quants::q5_k(block, out)),
            GgmlType::Q6K => pairs.for_each(|(block, out)| k_quants::q6_k(block, out)),
            GgmlType::Iq4Nl => pairs.for_each(|(block, out)| iq4_nl(block, out)),
        }
    }
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

/// `d q`, with `q` in -16..16. Four bits are in the order of `Q4_0`, the fifth of element `i` is bit `i` of a `u32`.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let high_bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (index, value) in out.iter_mut().enumerate() {
        *value = d * (f32::from(five_bits(&block[6..], high_bits, index)) - 16.0);
    }
}

/// `d q + m`, with `q` in 0..32, in the order of `Q5_0`.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let high_bits = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (index, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(five_bits(&block[8..], high_bits, index)) + m;
    }
}

fn five_bits(nibbles: &[u8], high_bits: u32, index: usize) -> u8 {
    let low = (nibbles[index % 16] >> (4 * (index / 16))) & 15;
    low | (((high_bits >> index) & 1) as u8) << 4
}

/// `d q`, with `q` in -128..128.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (&byte, value) in block[2..].iter().zip(out) {
        *value = f32::from(byte as i8) * d;
    }
}

/// `d v`, with `v` from a table by an index of four bits, in the order of `Q4_0`.
fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let value = |index: u8| d * f32::from(IQ4_NL_VALUES[usize::from(index)]);
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[2..].iter().zip(low).zip(high) {
        *low = value(byte & 15);
        *high = value(byte >> 4);
    }
}
