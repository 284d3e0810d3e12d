//! Prefetches by software: of outputs and of the next weights, while arithmetic hides their latency. The processor's own
//! prefetchers stop at each page, and see no pattern in the rows of a tile.

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Asks for the cache line of `address`, in the L1 cache or for not `L1` in the L2 cache. Any address is allowed.
#[inline(always)]
pub(super) fn prefetch<const L1: bool>(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if L1 {
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(address.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Prefetches a range of lines into the L2 cache, a few a call, so that they arrive at the rate at which memory sends them.
#[derive(Clone, Copy)]
pub(super) struct LinePrefetcher {
    line: *const u8,
    end: *const u8,
}

impl LinePrefetcher {
    /// Part `part` of `parts` of `bytes`.
    #[inline(always)]
    pub(super) fn new(bytes: &[u8], part: usize, parts: usize) -> Self {
        let lines = bytes.len() / LINE;
        let line = |part: usize| bytes.as_ptr().wrapping_add(lines * part / parts * LINE);
        LinePrefetcher { line: line(part), end: line(part + 1) }
    }

    /// Prefetches the next `LINES` lines; after the last one, again those behind it.
    #[inline(always)]
    pub(super) fn advance<const LINES: usize>(&mut self) {
        for line in 0..LINES {
            prefetch::<false>(self.line.wrapping_add(line * LINE));
        }
        self.line = self.line.wrapping_add(LINES * LINE).min(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_line_once() {
        let bytes = [0u8; 7 * LINE + 5];
        for parts in [1, 3, 7, 9] {
            let mut next = bytes.as_ptr();
            for part in 0..parts {
                let mut lines = LinePrefetcher::new(&bytes, part, parts);
                assert_eq!(lines.line, next);
                next = lines.end;
                for _ in 0..3 {
                    lines.advance::<4>();
                }
                assert_eq!(lines.line, next);
            }
            assert_eq!(next, bytes.as_ptr().wrapping_add(7 * LINE), "{parts}");
        }
    }
}
