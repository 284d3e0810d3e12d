//! The headers that kernel sources include, embedded in the binary: a device's compiler needs no files.

/// A header of `kernels/cuda/include/`.
pub struct Header {
    /// The name that sources include it by.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! header {
    ($file:literal) => {
        Header { file: $file, text: include_str!(concat!("../../cuda/include/", $file)) }
    };
}

/// All headers that sources may include.
pub const HEADERS: &[Header] = &[
    header!("attention.cuh"),
    header!("epilogue.cuh"),
    header!("math.cuh"),
    header!("ptx.cuh"),
    header!("ptx_sm90.cuh"),
    header!("ring.cuh"),
    header!("types.cuh"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::registry::SOURCES;

    #[test]
    fn every_header_is_embedded() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/include");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, HEADERS.iter().map(|header| header.file).collect::<Vec<_>>());
    }

    #[test]
    fn kernels_leave_ptx_to_the_headers() {
        for source in SOURCES {
            assert!(source.text.starts_with("// "), "{} has no header comment", source.file);
            assert!(!source.text.contains("asm"), "{} contains PTX", source.file);
            for include in source.text.lines().filter_map(|line| line.strip_prefix("#include ")) {
                let is_known = HEADERS.iter().any(|header| include == format!("\"{}\"", header.file));
                assert!(is_known, "{} includes {include}", source.file);
            }
        }
    }

    #[test]
    fn kernels_state_tile_determinism_and_measurement() {
        for source in SOURCES {
            let (comment, _) = source.text.split_once("#include").unwrap();
            assert!(comment.lines().all(|line| line.is_empty() || line.starts_with("//")), "{}", source.file);
            for part in ["// Step ", "Launch: ", "Determinism: "] {
                assert!(comment.contains(part), "{}: the header lacks '{part}'", source.file);
            }
            assert!(comment.contains("docs/measurements/") || comment.contains("not measured"), "{}", source.file);
        }
    }
}
