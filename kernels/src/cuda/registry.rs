//! Every fact about the CUDA kernels, in one table: name, source, parameters, tile, threads, shared memory, devices.
//!
//! Launches, the driver, the occupancy table, `kernels-check` and the tests read it. A new kernel is a file in
//! `kernels/cuda/` and an entry of [`SOURCES`].

use super::{Architecture, Launch};
use crate::dtype::DType;
use crate::error::KernelError;

#[cfg(test)]
mod tests;

/// An operation that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Rows of an embedding table that are added to the output.
    AddEmbedding,
    /// Weighted sums of rows that are added to the output.
    AddWeightedRows,
    /// Causal attention.
    Attention,
    /// Weights of type `from` to the kernel's type.
    Cast {
        /// The type of the input.
        from: DType,
    },
    /// Comparison of two tensors.
    Compare,
    /// Rows of an embedding table times a factor.
    EmbedScaled,
    /// The weights of a norm into those of a projection.
    FoldNorm,
    /// Copies of rows.
    GatherRows,
    /// LayerNorm.
    LayerNorm,
    /// GEMM whose result is stored, with or without an activation.
    Linear,
    /// GEMM with gate and up projection, joined by an activation.
    LinearGated,
    /// GEMM of queries, keys and values, which are rotated and stored into two outputs.
    LinearQkv,
    /// GEMM whose result is added to the output.
    LinearResidual,
    /// Pooling of groups of rows.
    Pool,
    /// RMSNorm.
    RmsNorm,
    /// RMSNorm of heads, in place.
    RmsNormHeads,
    /// RMSNorm that is added to the output.
    RmsNormResidual,
    /// Rotary position embedding.
    Rope,
    /// The choice of experts from the logits of a router.
    Route,
    /// Sums of squares of rows, for folded norms.
    SquareSums,
}

impl Operation {
    /// Whether it is a GEMM.
    pub const fn is_gemm(self) -> bool {
        matches!(self, Operation::Linear | Operation::LinearGated | Operation::LinearQkv | Operation::LinearResidual)
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
    /// Of attention: rows, and the width that heads are padded to.
    Attention {
        /// Rows, each a query of one head. With tensor cores the heads of a KV head are rows of one tile.
        rows: usize,
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

    /// Blocks of a persistent GEMM on a device of `multiprocessors`: as many clusters as run at once, or as there are tiles.
    pub fn persistent_blocks(&self, m: u32, n: u32, multiprocessors: usize) -> usize {
        let cluster_size = self.cluster_size as usize;
        self.blocks(m, n).min((multiprocessors / cluster_size).max(1) * cluster_size)
    }

    /// The most tiles of a block of a persistent GEMM: its time in units of a tile's.
    pub fn waves(&self, m: u32, n: u32, multiprocessors: usize) -> usize {
        self.blocks(m, n).div_ceil(self.persistent_blocks(m, n, multiprocessors).max(1))
    }

    /// Rows of the weights that a block loads for its cluster.
    pub fn multicast_n(&self) -> u32 {
        self.n / self.cluster_size
    }
}

/// The tile of `linear_mma.cu`.
pub const LINEAR_MMA_TILE: GemmTile = GemmTile { m: 128, n: 128, k: 32, cluster_size: 1 };

/// Rows and columns of the boxes in which `linear_wgmma.cu` stores its tile.
pub const LINEAR_WGMMA_BOX: u32 = 64;

/// The tile of `linear_wgmma.cu`.
pub const LINEAR_WGMMA_TILE: GemmTile = GemmTile { m: 128, n: 256, k: 64, cluster_size: 2 };

/// Rows of a tile of `attention_mma.cu`, and keys of a block.
const ATTENTION_MMA_ROWS: usize = 64;

/// Rows of a tile of `attention_wgmma.cu`: 64 for each of its consumers.
const ATTENTION_WGMMA_ROWS: usize = 128;

/// Rows and columns of the boxes in which `attention_wgmma.cu` loads keys and values.
pub const ATTENTION_WGMMA_BOX: u32 = 64;

/// The largest `head_dim` of the plain attention kernel and of `attention_mma.cu`.
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
    /// Its number of parameters, if it is not that of the other kernels of its file.
    pub own_parameters: Option<usize>,
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
    /// weights as well. The CPU backend rounds queries and keys before their rotation, too, the fast kernels do not.
    pub fn tolerance_factor(&self) -> f64 {
        match self.operation {
            _ if self.has_cpu_bits => 1.0,
            Operation::LinearQkv => 3.0,
            _ => 2.0,
        }
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
    /// Parameters of each of its kernels without a number of its own. A driver reports the number only from CUDA 13.2.
    pub parameters: usize,
    /// Its kernels, grouped by name without the type.
    pub groups: &'static [&'static [Kernel]],
}

impl KernelSource {
    /// Whether it compiles for a device of this capability.
    pub fn is_for(&self, device: Architecture) -> bool {
        self.only.is_none_or(|only| only.code().runs_on(device))
    }

