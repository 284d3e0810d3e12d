//! Numbers for people: bytes with binary prefixes, counts with separators.

use std::fmt;

/// Bytes with a binary prefix and three significant digits: `8.79 KiB`, `12.3 MiB`, `482 GiB`; below 1 KiB as they are: `240 B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PREFIXES: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let exponent = (self.0.ilog2() / 10) as usize;
        let value = self.0 as f64 / 1024f64.powi(exponent as i32);
        // 1023.5 MiB would print as 1024 MiB.
        let (value, exponent) = if value >= 1023.5 { (value / 1024.0, exponent + 1) } else { (value, exponent) };
        let decimals = match value {
            value if value >= 99.95 => 0,
            value if value >= 9.995 => 1,
            _ => 2,
        };
        write!(f, "{value:.decimals$} {}B", PREFIXES[exponent - 1])
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
        let texts = [0, 1023, 1024, 9001, (1 << 20) - 1, 3 << 29].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(texts, ["0 B", "1023 B", "1.00 KiB", "8.79 KiB", "1.00 MiB", "1.50 GiB"]);
        let texts = [12_897_484, 10 << 30, 517_372_641_280, 1023 << 30, 3 << 39, u64::MAX];
        let texts = texts.map(|bytes| Bytes(bytes).to_string());
        assert_eq!(texts, ["12.3 MiB", "10.0 GiB", "482 GiB", "1023 GiB", "1.50 TiB", "16.0 EiB"]);
        let at_a_power_of_ten = [10_234, 10_235, 102_348, 102_349].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(at_a_power_of_ten, ["9.99 KiB", "10.0 KiB", "99.9 KiB", "100 KiB"]);
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
