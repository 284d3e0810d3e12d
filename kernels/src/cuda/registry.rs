//! Every fact about the CUDA kernels, in one table: name, source, parameters, tile, threads, shared memory, devices.
//!
//! Launches, the driver, the occupancy table, `kernels-check` and the tests read it. A new kernel is a file in
//! `kernels/cuda/` and an entry of [`SOURCES`].

use super::{Architecture, Launch};
use crate::dtype::DType;
use crate::error::KernelError;

/// An operation that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Causal attention.
    Attention,
    /// Weights of type `from` to the kernel's type.
    Cast {
        /// The type of the input.
        from: DType,
    },
    /// Comparison of two tensors.
    Compare,
    /// Copies of rows.
    GatherRows,
    /// GEMM whose result is stored.
    Linear,
    /// GEMM whose result is added to the output.
    LinearResidual,
    /// GEMM with gate and up projection, joined by SwiGLU.
    LinearSwiGlu,
    /// Pooling of groups of rows.
    Pool,
    /// RMSNorm.
    RmsNorm,
    /// Rotary position embedding.
    Rope,
}

impl Operation {
    /// Whether it is a GEMM.
    pub const fn is_gemm(self) -> bool {
        matches!(self, Operation::Linear | Operation::LinearResidual | Operation::LinearSwiGlu)
    }
}

/// The instructions that a kernel is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// One element at a time.
    Plain,
    /// Vector loads and stores of 16 bytes.
    Wide,
    /// `mma.sync` on tensor cores.
    Mma,
    /// `wgmma` and TMA on tensor cores.
    Wgmma,
}

/// The part of the result that one block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// A row, or an element for each thread.
    None,
    /// Of a GEMM.
    Gemm(GemmTile),
    /// Of attention: query rows, and the width that heads are padded to.
    Attention {
        /// Query rows.
        queries: usize,
        /// The largest `head_dim`.
        head_dim: usize,
    },
}

/// The tile of a GEMM `[M, K] x [N, K]^T`. It never depends on M, so that a row's bits do not depend on other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmTile {
    /// BM.
    pub m: u32,
    /// BN.
    pub n: u32,
    /// BK.
    pub k: u32,
    /// Blocks of a cluster: consecutive tiles of M that load the same tile of N together.
    pub cluster_size: u32,
}

impl GemmTile {
    /// Blocks of a GEMM: whole clusters for each tile of N.
    pub fn blocks(&self, m: u32, n: u32) -> usize {
        let m_tiles = m.div_ceil(self.m).next_multiple_of(self.cluster_size);
        m_tiles as usize * n.div_ceil(self.n) as usize
    }

    /// Rows of the weights that a block loads for its cluster.
    pub fn multicast_n(&self) -> u32 {
        self.n / self.cluster_size
    }
}

/// The tile of `linear_mma.cu`.
pub const LINEAR_MMA_TILE: GemmTile = GemmTile { m: 128, n: 128, k: 32, cluster_size: 1 };

/// The tile of `linear_wgmma.cu`.
pub const LINEAR_WGMMA_TILE: GemmTile = GemmTile { m: 128, n: 256, k: 64, cluster_size: 2 };

/// Query rows of a tile of `attention_mma.cu`, and keys of a block.
const ATTENTION_MMA_ROWS: usize = 64;

/// The largest `head_dim` of both attention kernels.
pub const MAX_HEAD_DIM: usize = 256;

/// One kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The exported name, such as `rms_norm_bf16`.
    pub name: &'static str,
    /// The operation.
    pub operation: Operation,
    /// The instructions.
    pub variant: Variant,
    /// The element type of the result, or `None` if the kernel takes any.
    pub dtype: Option<DType>,
    /// The tile of a block.
    pub tile: Tile,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether the result has the bits of the CPU backend. A fast kernel adds in another order.
    pub has_cpu_bits: bool,
}

impl Kernel {
    /// A launch on `grid` blocks.
    pub fn launch(&self, grid: [u32; 3]) -> Launch {
        Launch { kernel: self.name.into(), grid, threads: self.threads, shared_bytes: self.shared_bytes }
    }

    /// Whether it runs on tensor cores.
    pub fn uses_tensor_cores(&self) -> bool {
        matches!(self.variant, Variant::Mma | Variant::Wgmma)
    }

    /// The factor of the tolerance for its element type. A fast kernel rounds in another order, and attention rounds its
    /// weights as well.
    pub fn tolerance_factor(&self) -> f64 {
        if self.has_cpu_bits { 1.0 } else { 2.0 }
    }
}

/// One source file of `kernels/cuda/`.
#[derive(Clone, Copy, Debug)]
pub struct KernelSource {
    /// The file's name.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The only compute capability that it compiles for, or `None` for all from `sm_80`.
    pub only: Option<Architecture>,
    /// Parameters of each of its kernels. A driver reports the number only from CUDA 13.2.
    pub parameters: usize,
    /// Its kernels, grouped by name without the type.
    pub groups: &'static [&'static [Kernel]],
}

