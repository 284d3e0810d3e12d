//! The sizes of the processor's data caches, read once: the blocks of GEMM are chosen for them. Blocking does not change
//! bits.

use std::sync::OnceLock;

/// The data caches of a core, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSizes {
    /// The first level.
    pub l1: usize,
    /// The second level.
    pub l2: usize,
}

/// The smallest caches of x86-64 server cores since 2017, for systems that do not describe theirs.
const FALLBACK: CacheSizes = CacheSizes { l1: 32 << 10, l2: 512 << 10 };

/// The caches of the first core.
pub fn cache_sizes() -> CacheSizes {
    static SIZES: OnceLock<CacheSizes> = OnceLock::new();
    *SIZES.get_or_init(|| read_sizes(|file| std::fs::read_to_string(format!("{SYSFS}/{file}")).ok()))
}

/// Linux's description of the caches of the first core: a directory `index0`, `index1`, ... for each.
const SYSFS: &str = "/sys/devices/system/cpu/cpu0/cache";

/// The sizes by the contents of the files below [`SYSFS`]. Sizes that are missing, malformed or below those of
/// [`FALLBACK`] are replaced by the latter.
fn read_sizes(read: impl Fn(&str) -> Option<String>) -> CacheSizes {
    let mut sizes = FALLBACK;
    for index in 0.. {
        let file = |name: &str| read(&format!("index{index}/{name}")).map(|text| text.trim().to_owned());
        let Some(level) = file("level") else { break };
        let size = file("size").and_then(|size| parse_size(&size)).unwrap_or(0);
        match (level.as_str(), file("type").as_deref()) {
            ("1", Some("Data" | "Unified")) => sizes.l1 = sizes.l1.max(size),
            ("2", Some("Data" | "Unified")) => sizes.l2 = sizes.l2.max(size),
            _ => {}
        }
    }
    sizes
}

/// `48K` and `2M` in bytes.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => (text.strip_suffix('M')?, 1 << 20),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes_of(caches: &[[&str; 3]]) -> CacheSizes {
        read_sizes(|file| {
            let (index, name) = file.strip_prefix("index")?.split_once('/')?;
            let cache = caches.get(index.parse::<usize>().ok()?)?;
            let field = ["level", "type", "size"].iter().position(|field| *field == name)?;
            Some(format!("{}\n", cache[field]))
        })
    }

    #[test]
    fn sizes_of_data_caches_are_read() {
        let caches =
            [["1", "Data", "48K"], ["1", "Instruction", "64K"], ["2", "Unified", "2M"], ["3", "Unified", "480M"]];
        assert_eq!(sizes_of(&caches), CacheSizes { l1: 48 << 10, l2: 2 << 20 });
    }

    #[test]
    fn missing_and_malformed_sizes_fall_back() {
        for caches in
            [&[][..], &[["1", "Data", ""]], &[["1", "Data", "K"], ["2", "Unified", "-1K"]], &[["2", "Data", "1K"]]]
        {
            assert_eq!(sizes_of(caches), FALLBACK, "{caches:?}");
        }
    }
}
