//! Names of tensors: which names in a file transformers takes for a tensor of a family.
//!
//! From `core_model_loading.rename_source_key` of transformers 5.24: the family's own renamings are applied, then the base model's
//! prefix is removed once where the rest is a tensor of the model, and added where the name with it is one.

use crate::model::tensor_names::{Part, TensorNames};

/// The name that transformers gives the tensor `stored` of a file.
pub(super) fn renamed(stored: &str, names: &TensorNames) -> String {
    let alias = names.aliases.iter().find_map(|(from, to)| Some(format!("{to}{}", stored.strip_prefix(*from)?)));
    let stored = alias.unwrap_or_else(|| stored.to_owned());
    // transformers removes the prefix with a regular expression such as `^model.`, whose point is any character.
    let rest = stored.strip_prefix(names.base.trim_end_matches('.')).map(|rest| {
        let mut rest = rest.chars();
        rest.next();
        rest.as_str()
    });
    if let Some(rest) = rest.filter(|rest| is_tensor(rest, names)) {
        return rest.to_owned();
    }
    let prefixed = format!("{}{stored}", names.base);
    if is_tensor(&prefixed, names) { prefixed } else { stored }
}

/// The norm whose weight the tensor `name` would be if its last part were not the old `gamma`.
pub(super) fn norm_of_gamma(name: &str, names: &TensorNames) -> Option<String> {
    let weight = renamed(&format!("{}.weight", name.strip_suffix(".gamma")?), names);
    let module = weight.strip_suffix(".weight")?;
    let is_norm = |own: &str| names.has_module(own, is_norm_part);
    (module == names.final_norm || in_block(module, names).is_some_and(is_norm)).then_some(weight)
}

/// The block of the tensor `name`, with or without the prefix.
pub(in crate::model) fn block_of(name: &str, names: &TensorNames) -> Option<usize> {
    let blocks = names.blocks.strip_prefix(names.base).unwrap_or(names.blocks);
    let name = name.strip_prefix(names.base).unwrap_or(name);
    let (block, _) = name.strip_prefix(names.base).unwrap_or(name).strip_prefix(blocks)?.split_once('.')?;
    block.parse().ok()
}

/// Whether `name` is a tensor of a model of some depth, under the name that transformers has for it.
fn is_tensor(name: &str, names: &TensorNames) -> bool {
    if name == names.embedding || name == names.head || names.positions == Some(name) {
        return true;
    }
    if name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")) == Some(names.final_norm) {
        return true;
    }
    let Some(tensor) = in_block(name, names) else { return false };
    let module = tensor.strip_suffix(".weight").or_else(|| tensor.strip_suffix(".bias"));
    module.is_some_and(|own| names.has_module(own, |_| true))
}

/// The part of `name` after the number of its block.
fn in_block<'a>(name: &'a str, names: &TensorNames) -> Option<&'a str> {
    let (block, tensor) = name.strip_prefix(names.blocks)?.split_once('.')?;
    let is_number = !block.is_empty() && block.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(tensor)
}