impl KernelSource {
    /// Whether it compiles for a device of this capability.
    pub fn is_for(&self, device: Architecture) -> bool {
        self.only.is_none_or(|only| only.code().runs_on(device))
    }

    /// Its kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &'static Kernel> {
        self.groups.iter().flat_map(|group| group.iter())
    }
}

/// All kernels.
pub fn kernels() -> impl Iterator<Item = &'static Kernel> {
    SOURCES.iter().flat_map(KernelSource::kernels)
}

/// The kernel of this name.
pub fn named(name: &str) -> Option<&'static Kernel> {
    kernels().find(|kernel| kernel.name == name)
}

/// The source with the kernel `name`.
pub fn source_of(name: &str) -> Option<&'static KernelSource> {
    SOURCES.iter().find(|source| source.kernels().any(|kernel| kernel.name == name))
}

/// The first kernel of an operation for elements of `dtype`: of attention the one for the narrowest heads.
pub fn find(operation: Operation, variant: Variant, dtype: DType) -> Option<&'static Kernel> {
    all_of(operation, variant, dtype).next()
}

/// The kernel of [`find`].
///
/// # Errors
/// No such kernel: the choice of `variant` rules it out.
pub(super) fn require(
    op: &'static str,
    operation: Operation,
    variant: Variant,
    dtype: DType,
) -> Result<&'static Kernel, KernelError> {
    find(operation, variant, dtype).ok_or_else(|| KernelError::shape(op, format!("no {variant:?} kernel for {dtype}")))
}

/// The attention kernel for the narrowest heads that hold `head_dim` elements.
pub fn find_attention(variant: Variant, dtype: DType, head_dim: usize) -> Option<&'static Kernel> {
    all_of(Operation::Attention, variant, dtype)
        .find(|kernel| matches!(kernel.tile, Tile::Attention { head_dim: width, .. } if head_dim <= width))
}

fn all_of(operation: Operation, variant: Variant, dtype: DType) -> impl Iterator<Item = &'static Kernel> {
    kernels().filter(move |kernel| {
        kernel.operation == operation && kernel.variant == variant && kernel.dtype.is_none_or(|own| own == dtype)
    })
}

/// A kernel of one element a thread, which the entries of the table start from.
const PLAIN: Kernel = Kernel {
    name: "",
    operation: Operation::Linear,
    variant: Variant::Plain,
    dtype: None,
    tile: Tile::None,
    threads: 128,
    shared_bytes: 0,
    has_cpu_bits: true,
};

const WIDE: Kernel = Kernel { variant: Variant::Wide, ..PLAIN };

/// Three stages of both tiles, of 2-byte elements.
const LINEAR_MMA: Kernel = Kernel {
    variant: Variant::Mma,
    tile: Tile::Gemm(LINEAR_MMA_TILE),
    threads: 256,
    shared_bytes: 3 * (LINEAR_MMA_TILE.m + LINEAR_MMA_TILE.n) * LINEAR_MMA_TILE.k * 2,
    has_cpu_bits: false,
    ..PLAIN
};

/// Four stages, which the kernel aligns to 1024 bytes.
const LINEAR_WGMMA: Kernel = Kernel {
    variant: Variant::Wgmma,
    tile: Tile::Gemm(LINEAR_WGMMA_TILE),
    threads: 384,
    shared_bytes: 4 * (LINEAR_WGMMA_TILE.m + LINEAR_WGMMA_TILE.n) * LINEAR_WGMMA_TILE.k * 2 + 1024,
    has_cpu_bits: false,
    ..PLAIN
};

/// Queries, keys and values of 2-byte elements.
const fn attention_mma(head_dim: usize) -> Kernel {
    Kernel {
        operation: Operation::Attention,
        variant: Variant::Mma,
        tile: Tile::Attention { queries: ATTENTION_MMA_ROWS, head_dim },
        shared_bytes: (3 * ATTENTION_MMA_ROWS * head_dim * 2) as u32,
        has_cpu_bits: false,
        ..PLAIN
    }
}

/// One kernel for each of the listed types, `STEM_TYPE` or `STEM_TYPEEND`.
macro_rules! typed {
    ($stem:literal, $end:literal, $kernel:expr, [$($dtype:ident $suffix:literal),*]) => {
        &[$(Kernel { name: concat!($stem, "_", $suffix, $end), dtype: Some(DType::$dtype), ..$kernel }),*]
    };
}

/// One kernel for each type.
macro_rules! all_types {
    ($stem:literal, $kernel:expr) => {
        typed!($stem, "", $kernel, [F32 "f32", F16 "f16", Bf16 "bf16"])
    };
}

