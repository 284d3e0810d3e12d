//! The tensors that a configuration asks for: a check that they are there, and warnings about those that are missing or not used.

use std::collections::BTreeSet;

use super::config::ModelConfig;
use super::weights::{Weights, block_of, is_quantization};
use crate::error::Result;

/// The embedding's own name, and that of the LM head, which is the same matrix in a tied model.
const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// Tensors in the warnings.
const NAMED: usize = 2;

/// Takes the name and the shape of a tensor.
type VisitTensor<'a, E> = dyn FnMut(&str, &[usize]) -> std::result::Result<(), E> + 'a;

/// Calls `visit(name, shape)` for each tensor of the embedding and the first `n_blocks` blocks.
fn for_each_tensor<E>(
    config: &ModelConfig,
    embedding: &str,
    n_blocks: usize,
    visit: &mut VisitTensor<'_, E>,
) -> std::result::Result<(), E> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    visit(embedding, &[config.vocab_size, hidden])?;
    for layer in 0..n_blocks {
        let block = format!("model.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            visit(&format!("{block}.{norm}.weight"), &[hidden])?;
        }
        for (module, part, outputs, inputs, bias) in [
            ("self_attn", "q_proj", config.query_width(), hidden, config.attention_bias),
            ("self_attn", "k_proj", config.kv_width(), hidden, config.attention_bias),
            ("self_attn", "v_proj", config.kv_width(), hidden, config.attention_bias),
            ("self_attn", "o_proj", hidden, config.query_width(), config.attention_bias),
            ("mlp", "gate_proj", inner, hidden, config.mlp_bias),
            ("mlp", "up_proj", inner, hidden, config.mlp_bias),
            ("mlp", "down_proj", hidden, inner, config.mlp_bias),
        ] {
            visit(&format!("{block}.{module}.{part}.weight"), &[outputs, inputs])?;
            if bias {
                visit(&format!("{block}.{module}.{part}.bias"), &[outputs])?;
            }
        }
    }
    Ok(())
}

/// The name of the embedding: that of the LM head in a tied model whose file has no other.
pub(super) fn embedding_name(config: &ModelConfig, weights: &Weights) -> &'static str {
    let by_head = config.tie_word_embeddings && !weights.contains(EMBEDDING) && weights.contains(LM_HEAD);
    if by_head { LM_HEAD } else { EMBEDDING }
}

/// Checks that each tensor of the first `n_blocks` blocks is there in the right shape. A missing bias is zero, as in transformers.
/// Reads headers alone.
///
/// # Errors
/// The first tensor that is missing or has another shape.
pub(super) fn check_tensors(config: &ModelConfig, weights: &Weights, n_blocks: usize) -> Result<()> {
    for_each_tensor(config, embedding_name(config, weights), n_blocks, &mut |name, shape| {
        if is_bias(name) && !weights.contains(name) {
            return Ok(());
        }
        weights.check(name, shape)
    })
}

/// Warnings about tensors in which the files and `config` disagree and transformers goes on: biases that are missing, and tensors of
/// the embedding and the blocks that a Llama does not have. Tensors elsewhere, such as heads, do not change activations.
pub(super) fn tensor_warnings(config: &ModelConfig, weights: &Weights) -> Vec<String> {
    let mut expected = BTreeSet::new();
    let mut zero_biases = Vec::new();
    let mut visit = |name: &str, _: &[usize]| {
        if is_bias(name) && !weights.contains(name) {
            zero_biases.push(name.to_owned());
        }
        expected.insert(name.to_owned());
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(()) = for_each_tensor(config, EMBEDDING, config.n_layers, &mut visit);
    let (mut quantized, mut unused, mut deeper) = (Vec::new(), Vec::new(), Vec::new());
    for (name, stored, shadowed) in weights.renamed() {
        // transformers is silent about the frequencies that old versions stored in each block, too.
        if expected.contains(&*name) && !shadowed || stored.contains("rotary_emb.inv_freq") {
            continue;
        }
        match block_of(&name) {
            Some(block) if block >= config.n_layers => deeper.push(stored.to_owned()),
            None if !stored.contains("embed_tokens.") => {}
            _ if is_quantization(stored) => quantized.push(stored.to_owned()),
            _ => unused.push(stored.to_owned()),
        }
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

    fn config(more: &str) -> ModelConfig {
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1{more}}}"#
        );
        ModelConfig::parse(&text, "config.json").unwrap()
    }

    /// The tensors of `config` with names changed by `rename`, which gives none for a tensor left out, and the tensors `more`.
    fn write(dir: &Path, config: &ModelConfig, rename: impl Fn(&str) -> Option<String>, more: &[&str]) {
        let mut tensors: Vec<(String, Vec<usize>)> = more.iter().map(|name| ((*name).to_owned(), vec![1])).collect();
        let mut add = |name: &str, shape: &[usize]| {
            tensors.extend(rename(name).map(|name| (name, shape.to_vec())));
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = for_each_tensor(config, EMBEDDING, config.n_layers, &mut add);
        let data: Vec<Vec<u8>> =
            tensors.iter().map(|(_, shape)| 1f32.to_le_bytes().repeat(shape.iter().product())).collect();
        let views = tensors
            .iter()
            .zip(&data)
            .map(|((name, shape), data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// The warnings about a directory written by [`write`], whose tensors must be complete.
    fn warnings(config: &ModelConfig, rename: impl Fn(&str) -> Option<String>, more: &[&str]) -> Vec<String> {
        let dir = TempDir::new().unwrap();
        write(dir.path(), config, rename, more);
        let weights = Weights::open(dir.path()).unwrap();
        check_tensors(config, &weights, config.n_layers).unwrap();
        tensor_warnings(config, &weights)
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
        let weights = Weights::open(dir.path()).unwrap();
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

    #[test]
    fn name_given_twice_is_read_from_the_first_in_order() {
        let dir = TempDir::new().unwrap();
        let plain = config("");
        write(dir.path(), &plain, same, &["layers.0.input_layernorm.weight"]);
        let weights = Weights::open(dir.path()).unwrap();
        // transformers 5.24 takes `layers...` before `model.layers...`; here its shape is another one.
        assert_eq!(weights.shape("model.layers.0.input_layernorm.weight"), Some(&[1][..]));
        let warnings = tensor_warnings(&plain, &weights).join("|");
        assert!(warnings.contains("not used: 'model.layers.0.input_layernorm.weight'"), "{warnings}");
    }
}