fn is_norm_part(part: Part) -> bool {
    match part {
        Part::AttentionNorm
        | Part::QueryNorm
        | Part::KeyNorm
        | Part::AttentionOutputNorm
        | Part::MlpNorm
        | Part::MlpOutputNorm => true,
        Part::Query | Part::Key | Part::Value | Part::AttentionOutput | Part::Gate | Part::Up | Part::Down => false,
        Part::Router | Part::ExpertGate | Part::ExpertUp | Part::ExpertDown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::DecoderSpec;

    /// The names of a family; `more` are the keys of a small configuration that a Llama does not need.
    fn names_of(model_type: &str, more: &str) -> TensorNames {
        let text = format!(
            r#"{{"model_type": "{model_type}", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 1, "num_key_value_heads": 1{more}}}"#
        );
        DecoderSpec::parse(&text, "config.json").unwrap().names
    }

    fn assert_renamed(names: &TensorNames, pairs: &[(&str, &str)]) {
        for (stored, expected) in pairs {
            assert_eq!(renamed(stored, names), *expected);
        }
    }

    /// Each pair was tried with `LlamaForCausalLM.from_pretrained` of transformers 5.24.
    #[test]
    fn names_become_those_of_transformers() {
        let pairs = [
            ("model.embed_tokens.weight", "model.embed_tokens.weight"),
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("model.model.embed_tokens.weight", "model.embed_tokens.weight"),
            ("model_model.embed_tokens.weight", "model.embed_tokens.weight"),
            ("model.model.model.embed_tokens.weight", "model.model.model.embed_tokens.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("model.lm_head.weight", "lm_head.weight"),
            ("layers.10.mlp.up_proj.weight", "model.layers.10.mlp.up_proj.weight"),
            ("model.model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias"),
            ("model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
            ("layers.x.mlp.up_proj.weight", "layers.x.mlp.up_proj.weight"),
            ("model", "model"),
            ("modelé", "modelé"),
        ];
        assert_renamed(&names_of("llama", ""), &pairs);
    }

    #[test]
    fn blocks_and_old_norm_names_are_recognized() {
        let names = names_of("llama", "");
        assert_eq!(block_of("model.layers.12.self_attn.q_norm.weight", &names), Some(12));
        assert_eq!(block_of("layers.3.x", &names), Some(3));
        assert_eq!(block_of("model.embed_tokens.weight", &names), None);
        let norm = norm_of_gamma("layers.0.input_layernorm.gamma", &names);
        assert_eq!(norm.as_deref(), Some("model.layers.0.input_layernorm.weight"));
        assert_eq!(norm_of_gamma("model.layers.0.mlp.up_proj.gamma", &names), None);
    }
    /// Published GPT-2 has no prefix, and Pythia another name of the head.
    #[test]
    fn names_of_other_bases_become_those_of_transformers() {
        let gpt2 = names_of("gpt2", r#", "n_embd": 8, "n_head": 1, "n_layer": 1"#);
        let pairs = [
            ("wte.weight", "transformer.wte.weight"),
            ("wpe.weight", "transformer.wpe.weight"),
            ("h.11.attn.c_attn.bias", "transformer.h.11.attn.c_attn.bias"),
            ("transformer.h.0.ln_1.weight", "transformer.h.0.ln_1.weight"),
            ("h.0.attn.bias", "h.0.attn.bias"),
        ];
        assert_renamed(&gpt2, &pairs);
        assert_eq!(block_of("h.0.attn.bias", &gpt2), Some(0));
        assert_eq!(block_of("transformer.h.7.ln_2.bias", &gpt2), Some(7));
        let neox = names_of("gpt_neox", r#", "rotary_pct": 0.5"#);
        let pairs = [
            ("embed_out.weight", "lm_head.weight"),
            ("layers.2.attention.query_key_value.weight", "gpt_neox.layers.2.attention.query_key_value.weight"),
            ("gpt_neox.layers.2.attention.masked_bias", "gpt_neox.layers.2.attention.masked_bias"),
        ];
        assert_renamed(&neox, &pairs);
        assert_eq!(block_of("gpt_neox.layers.2.attention.masked_bias", &neox), Some(2));
    }

    #[test]
    fn experts_have_numbers_in_their_names() {
        let names = names_of("mixtral", r#", "num_local_experts": 3"#);
        let pairs = [
            ("layers.2.block_sparse_moe.gate.weight", "model.layers.2.block_sparse_moe.gate.weight"),
            ("layers.2.block_sparse_moe.experts.11.w3.weight", "model.layers.2.block_sparse_moe.experts.11.w3.weight"),
            ("layers.2.block_sparse_moe.experts.x.w3.weight", "layers.2.block_sparse_moe.experts.x.w3.weight"),
            ("layers.2.block_sparse_moe.experts..w3.weight", "layers.2.block_sparse_moe.experts..w3.weight"),
            ("layers.2.block_sparse_moe.experts.1.w4.weight", "layers.2.block_sparse_moe.experts.1.w4.weight"),
            ("layers.2.mlp.up_proj.weight", "layers.2.mlp.up_proj.weight"),
        ];
        assert_renamed(&names, &pairs);
    }

    #[test]
    fn text_model_is_found_next_to_images() {
        let names = names_of("gemma3_text", "");
        let pairs = [
            ("language_model.model.layers.3.self_attn.q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
            ("model.language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("layers.3.post_feedforward_layernorm.weight", "model.layers.3.post_feedforward_layernorm.weight"),
            ("vision_tower.vision_model.post_layernorm.weight", "vision_tower.vision_model.post_layernorm.weight"),
        ];
        assert_renamed(&names, &pairs);
        assert_eq!(block_of("model.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight", &names), None);
    }
}
