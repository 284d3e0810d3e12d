//! Numbers for people: bytes with binary prefixes, counts with separators.

use std::fmt;

/// Bytes with a binary prefix and two decimals: `8.79 KiB`; below 1 KiB as they are: `240 B`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PREFIXES: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let exponent = (self.0.ilog2() / 10) as usize;
        write!(f, "{:.2} {}B", self.0 as f64 / 1024f64.powi(exponent as i32), PREFIXES[exponent - 1])
    }
}

/// A count with a separator every three digits: `12,345`.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A number with an SI prefix and two decimals: `2.85 T`; below 1000 as it is.
pub(crate) fn with_si_prefix(value: u64) -> String {
    let prefixes = ["", " k", " M", " G", " T", " P", " E"];
    match (value.max(1).ilog10() / 3) as usize {
        0 => value.to_string(),
        exponent => format!("{:.2}{}", value as f64 / 1000f64.powi(exponent as i32), prefixes[exponent]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_binary_prefixes() {
        let texts = [0, 1023, 1024, 9001, (1 << 20) - 1, 3 << 29, u64::MAX].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(texts, ["0 B", "1023 B", "1.00 KiB", "8.79 KiB", "1024.00 KiB", "1.50 GiB", "16.00 EiB"]);
    }

    #[test]
    fn counts_have_separators() {
        let texts = [0, 999, 1000, 12_345, 1_234_567].map(|count| Count(count).to_string());
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn large_numbers_have_si_prefixes() {
        let texts = [0, 999, 1000, 12_345, 2_850_000_000_000, u64::MAX].map(with_si_prefix);
        assert_eq!(texts, ["0", "999", "1.00 k", "12.35 k", "2.85 T", "18.45 E"]);
    }
}
