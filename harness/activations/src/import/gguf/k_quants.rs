//! Dequantizes ggml's K-quants: blocks of 256 numbers in groups, whose scales are themselves quantized.
//!
//! The functions take one block and its 256 elements. Arithmetic and layouts: as in [`super::dequantize`].

use half::f16;

/// Elements of a K-quant's block.
pub(super) const QK_K: usize = 256;

/// The half-precision number at byte `offset`.
pub(super) fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

/// `(d s) q - (dmin m)`, with `q` in 0..4 and a four-bit scale `s` and minimum `m` for each 16 elements.
///
/// Each half of the block (128 elements in four runs of 32) has 32 bytes, with two bits for each run.
pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (groups, rest) = block.split_at(QK_K / 16);
    let pairs = &rest[..QK_K / 4];
    let (d, dmin) = (half_at(block, QK_K / 16 + QK_K / 4), half_at(block, QK_K / 16 + QK_K / 4 + 2));
    for (index, value) in out.iter_mut().enumerate() {
        let group = groups[index / 16];
        let (scale, minimum) = (d * f32::from(group & 15), dmin * f32::from(group >> 4));
        *value = scale * f32::from(two_bits(pairs, index)) - minimum;
    }
}

/// `(d s) q`, with `q` in -4..4 and a six-bit scale `s` in -32..32 for each 16 elements.
///
/// Two bits are in the order of `Q2_K`. The third is in a mask of 32 bytes, with one bit for each run of 32 elements;
/// 4 is subtracted where it is not set.
pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let (mask, rest) = block.split_at(QK_K / 8);
    let (pairs, rest) = rest.split_at(QK_K / 4);
    let packed = &rest[..12];
    let d = half_at(block, QK_K / 8 + QK_K / 4 + 12);
    for (index, value) in out.iter_mut().enumerate() {
        let scale = d * (f32::from(six_bits(packed, index / 16)) - 32.0);
        let third = (mask[index % 32] >> (index / 32)) & 1;
        *value = scale * (f32::from(two_bits(pairs, index)) - if third == 1 { 0.0 } else { 4.0 });
    }
}

fn two_bits(pairs: &[u8], index: usize) -> u8 {
    (pairs[index / 128 * 32 + index % 32] >> (2 * (index / 32 % 4))) & 3
}

/// The scale of `group`, unpacked from 12 bytes with 16 of six bits: the low four bits of groups 0..8 and 8..16 are the
/// nibbles of bytes 0..8, and each of bytes 8..12 has the high bits of four groups.
fn six_bits(packed: &[u8], group: usize) -> u8 {
    let low = (packed[group % 8] >> (4 * (group / 8))) & 15;
    let high = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
    low | (high << 4)
}

/// `(d s) q - (dmin m)`, with `q` in 0..16 and a six-bit scale `s` and minimum `m` for each 32 elements.
///
/// A run of 32 bytes holds two groups: the low nibbles are one, the high nibbles the next.
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
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

/// `(d s) q - (dmin m)`, with `q` in 0..32 and scales and minima as in `Q4_K`.
///
/// Four bits are in the order of `Q4_K`. The fifth is in 32 bytes, with one bit for each group.
pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, rest) = (&block[4..16], &block[16..]);
    let (high_bits, nibbles) = rest.split_at(QK_K / 8);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bit_pair(packed, group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let shift = 4 * (group % 2);
        for ((&byte, &high), value) in nibbles[group / 2 * 32..].iter().zip(high_bits).zip(out) {
            let q = ((byte >> shift) & 15) | ((high >> group) & 1) << 4;
            *value = scale * f32::from(q) - minimum;
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
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
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
