//! The kernel sources, in the program itself: a device's compiler needs no file beside it.

/// One source file of `kernels/cuda/`.
pub struct KernelSource {
    /// The file's name.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl KernelSource {
    /// The names of its kernels: what the macros that end in `KERNEL` are given first, one a line.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.text.lines().filter_map(|line| {
            let (name, arguments) = line.split_once('(')?;
            let is_macro = name.ends_with("_KERNEL") && !name.contains(' ');
            is_macro.then(|| arguments.split([',', ')']).next()).flatten()
        })
    }
}

/// The source with the kernel `name`.
pub fn source_of(name: &str) -> Option<&'static KernelSource> {
    SOURCES.iter().find(|source| source.kernels().any(|kernel| kernel == name))
}

macro_rules! sources {
    ($($file:literal)*) => {
        &[$(KernelSource { file: $file, text: include_str!(concat!("../../cuda/", $file)) }),*]
    };
}

/// What every source includes, under this name.
pub const PRELUDE: &KernelSource = &KernelSource { file: "prelude.cuh", text: include_str!("../../cuda/prelude.cuh") };

/// All sources.
pub const SOURCES: &[KernelSource] = sources!(
    "attention.cu" "attention_mma.cu" "cast.cu" "gather_rows.cu" "linear.cu" "linear_mma.cu" "pool.cu" "rms_norm.cu"
    "rope.cu"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_file_is_here() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".cu"))
            .collect();
        files.sort();
        assert_eq!(files, SOURCES.iter().map(|source| source.file).collect::<Vec<_>>());
    }

    #[test]
    fn the_names_of_the_kernels_are_those_that_the_compiler_found() {
        let table =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/resources.txt"));
        let table = table.unwrap();
        let lines = table.lines().filter(|line| !line.starts_with(['#', ' ']) && !line.starts_with("kernel "));
        let compiled: Vec<&str> = lines.map(|line| line.split_whitespace().next().unwrap()).collect();
        let mut named: Vec<&str> = SOURCES.iter().flat_map(KernelSource::kernels).collect();
        named.sort_unstable();
        assert_eq!(named, compiled);
        assert_eq!(source_of("linear_residual_mma_f16").unwrap().file, "linear_mma.cu");
        assert!(source_of("linear_residual_mma").is_none());
    }

    #[test]
    fn kernels_say_what_they_are_and_leave_ptx_and_headers_to_the_prelude() {
        for source in SOURCES {
            assert!(source.text.starts_with("// "), "{} does not open by saying what it is", source.file);
            assert!(!source.text.contains("asm"), "{} has PTX of its own", source.file);
            assert_eq!(source.text.matches("#include").count(), 1, "{} includes more than the prelude", source.file);
            assert!(source.text.contains("#include \"prelude.cuh\""), "{}", source.file);
        }
    }
}
