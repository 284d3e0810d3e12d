//! Writes small valid GGUF files for tests, independently of the reader.

use std::path::{Path, PathBuf};

use super::{GgmlType, GgufValue};

/// A GGUF file under construction.
#[derive(Clone, Default)]
pub struct GgufWriter {
    /// Metadata in order.
    pub metadata: Vec<(String, GgufValue)>,
    /// Tensors: name, extents outermost first, type and blocks.
    pub tensors: Vec<(String, Vec<usize>, GgmlType, Vec<u8>)>,
}

impl GgufWriter {
    /// Adds or replaces a metadata value.
    pub fn set(&mut self, key: &str, value: GgufValue) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Removes a metadata value.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key);
        self
    }

    /// Adds or replaces a tensor of single-precision numbers.
    pub fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        self.tensors.retain(|(other, ..)| other != name);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), GgmlType::F32, bytes));
        self
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            push_string(&mut out, key);
            out.extend(type_id(value).to_le_bytes());
            push_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, shape, kind, blocks) in &self.tensors {
            push_string(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&extent| out.extend((extent as u64).to_le_bytes()));
            out.extend(kind.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + blocks.len() as u64).next_multiple_of(32);
        }
        for (_, _, _, blocks) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(blocks);
        }
        out
    }

    /// Writes the file as `dir/name`.
    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn type_id(value: &GgufValue) -> u32 {
    match value {
        GgufValue::Signed(_) => 5,
        GgufValue::Float32(_) => 6,
        GgufValue::Bool(_) => 7,
        GgufValue::String(_) => 8,
        GgufValue::Array(_) => 9,
        GgufValue::Unsigned(_) => 10,
        GgufValue::Float64(_) => 12,
    }
}

fn push_value(out: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::Unsigned(value) => out.extend(value.to_le_bytes()),
        GgufValue::Signed(value) => out.extend((*value as i32).to_le_bytes()),
        GgufValue::Float32(value) => out.extend(value.to_le_bytes()),
        GgufValue::Float64(value) => out.extend(value.to_le_bytes()),
        GgufValue::Bool(value) => out.push((*value).into()),
        GgufValue::String(text) => push_string(out, text),
        GgufValue::Array(values) => {
            out.extend(values.first().map_or(4, type_id).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| push_value(out, value));
        }
    }
}

/// An array of strings.
pub fn strings(texts: &[&str]) -> GgufValue {
    GgufValue::Array(texts.iter().map(|text| GgufValue::String((*text).to_owned())).collect())
}

/// An array of token types.
pub fn integers(values: &[i64]) -> GgufValue {
    GgufValue::Array(values.iter().map(|&value| GgufValue::Signed(value)).collect())
}

/// An array of scores.
pub fn floats(values: &[f32]) -> GgufValue {
    GgufValue::Array(values.iter().map(|&value| GgufValue::Float32(value)).collect())
}

/// A Llama model of one block with a byte-level tokenizer: hidden 8, 2 query heads and 1 key/value head of 4, 7 tokens.
///
/// All elements of row `r` of every matrix are `r`, so that tests can recognize permuted rows.
pub fn tiny_llama() -> GgufWriter {
    let mut gguf = GgufWriter::default();
    let text = |text: &str| GgufValue::String(text.to_owned());
    gguf.set("general.architecture", text("llama"))
        .set("general.name", text("A tiny Llama"))
        .set("llama.block_count", GgufValue::Unsigned(1))
        .set("llama.context_length", GgufValue::Unsigned(64))
        .set("llama.embedding_length", GgufValue::Unsigned(8))
        .set("llama.feed_forward_length", GgufValue::Unsigned(3))
        .set("llama.attention.head_count", GgufValue::Unsigned(2))
        .set("llama.attention.head_count_kv", GgufValue::Unsigned(1))
        .set("llama.attention.layer_norm_rms_epsilon", GgufValue::Float32(1e-5))
        .set("llama.rope.freq_base", GgufValue::Float32(10_000.0))
        .set("tokenizer.ggml.model", text("gpt2"))
        .set("tokenizer.ggml.pre", text("smollm"))
        .set("tokenizer.ggml.tokens", strings(&["<|end|>", "<|im|>", "a", "b", "ab", "1", "Ġ"]))
        .set("tokenizer.ggml.token_type", integers(&[3, 3, 1, 1, 1, 1, 1]))
        .set("tokenizer.ggml.merges", strings(&["a b"]))
        .set("tokenizer.ggml.bos_token_id", GgufValue::Unsigned(1))
        .set("tokenizer.ggml.eos_token_id", GgufValue::Unsigned(0))
        .set("tokenizer.chat_template", text("{{ messages }}"));
    let by_row = |rows: usize, columns: usize| -> Vec<f32> {
        (0..rows).flat_map(|row| std::iter::repeat_n(row as f32, columns)).collect()
    };
    gguf.tensor("token_embd.weight", &[7, 8], &by_row(7, 8));
    for (name, rows, columns) in [
        ("attn_q", 8, 8),
        ("attn_k", 4, 8),
        ("attn_v", 4, 8),
        ("attn_output", 8, 8),
        ("ffn_gate", 3, 8),
        ("ffn_up", 3, 8),
        ("ffn_down", 8, 3),
    ] {
        gguf.tensor(&format!("blk.0.{name}.weight"), &[rows, columns], &by_row(rows, columns));
    }
    for name in ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"] {
        gguf.tensor(name, &[8], &[1.0; 8]);
    }
    gguf
}

