//! The tensors that a configuration asks for: a check that they are there, and warnings about those that are missing or not used.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::spec::DecoderSpec;
use super::tensor_shapes::for_each_tensor;
use super::weights::{Weights, block_of, is_quantization};
use crate::error::{Error, Result};

/// Tensors in the warnings.
const NAMED: usize = 2;

/// The name of the embedding: that of the LM head in a tied model whose file has no other.
pub(super) fn embedding_name(spec: &DecoderSpec, weights: &Weights) -> &'static str {
    let (embedding, head) = (spec.names.embedding, spec.names.head);
    let by_head = spec.tie_word_embeddings && !weights.contains(embedding) && weights.contains(head);
    if by_head { head } else { embedding }
}

/// Checks that each tensor of the first `n_blocks` blocks is there in the right shape. A missing bias is zero, as in transformers.
/// Reads headers alone.
///
/// # Errors
/// The first tensor that is missing or has another shape; of a family other than Llama also tensors of those blocks that it does
/// not have. transformers passes over those; here they are taken for a sign of another model. A Llama keeps its warning, since files
/// with additional tensors are in use.
pub(super) fn check_tensors(spec: &DecoderSpec, weights: &Weights, n_blocks: usize) -> Result<()> {
    for_each_tensor(spec, embedding_name(spec, weights), n_blocks, &mut |name, shape| {
        if is_bias(name) && !weights.contains(name) {
            return Ok(());
        }
        weights.check(name, shape)
    })?;
    if spec.family == LLAMA {
        return Ok(());
    }
    let found = Leftovers::of(spec, weights, n_blocks);
    let Some(first) = found.unused.first().or(found.quantized.first()) else { return Ok(()) };
    let names: Vec<String> = found.unused.iter().chain(&found.quantized).cloned().collect();
    let what = format!("tensors that a {} of this config.json does not have: {}", spec.family, some_of(&names));
    Err(Error::input(weights.origin(first), what))
}

/// The family whose additional tensors are warnings.
const LLAMA: &str = "llama";

/// Tensors in which files and configuration disagree.
#[derive(Default)]
struct Leftovers {
    /// Biases that the files lack.
    zero_biases: Vec<String>,
    /// Tensors of blocks below the limit that are of a quantized weight.
    quantized: Vec<String>,
    /// Other tensors of the embedding and of blocks below the limit that the family does not have.
    unused: Vec<String>,
    /// Tensors of blocks that the configuration does not have.
    deeper: Vec<String>,
}

impl Leftovers {
    /// Those of the embedding and of the first `n_blocks` blocks, and the deeper ones.
    fn of(spec: &DecoderSpec, weights: &Weights, n_blocks: usize) -> Self {
        let mut found = Leftovers::default();
        let mut expected = BTreeSet::new();
        let mut visit = |name: &str, _: &[usize]| {
            if is_bias(name) && !weights.contains(name) {
                found.zero_biases.push(name.to_owned());
            }
            expected.insert(name.to_owned());
            Ok::<(), Infallible>(())
        };
        let Ok(()) = for_each_tensor(spec, spec.names.embedding, spec.n_layers, &mut visit);
        let embedding = spec.names.embedding.trim_end_matches("weight").trim_start_matches(spec.names.base);
        for (name, stored, shadowed) in weights.renamed() {
            // transformers is silent about the buffers that old versions stored in each block, too.
            let is_buffer = spec.names.buffers.iter().any(|buffer| stored.ends_with(buffer));
            if expected.contains(&*name) && !shadowed || is_buffer {
                continue;
            }
            match block_of(&name, &spec.names) {
                Some(block) if block >= spec.n_layers => found.deeper.push(stored.to_owned()),
                Some(block) if block >= n_blocks => {}
                None if !stored.contains(embedding) => {}
                _ if is_quantization(stored) => found.quantized.push(stored.to_owned()),
                _ => found.unused.push(stored.to_owned()),
            }
        }
        found
    }
}

