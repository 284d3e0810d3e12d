//! The kernel sources, in the program itself: a device's compiler needs no file beside it.

use super::Architecture;

/// One source file of `kernels/cuda/`.
pub struct KernelSource {
    /// The file's name.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The one capability that it is for, where it uses what no other has.
    pub only: Option<Architecture>,
}

impl KernelSource {
    /// Whether it is for a device of this capability.
    pub fn is_for(&self, device: Architecture) -> bool {
        self.only.is_none_or(|only| only.code().runs_on(device))
    }

    /// The names of its kernels: what the macros that end in `KERNEL` are given first, one a line.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.text.lines().filter_map(|line| {
            let (name, arguments) = line.split_once('(')?;
            let is_macro = name.ends_with("_KERNEL") && !name.contains(' ');
            is_macro.then(|| arguments.split([',', ')']).next()).flatten()
        })
    }

    /// How many parameters each of its kernels has: what the one signature of the file lists, whose name the macro fills in.
    /// A driver tells how many there are from CUDA 13.2 on alone.
    ///
    /// None of a text without a kernel.
    pub fn parameters(&self) -> Option<usize> {
        let (_, signature) = self.text.split_once(" name(")?;
        let (listed, _) = signature.split_once(')')?;
        Some(listed.split(',').count())
    }
}

/// The source with the kernel `name`.
pub fn source_of(name: &str) -> Option<&'static KernelSource> {
    SOURCES.iter().find(|source| source.kernels().any(|kernel| kernel == name))
}

macro_rules! source {
    ($file:literal, $only:expr) => {
        KernelSource { file: $file, text: include_str!(concat!("../../cuda/", $file)), only: $only }
    };
}

/// What every source includes, under this name.
pub const PRELUDE: &KernelSource = &source!("prelude.cuh", None);

/// All sources.
pub const SOURCES: &[KernelSource] = &[
    source!("attention.cu", None),
    source!("attention_mma.cu", None),
    source!("cast.cu", None),
    source!("compare.cu", None),
    source!("gather_rows.cu", None),
    source!("linear.cu", None),
    source!("linear_mma.cu", None),
    source!("linear_wgmma.cu", Some(Architecture::new(90))),
    source!("pool.cu", None),
    source!("rms_norm.cu", None),
    source!("rope.cu", None),
];

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
    fn each_file_has_one_signature_for_all_its_kernels() {
        for source in SOURCES {
            assert_eq!(source.text.matches(" name(").count(), 1, "{}", source.file);
        }
        let parameters = |kernel: &str| source_of(kernel).and_then(KernelSource::parameters);
        assert_eq!(parameters("rms_norm_f32"), Some(5));
        assert_eq!(parameters("attention_bf16"), Some(9));
        assert_eq!(KernelSource { file: "none.cu", text: "// none", only: None }.parameters(), None);
    }

    #[test]
    fn a_source_for_one_device_is_for_no_other() {
        let only: Vec<_> = SOURCES.iter().filter(|source| !source.is_for(Architecture::new(100))).collect();
        assert_eq!(only.iter().map(|source| source.file).collect::<Vec<_>>(), ["linear_wgmma.cu"]);
        assert!(SOURCES.iter().all(|source| source.is_for(Architecture::new(90))));
        assert!(!only.iter().any(|source| source.is_for(Architecture::new(89))));
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