/// A model of another architecture with the metadata, the tokenizer and the extents of [`tiny_llama`], in `n_layers` blocks.
///
/// Matrices are as in [`tiny_llama`]; all elements of norms and biases are 1.
pub fn tiny_model(architecture: &str, n_layers: usize) -> GgufWriter {
    let llama = tiny_llama();
    let mut gguf = GgufWriter::default();
    for (key, value) in llama.metadata {
        let key = key.strip_prefix("llama.").map_or(key.clone(), |name| format!("{architecture}.{name}"));
        gguf.set(&key, value);
    }
    let own = |name: &str| format!("{architecture}.{name}");
    gguf.set("general.architecture", GgufValue::String(architecture.to_owned()))
        .set(&own("block_count"), GgufValue::Unsigned(n_layers as u64));
    let has_layer_norm = ["gptneox", "gpt2"].contains(&architecture);
    if has_layer_norm {
        gguf.unset(&own("attention.layer_norm_rms_epsilon"))
            .set(&own("attention.layer_norm_epsilon"), GgufValue::Float32(1e-5))
            .unset(&own("attention.head_count_kv"));
    }
    if architecture == "gemma3" {
        gguf.set(&own("attention.sliding_window"), GgufValue::Unsigned(8));
    }
    let by_row = |shape: &[usize]| -> Vec<f32> {
        let columns = shape[1..].iter().product();
        (0..shape[0]).flat_map(|row| std::iter::repeat_n(row as f32, columns)).collect()
    };
    gguf.tensor("token_embd.weight", &[7, 8], &by_row(&[7, 8])).tensor("output_norm.weight", &[8], &[1.0; 8]);
    if architecture == "gpt2" {
        gguf.tensor("position_embd.weight", &[16, 8], &by_row(&[16, 8]));
    }
    if has_layer_norm {
        gguf.tensor("output_norm.bias", &[8], &[1.0; 8]);
    }
    for layer in 0..n_layers {
        for (name, shape) in tiny_modules(architecture) {
            let is_norm = name.ends_with("norm");
            let values = if is_norm { vec![1.0; shape[0]] } else { by_row(shape) };
            gguf.tensor(&format!("blk.{layer}.{name}.weight"), shape, &values);
            let is_biased = architecture == "qwen2" && ["attn_q", "attn_k", "attn_v"].contains(name);
            if has_layer_norm || is_biased {
                gguf.tensor(&format!("blk.{layer}.{name}.bias"), &shape[..1], &vec![1.0; shape[0]]);
            }
        }
    }
    gguf
}

/// The modules of a block of [`tiny_model`] and the shapes of their weights.
fn tiny_modules(architecture: &str) -> &'static [(&'static str, &'static [usize])] {
    match architecture {
        "phi3" => &[
            ("attn_norm", &[8]),
            ("attn_qkv", &[16, 8]),
            ("attn_output", &[8, 8]),
            ("ffn_norm", &[8]),
            ("ffn_up", &[6, 8]),
            ("ffn_down", &[8, 3]),
        ],
        "gptneox" | "gpt2" => &[
            ("attn_norm", &[8]),
            ("attn_qkv", &[24, 8]),
            ("attn_output", &[8, 8]),
            ("ffn_norm", &[8]),
            ("ffn_up", &[3, 8]),
            ("ffn_down", &[8, 3]),
        ],
        "qwen3" => &LLAMA_AND_GEMMA_MODULES[..11],
        "gemma2" => &LLAMA_AND_GEMMA_MODULES[2..],
        "gemma3" => LLAMA_AND_GEMMA_MODULES,
        _ => &LLAMA_AND_GEMMA_MODULES[2..11],
    }
}

/// The modules of a Llama, after the norms of queries and keys and before Gemma's norms of outputs.
const LLAMA_AND_GEMMA_MODULES: &[(&str, &[usize])] = &[
    ("attn_q_norm", &[4]),
    ("attn_k_norm", &[4]),
    ("attn_norm", &[8]),
    ("attn_q", &[8, 8]),
    ("attn_k", &[4, 8]),
    ("attn_v", &[4, 8]),
    ("attn_output", &[8, 8]),
    ("ffn_norm", &[8]),
    ("ffn_gate", &[3, 8]),
    ("ffn_up", &[3, 8]),
    ("ffn_down", &[8, 3]),
    ("post_attention_norm", &[8]),
    ("post_ffw_norm", &[8]),
];