/// One kernel for each 2-byte type.
macro_rules! half_types {
    ($stem:literal, $kernel:expr) => {
        half_types!($stem, $kernel, "")
    };
    ($stem:literal, $kernel:expr, $end:literal) => {
        typed!($stem, $end, $kernel, [F16 "f16", Bf16 "bf16"])
    };
}

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("../../cuda/", $file))
    };
}

/// All sources with their kernels.
pub const SOURCES: &[KernelSource] = &[
    KernelSource {
        file: "attention.cu",
        text: text!("attention.cu"),
        only: None,
        parameters: 9,
        groups: &[all_types!(
            "attention",
            Kernel {
                operation: Operation::Attention,
                tile: Tile::Attention { queries: 1, head_dim: MAX_HEAD_DIM },
                ..PLAIN
            }
        )],
    },
    KernelSource {
        file: "attention_mma.cu",
        text: text!("attention_mma.cu"),
        only: None,
        parameters: 9,
        groups: &[
            half_types!("attention_mma", attention_mma(64), "_64"),
            half_types!("attention_mma", attention_mma(128), "_128"),
            half_types!("attention_mma", attention_mma(MAX_HEAD_DIM), "_256"),
        ],
    },
    KernelSource {
        file: "cast.cu",
        text: text!("cast.cu"),
        only: None,
        parameters: 7,
        groups: &[
            all_types!("cast_f32", Kernel { operation: Operation::Cast { from: DType::F32 }, threads: 256, ..PLAIN }),
            all_types!("cast_f16", Kernel { operation: Operation::Cast { from: DType::F16 }, threads: 256, ..PLAIN }),
            all_types!("cast_bf16", Kernel { operation: Operation::Cast { from: DType::Bf16 }, threads: 256, ..PLAIN }),
        ],
    },
    KernelSource {
        file: "compare.cu",
        text: text!("compare.cu"),
        only: None,
        parameters: 4,
        groups: &[all_types!("compare", Kernel { operation: Operation::Compare, threads: 256, ..PLAIN })],
    },
    KernelSource {
        file: "gather_rows.cu",
        text: text!("gather_rows.cu"),
        only: None,
        parameters: 6,
        groups: &[
            all_types!("gather_rows", Kernel { operation: Operation::GatherRows, ..PLAIN }),
            &[Kernel { name: "gather_rows_wide", operation: Operation::GatherRows, ..WIDE }],
        ],
    },
    KernelSource {
        file: "linear.cu",
        text: text!("linear.cu"),
        only: None,
        parameters: 6,
        groups: &[
            all_types!("linear", Kernel { operation: Operation::Linear, ..PLAIN }),
            all_types!("linear_residual", Kernel { operation: Operation::LinearResidual, ..PLAIN }),
            all_types!("linear_swiglu", Kernel { operation: Operation::LinearSwiGlu, ..PLAIN }),
        ],
    },
    KernelSource {
        file: "linear_mma.cu",
        text: text!("linear_mma.cu"),
        only: None,
        parameters: 7,
        groups: &[
            half_types!("linear_mma", Kernel { operation: Operation::Linear, ..LINEAR_MMA }),
            half_types!("linear_residual_mma", Kernel { operation: Operation::LinearResidual, ..LINEAR_MMA }),
            half_types!("linear_swiglu_mma", Kernel { operation: Operation::LinearSwiGlu, ..LINEAR_MMA }),
        ],
    },
    KernelSource {
        file: "linear_wgmma.cu",
        text: text!("linear_wgmma.cu"),
        only: Some(Architecture::new(90)),
        parameters: 7,
        groups: &[
            half_types!("linear_wgmma", Kernel { operation: Operation::Linear, ..LINEAR_WGMMA }),
            half_types!("linear_residual_wgmma", Kernel { operation: Operation::LinearResidual, ..LINEAR_WGMMA }),
            half_types!("linear_swiglu_wgmma", Kernel { operation: Operation::LinearSwiGlu, ..LINEAR_WGMMA }),
        ],
    },
    KernelSource {
        file: "pool.cu",
        text: text!("pool.cu"),
        only: None,
        parameters: 6,
        groups: &[
            all_types!("pool", Kernel { operation: Operation::Pool, ..PLAIN }),
            all_types!("pool_wide", Kernel { operation: Operation::Pool, ..WIDE }),
        ],
    },
    KernelSource {
        file: "rms_norm.cu",
        text: text!("rms_norm.cu"),
        only: None,
        parameters: 5,
        groups: &[
            all_types!("rms_norm", Kernel { operation: Operation::RmsNorm, ..PLAIN }),
            all_types!(
                "rms_norm_wide",
                Kernel { operation: Operation::RmsNorm, threads: 256, has_cpu_bits: false, ..WIDE }
            ),
        ],
    },
    KernelSource {
        file: "rope.cu",
        text: text!("rope.cu"),
        only: None,
        parameters: 7,
        groups: &[
            all_types!("rope", Kernel { operation: Operation::Rope, ..PLAIN }),
            all_types!("rope_wide", Kernel { operation: Operation::Rope, ..WIDE }),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_file_has_an_entry() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".cu"))
            .collect();
        files.sort();
        assert_eq!(files, SOURCES.iter().map(|source| source.file).collect::<Vec<_>>());
    }

    #[test]
    fn registered_names_are_those_of_the_sources() {
        for source in SOURCES {
            // The first argument of the macros that end in KERNEL, one a line.
            let defined = source.text.lines().filter_map(|line| {
                let (name, arguments) = line.split_once('(')?;
                let is_macro = name.ends_with("_KERNEL") && !name.contains(' ');
                is_macro.then(|| arguments.split([',', ')']).next()).flatten()
            });
            let (mut defined, mut registered): (Vec<&str>, Vec<&str>) =
                (defined.collect(), source.kernels().map(|kernel| kernel.name).collect());
            defined.sort_unstable();
            registered.sort_unstable();
            assert_eq!(registered, defined, "{}", source.file);
        }
    }

    #[test]
    fn registered_names_are_those_of_the_compiler() {
        let table =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/resources.txt"));
        let table = table.unwrap();
        let lines = table.lines().filter(|line| !line.starts_with(['#', ' ']) && !line.starts_with("kernel "));
        let compiled: Vec<&str> = lines.map(|line| line.split_whitespace().next().unwrap()).collect();
        let mut registered: Vec<&str> = kernels().map(|kernel| kernel.name).collect();
        registered.sort_unstable();
        assert_eq!(registered, compiled);
        assert_eq!(source_of("linear_residual_mma_f16").unwrap().file, "linear_mma.cu");
        assert!(source_of("linear_residual_mma").is_none());
    }

    #[test]
    fn each_file_has_one_signature_with_the_registered_parameters() {
        for source in SOURCES {
            assert_eq!(source.text.matches(" name(").count(), 1, "{}", source.file);
            let signature = source.text.split_once(" name(").unwrap().1.split_once(')').unwrap().0;
            assert_eq!(source.parameters, signature.split(',').count(), "{}", source.file);
        }
    }

    #[test]
    fn source_for_one_architecture_excludes_others() {
        let only: Vec<_> = SOURCES.iter().filter(|source| !source.is_for(Architecture::new(100))).collect();
        assert_eq!(only.iter().map(|source| source.file).collect::<Vec<_>>(), ["linear_wgmma.cu"]);
        assert!(SOURCES.iter().all(|source| source.is_for(Architecture::new(90))));
        assert!(!only.iter().any(|source| source.is_for(Architecture::new(89))));
    }

    #[test]
    fn launches_are_those_of_the_file_headers() {
        let launched = |name: &str| named(name).map(|kernel| (kernel.threads, kernel.shared_bytes));
        assert_eq!(launched("linear_residual_wgmma_bf16"), Some((384, 197_632)));
        assert_eq!(launched("linear_mma_f16"), Some((256, 49_152)));
        assert_eq!(launched("attention_mma_bf16_256"), Some((128, 98_304)));
        assert_eq!(launched("attention_bf16"), Some((128, 0)));
        assert_eq!(launched("rms_norm_wide_f32"), Some((256, 0)));
    }

    #[test]
    fn attention_kernels_are_chosen_by_head_width() {
        let name = |variant, head_dim| find_attention(variant, DType::Bf16, head_dim).map(|kernel| kernel.name);
        assert_eq!(name(Variant::Mma, 64), Some("attention_mma_bf16_64"));
        assert_eq!(name(Variant::Mma, 72), Some("attention_mma_bf16_128"));
        assert_eq!(name(Variant::Mma, 256), Some("attention_mma_bf16_256"));
        assert_eq!(name(Variant::Plain, 256), Some("attention_bf16"));
        assert_eq!(name(Variant::Mma, 257), None);
    }

    #[test]
    fn blocks_are_whole_clusters_for_each_tile_of_n() {
        let sizes = [(1, 1), (128, 256), (129, 256), (257, 257), (1867, 2048)];
        assert_eq!(sizes.map(|(m, n)| LINEAR_WGMMA_TILE.blocks(m, n)), [2, 2, 2, 8, 128]);
        assert_eq!(sizes.map(|(m, n)| LINEAR_MMA_TILE.blocks(m, n)), [1, 2, 4, 9, 240]);
        assert_eq!((LINEAR_WGMMA_TILE.multicast_n(), LINEAR_MMA_TILE.multicast_n()), (128, 128));
    }
}