    /// Parameters of its kernel `name`, if there is one.
    pub fn parameters_of(&self, name: &str) -> Option<usize> {
        self.kernels().find(|kernel| kernel.name == name).map(|kernel| kernel.own_parameters.unwrap_or(self.parameters))
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

/// The attention kernel for the narrowest heads that hold `head_dim` elements. Those of [`Variant::Wgmma`] take heads of their own
/// width alone: a box of a narrower head would contain elements of the next one.
pub fn find_attention(variant: Variant, dtype: DType, head_dim: usize) -> Option<&'static Kernel> {
    all_of(Operation::Attention, variant, dtype).find(|kernel| match kernel.tile {
        Tile::Attention { head_dim: width, .. } if variant == Variant::Wgmma => head_dim == width,
        Tile::Attention { head_dim: width, .. } => head_dim <= width,
        _ => false,
    })
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
    own_parameters: None,
    has_cpu_bits: true,
};

const WIDE: Kernel = Kernel { variant: Variant::Wide, ..PLAIN };

/// A conversion from `from`, one row a block.
const fn cast(kernel: Kernel, from: DType) -> Kernel {
    Kernel { operation: Operation::Cast { from }, threads: 256, ..kernel }
}

/// The sums of squares of a folded norm, which the CPU backend has not.
const SQUARE_SUMS: Kernel = Kernel { operation: Operation::SquareSums, has_cpu_bits: false, ..PLAIN };

/// A norm, whose wide kernel adds in another order than the plain one.
const WIDE_NORM: Kernel = Kernel { threads: 256, has_cpu_bits: false, ..WIDE };

/// Three stages of both tiles, of 2-byte elements.
const LINEAR_MMA: Kernel = Kernel {
    variant: Variant::Mma,
    tile: Tile::Gemm(LINEAR_MMA_TILE),
    threads: 256,
    shared_bytes: 3 * (LINEAR_MMA_TILE.m + LINEAR_MMA_TILE.n) * LINEAR_MMA_TILE.k * 2,
    has_cpu_bits: false,
    ..PLAIN
};

/// Three stages and the tile of the result, which the kernel aligns to 1024 bytes.
const LINEAR_WGMMA: Kernel = Kernel {
    variant: Variant::Wgmma,
    tile: Tile::Gemm(LINEAR_WGMMA_TILE),
    threads: 384,
    shared_bytes: (3 * (LINEAR_WGMMA_TILE.m + LINEAR_WGMMA_TILE.n) * LINEAR_WGMMA_TILE.k
        + LINEAR_WGMMA_TILE.m * LINEAR_WGMMA_TILE.n)
        * 2
        + 1024,
    has_cpu_bits: false,
    ..PLAIN
};

/// A GEMM of queries, keys and values, like `kernel` but for its parameters.
const fn linear_qkv(kernel: Kernel, parameters: usize) -> Kernel {
    Kernel { operation: Operation::LinearQkv, own_parameters: Some(parameters), ..kernel }
}

/// Queries, and keys and values of each stage, of 2-byte elements: one stage for the widest heads, of which two exceed the
/// shared memory of `sm_86`, `sm_89` and `sm_120`.
const fn attention_mma(head_dim: usize) -> Kernel {
    let stages = if head_dim <= 128 { 2 } else { 1 };
    Kernel {
        operation: Operation::Attention,
        variant: Variant::Mma,
        tile: Tile::Attention { rows: ATTENTION_MMA_ROWS, head_dim },
        shared_bytes: ((1 + 2 * stages) * ATTENTION_MMA_ROWS * head_dim * 2) as u32,
        has_cpu_bits: false,
        ..PLAIN
    }
}

/// Four stages of 64 keys and of 64 values, and queries and results, of 2-byte elements, aligned to 1024 bytes.
const fn attention_wgmma(head_dim: usize) -> Kernel {
    Kernel {
        operation: Operation::Attention,
        variant: Variant::Wgmma,
        tile: Tile::Attention { rows: ATTENTION_WGMMA_ROWS, head_dim },
        threads: 384,
        shared_bytes: ((2 * 4 * 64 + 2 * ATTENTION_WGMMA_ROWS) * head_dim * 2 + 1024) as u32,
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
        file: "add_weighted_rows.cu",
        text: text!("add_weighted_rows.cu"),
        only: None,
        parameters: 6,
        groups: &[
            all_types!("add_weighted_rows", Kernel { operation: Operation::AddWeightedRows, ..PLAIN }),
            all_types!("add_weighted_rows_wide", Kernel { operation: Operation::AddWeightedRows, ..WIDE }),
        ],
    },
    KernelSource {
        file: "attention.cu",
        text: text!("attention.cu"),
        only: None,
        parameters: 11,
        groups: &[all_types!(
            "attention",
            Kernel {
                operation: Operation::Attention,
                tile: Tile::Attention { rows: 1, head_dim: MAX_HEAD_DIM },
                ..PLAIN
            }
        )],
    },
    KernelSource {
        file: "attention_mma.cu",
        text: text!("attention_mma.cu"),
        only: None,
        parameters: 11,
        groups: &[
            half_types!("attention_mma", attention_mma(64), "_64"),
            half_types!("attention_mma", attention_mma(128), "_128"),
            half_types!("attention_mma", attention_mma(MAX_HEAD_DIM), "_256"),
        ],
    },
    KernelSource {
        file: "attention_wgmma.cu",
        text: text!("attention_wgmma.cu"),
        only: Some(Architecture::new(90)),
        parameters: 12,
        groups: &[
            half_types!("attention_wgmma", attention_wgmma(64), "_64"),
            half_types!("attention_wgmma", attention_wgmma(128), "_128"),
        ],
    },
    KernelSource {
        file: "cast.cu",
        text: text!("cast.cu"),
        only: None,
        parameters: 7,
        groups: &[
            all_types!("cast_f32", cast(PLAIN, DType::F32)),
            all_types!("cast_f32_wide", cast(WIDE, DType::F32)),
            all_types!("cast_f16", cast(PLAIN, DType::F16)),
            all_types!("cast_f16_wide", cast(WIDE, DType::F16)),
            all_types!("cast_bf16", cast(PLAIN, DType::Bf16)),
            all_types!("cast_bf16_wide", cast(WIDE, DType::Bf16)),
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
        file: "embed.cu",
        text: text!("embed.cu"),
        only: None,
        parameters: 5,
        groups: &[
            all_types!("embed_scaled", Kernel { operation: Operation::EmbedScaled, ..PLAIN }),
            all_types!("embed_scaled_wide", Kernel { operation: Operation::EmbedScaled, ..WIDE }),
            all_types!("add_embedding", Kernel { operation: Operation::AddEmbedding, ..PLAIN }),
            all_types!("add_embedding_wide", Kernel { operation: Operation::AddEmbedding, ..WIDE }),
        ],
    },
    KernelSource {
        file: "fold_norm.cu",
        text: text!("fold_norm.cu"),
        only: None,
        parameters: 5,
        groups: &[
            typed!("fold_norm", "", Kernel { operation: Operation::FoldNorm, threads: 256, ..WIDE }, [Bf16 "bf16"]),
        ],
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
        file: "layer_norm.cu",
        text: text!("layer_norm.cu"),
        only: None,
        parameters: 6,
        groups: &[
            all_types!("layer_norm", Kernel { operation: Operation::LayerNorm, ..PLAIN }),
            all_types!("layer_norm_wide", Kernel { operation: Operation::LayerNorm, ..WIDE_NORM }),
        ],
    },
    KernelSource {
        file: "linear.cu",
        text: text!("linear.cu"),
        only: None,
        parameters: 7,
        groups: &[
            all_types!("linear", Kernel { operation: Operation::Linear, ..PLAIN }),
            all_types!("linear_residual", Kernel { operation: Operation::LinearResidual, ..PLAIN }),
            all_types!("linear_gated", Kernel { operation: Operation::LinearGated, ..PLAIN }),
            all_types!("linear_qkv", linear_qkv(PLAIN, 16)),
        ],
    },
    KernelSource {
        file: "linear_mma.cu",
        text: text!("linear_mma.cu"),
        only: None,
        parameters: 10,
        groups: &[
            half_types!("linear_mma", Kernel { operation: Operation::Linear, ..LINEAR_MMA }),
            half_types!("linear_residual_mma", Kernel { operation: Operation::LinearResidual, ..LINEAR_MMA }),
            half_types!("linear_gated_mma", Kernel { operation: Operation::LinearGated, ..LINEAR_MMA }),
            half_types!("linear_qkv_mma", linear_qkv(LINEAR_MMA, 19)),
        ],
    },
    KernelSource {
        file: "linear_wgmma.cu",
        text: text!("linear_wgmma.cu"),
        only: Some(Architecture::new(90)),
        parameters: 10,
        groups: &[
            half_types!("linear_wgmma", Kernel { operation: Operation::Linear, ..LINEAR_WGMMA }),
            half_types!("linear_residual_wgmma", Kernel { operation: Operation::LinearResidual, ..LINEAR_WGMMA }),
            half_types!("linear_gated_wgmma", Kernel { operation: Operation::LinearGated, ..LINEAR_WGMMA }),
            half_types!("linear_qkv_wgmma", linear_qkv(LINEAR_WGMMA, 18)),
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
            all_types!("rms_norm_wide", Kernel { operation: Operation::RmsNorm, ..WIDE_NORM }),
            all_types!("rms_norm_residual", Kernel { operation: Operation::RmsNormResidual, ..PLAIN }),
            all_types!("rms_norm_residual_wide", Kernel { operation: Operation::RmsNormResidual, ..WIDE_NORM }),
        ],
    },
    KernelSource {
        file: "rms_norm_heads.cu",
        text: text!("rms_norm_heads.cu"),
        only: None,
        parameters: 7,
        groups: &[
            all_types!("rms_norm_heads", Kernel { operation: Operation::RmsNormHeads, ..PLAIN }),
            all_types!("rms_norm_heads_wide", Kernel { operation: Operation::RmsNormHeads, threads: 128, ..WIDE_NORM }),
        ],
    },
    KernelSource {
        file: "rope.cu",
        text: text!("rope.cu"),
        only: None,
        parameters: 8,
        groups: &[
            all_types!("rope", Kernel { operation: Operation::Rope, ..PLAIN }),
            all_types!("rope_wide", Kernel { operation: Operation::Rope, ..WIDE }),
        ],
    },
    KernelSource {
        file: "route.cu",
        text: text!("route.cu"),
        only: None,
        parameters: 6,
        groups: &[all_types!("route", Kernel { operation: Operation::Route, ..PLAIN })],
    },
    KernelSource {
        file: "square_sums.cu",
        text: text!("square_sums.cu"),
        only: None,
        parameters: 3,
        groups: &[typed!("square_sums", "", SQUARE_SUMS, [Bf16 "bf16"])],
    },
];
