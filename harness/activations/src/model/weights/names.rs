//! Names of tensors: which names in a file transformers takes for a tensor of a Llama.
//!
//! From `core_model_loading.rename_source_key` of transformers 5.24 for `LlamaForCausalLM`: the prefix `model.` is removed once where
//! the rest is a tensor of the model, and added where the name with it is one.

/// The base model's prefix.
const PREFIX: &str = "model.";

/// Tensors of a block.
const BLOCK_MODULES: [&str; 9] = [
    "input_layernorm",
    "post_attention_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// The name that transformers gives the tensor `stored` of a file.
pub(super) fn renamed(stored: &str) -> String {
    // transformers removes the prefix with the regular expression `^model.`, whose point is any character.
    let rest = stored.strip_prefix("model").map(|rest| {
        let mut rest = rest.chars();
        rest.next();
        rest.as_str()
    });
    if let Some(rest) = rest.filter(|rest| is_llama(rest)) {
        return rest.to_owned();
    }
    let prefixed = format!("{PREFIX}{stored}");
    if is_llama(&prefixed) { prefixed } else { stored.to_owned() }
}

/// The norm whose weight the tensor `name` would be if its last part were not the old `gamma`.
pub(super) fn norm_of_gamma(name: &str) -> Option<String> {
    let weight = renamed(&format!("{}.weight", name.strip_suffix(".gamma")?));
    let is_norm = ["norm.weight", "input_layernorm.weight", "post_attention_layernorm.weight"]
        .iter()
        .any(|norm| weight.ends_with(norm));
    (is_norm && is_llama(&weight)).then_some(weight)
}

/// The block of the tensor `name`, with or without the prefix.
pub(in crate::model) fn block_of(name: &str) -> Option<usize> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let (block, _) = name.strip_prefix(PREFIX).unwrap_or(name).strip_prefix("layers.")?.split_once('.')?;
    block.parse().ok()
}

/// Whether `name` is a tensor of a Llama of some depth.
fn is_llama(name: &str) -> bool {
    if ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"].contains(&name) {
        return true;
    }
    let Some((block, tensor)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_number = !block.is_empty() && block.bytes().all(|byte| byte.is_ascii_digit());
    let module = tensor.strip_suffix(".weight").or_else(|| tensor.strip_suffix(".bias"));
    is_number && module.is_some_and(|module| BLOCK_MODULES.contains(&module))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair was tried with `LlamaForCausalLM.from_pretrained` of transformers 5.24.
    #[test]
    fn names_become_those_of_transformers() {
        for (stored, expected) in [
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
        ] {
            assert_eq!(renamed(stored), expected);
        }
    }

    #[test]
    fn blocks_and_old_norm_names_are_recognized() {
        assert_eq!(block_of("model.layers.12.self_attn.q_norm.weight"), Some(12));
        assert_eq!(block_of("layers.3.x"), Some(3));
        assert_eq!(block_of("model.embed_tokens.weight"), None);
        let norm = norm_of_gamma("layers.0.input_layernorm.gamma");
        assert_eq!(norm.as_deref(), Some("model.layers.0.input_layernorm.weight"));
        assert_eq!(norm_of_gamma("model.layers.0.mlp.up_proj.gamma"), None);
    }
}