/// Warnings about tensors in which the files and `spec` disagree and transformers goes on: biases that are missing, and tensors of
/// the embedding and the blocks that a Llama does not have. Tensors elsewhere, such as heads, do not change activations. There is no
/// warning of such tensors in other families: [`check_tensors`] refuses them in the blocks that run, and the others change nothing.
pub(super) fn tensor_warnings(spec: &DecoderSpec, weights: &Weights) -> Vec<String> {
    let Leftovers { zero_biases, mut quantized, mut unused, deeper } = Leftovers::of(spec, weights, spec.n_layers);
    if spec.family != LLAMA {
        (quantized, unused) = (Vec::new(), Vec::new());
    }
    let clauses = [
        (zero_biases, "config.json asks for biases that the files lack, so they are zero: "),
        (quantized, "tensors of a quantized model are not used, and the weights next to them are taken as they are: "),
        (unused, "tensors that a Llama of this config.json does not have are not used: "),
        (deeper, "tensors of blocks beyond the num_hidden_layers of config.json are not used: "),
    ];
    let listed = clauses.into_iter().filter(|(names, _)| !names.is_empty());
    listed.map(|(names, what)| format!("{what}{} (transformers does the same)", some_of(&names))).collect()
}

fn is_bias(name: &str) -> bool {
    name.ends_with(".bias")
}

/// The first names of a list, and the number of the others.
fn some_of(names: &[String]) -> String {
    let first = names.iter().take(NAMED).map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use safetensors::tensor::{Dtype, TensorView};
    use tempfile::TempDir;

    use super::*;

    const EMBEDDING: &str = "model.embed_tokens.weight";
    const LM_HEAD: &str = "lm_head.weight";

    fn config(more: &str) -> DecoderSpec {
        config_of("llama", more)
    }

    fn config_of(model_type: &str, more: &str) -> DecoderSpec {
        let text = format!(
            r#"{{"model_type": "{model_type}", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1{more}}}"#
        );
        DecoderSpec::parse(&text, "config.json").unwrap()
    }

    /// The tensors of `config` with names changed by `rename`, which gives none for a tensor left out, and the tensors `more`.
    fn write(dir: &Path, spec: &DecoderSpec, rename: impl Fn(&str) -> Option<String>, more: &[&str]) {
        let mut tensors: Vec<(String, Vec<usize>)> = more.iter().map(|name| ((*name).to_owned(), vec![1])).collect();
        let mut add = |name: &str, shape: &[usize]| {
            tensors.extend(rename(name).map(|name| (name, shape.to_vec())));
            Ok::<(), Infallible>(())
        };
        let Ok(()) = for_each_tensor(spec, EMBEDDING, spec.n_layers, &mut add);
        let data: Vec<Vec<u8>> =
            tensors.iter().map(|(_, shape)| 1f32.to_le_bytes().repeat(shape.iter().product())).collect();
        let views = tensors
            .iter()
            .zip(&data)
            .map(|((name, shape), data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// The warnings about a directory written by [`write`], whose tensors must be complete.
    fn warnings(spec: &DecoderSpec, rename: impl Fn(&str) -> Option<String>, more: &[&str]) -> Vec<String> {
        let dir = TempDir::new().unwrap();
        write(dir.path(), spec, rename, more);
        let weights = Weights::open(dir.path(), &config("")).unwrap();
        check_tensors(spec, &weights, spec.n_layers).unwrap();
        tensor_warnings(spec, &weights)
    }

    fn same(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn tensors_under_names_that_transformers_renames_are_found() {
        let plain = config("");
        let renames: [fn(&str) -> Option<String>; 4] = [
            same,
            |name| Some(format!("model.{name}")),
            |name| Some(name.strip_prefix("model.")?.to_owned()),
            |name| Some(name.replace("layernorm.weight", "layernorm.gamma")),
        ];
        for rename in renames {
            assert_eq!(warnings(&plain, rename, &[]), [""; 0]);
        }
    }

    #[test]
    fn tied_model_may_have_the_lm_head_alone() {
        let head = |name: &str| Some(if name == EMBEDDING { LM_HEAD.to_owned() } else { name.to_owned() });
        let tied = config(r#", "tie_word_embeddings": true"#);
        assert_eq!(warnings(&tied, head, &[]), [""; 0]);
        let dir = TempDir::new().unwrap();
        write(dir.path(), &tied, head, &[]);
        let weights = Weights::open(dir.path(), &config("")).unwrap();
        assert_eq!(embedding_name(&tied, &weights), LM_HEAD);
        let error = check_tensors(&config(""), &weights, 1).unwrap_err().to_string();
        assert!(error.contains("no tensor 'model.embed_tokens.weight'"), "{error}");
    }

    #[test]
    fn missing_biases_and_unused_tensors_are_named() {
        let biased = config(r#", "attention_bias": true"#);
        let without_output = |name: &str| same(name).filter(|name| !name.ends_with("o_proj.bias"));
        insta::assert_snapshot!(warnings(&biased, without_output, &[]).join("|"), @"config.json asks for biases that the files lack, so they are zero: 'model.layers.0.self_attn.o_proj.bias', 'model.layers.1.self_attn.o_proj.bias' (transformers does the same)");
        let plain = config("");
        let unused = [
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.1.mlp.up_proj.bias",
        ];
        insta::assert_snapshot!(warnings(&plain, same, &unused).join("|"), @"tensors that a Llama of this config.json does not have are not used: 'model.layers.0.self_attn.q_norm.weight', 'model.layers.0.self_attn.q_proj.bias' and 1 more (transformers does the same)");
        insta::assert_snapshot!(warnings(&plain, same, &["model.layers.2.mlp.up_proj.weight"]).join("|"), @"tensors of blocks beyond the num_hidden_layers of config.json are not used: 'model.layers.2.mlp.up_proj.weight' (transformers does the same)");
        insta::assert_snapshot!(warnings(&plain, same, &["model.layers.0.mlp.up_proj.weight_scale"]).join("|"), @"tensors of a quantized model are not used, and the weights next to them are taken as they are: 'model.layers.0.mlp.up_proj.weight_scale' (transformers does the same)");
        let silent =
            ["lm_head.weight", "score.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "vision.layers.0.x"];
        assert_eq!(warnings(&plain, same, &silent), [""; 0]);
    }

    /// The warning says that transformers does the same, which is not so for a model that is refused.
    #[test]
    fn tensors_that_are_refused_are_not_warned_of() {
        let mistral = config_of("mistral", "");
        for unused in ["model.layers.1.self_attn.q_norm.weight", "model.layers.1.mlp.up_proj.weight_scale"] {
            let dir = TempDir::new().unwrap();
            write(dir.path(), &mistral, same, &[unused, "model.layers.2.mlp.up_proj.weight"]);
            let weights = Weights::open(dir.path(), &mistral).unwrap();
            let error = check_tensors(&mistral, &weights, 2).unwrap_err().to_string();
            assert!(error.contains(&format!("does not have: '{unused}'")), "{error}");
            check_tensors(&mistral, &weights, 1).unwrap();
            let warnings = tensor_warnings(&mistral, &weights).join("|");
            assert!(warnings.starts_with("tensors of blocks beyond the num_hidden_layers"), "{warnings}");
            assert!(!warnings.contains(unused), "{warnings}");
        }
    }

    #[test]
    fn name_given_twice_is_read_from_the_first_in_order() {
        let dir = TempDir::new().unwrap();
        let plain = config("");
        write(dir.path(), &plain, same, &["layers.0.input_layernorm.weight"]);
        let weights = Weights::open(dir.path(), &config("")).unwrap();
        // transformers 5.24 takes `layers...` before `model.layers...`; here its shape is another one.
        assert_eq!(weights.shape("model.layers.0.input_layernorm.weight"), Some(&[1][..]));
        let warnings = tensor_warnings(&plain, &weights).join("|");
        assert!(warnings.contains("not used: 'model.layers.0.input_layernorm.weight'"), "{warnings}");
    }
}
