//! Checks the metadata of a GGUF file that would change the model's computation: a kind of file that is not a model, a
//! part of a split model, and variants of an architecture that Hugging Face's class does not have.
//!
//! llama.cpp reads some keys for every architecture, so that a file of any architecture can ask for them. A key
//! that this module does not know is reported, because it may be of such a kind.

use super::architectures::GgufArchitecture;
use super::gguf::{GgufFile, GgufValue};
use crate::error::{Error, Result};

/// Keys under the prefix of an architecture that the import reads, or that have no effect on hidden states.
const HARMLESS: [&str; 29] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "tensor_data_layout",
    "expert_count",
    "pooling_type",
    // Both act on the logits only.
    "logit_scale",
    "final_logit_softcapping",
    "decoder_start_token_id",
    "classifier.output_labels",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    // Epsilons of norms that the architecture does not have; it requires its own.
    "attention.layer_norm_epsilon",
    "attention.group_norm_epsilon",
    "attention.group_norm_groups",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    // Parameters of YaRN, which is read, or refused by its type or its factors.
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// Keys under the prefix that change the computation unless they have one of these values (a boolean counts as 0 or 1).
const NEUTRAL: [(&str, &[f64]); 27] = [
    ("attention.causal", &[1.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.output_scale", &[0.0, 1.0]),
    ("attention.temperature_length", &[0.0]),
    ("attention.temperature_scale", &[0.0]),
    ("attention.shared_kv_layers", &[0.0]),
    ("attention.q_lora_rank", &[0.0]),
    ("attention.kv_lora_rank", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    // llama.cpp takes a scale of 0 as absent.
    ("residual_scale", &[0.0, 1.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("use_parallel_residual", &[0.0]),
    ("rescale_every_n_layers", &[0.0]),
    ("swin_norm", &[0.0]),
    ("rope.scaling.attn_factor", &[1.0]),
    ("rope.scaling.yarn_attn_factor", &[1.0]),
    // -1 means the default, which is 0 unless the type is YaRN.
    ("rope.scaling.yarn_ext_factor", &[-1.0, 0.0]),
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
    ("rope.scaling.alpha", &[0.0]),
    ("nextn_predict_layers", &[0.0]),
    ("n_deepstack_layers", &[0.0]),
    ("activation_sparsity_scale", &[0.0]),
    ("altup.num_inputs", &[0.0]),
    ("embedding_length_per_layer_input", &[0.0]),
    ("swiglu_clamp_exp", &[0.0]),
    ("moe_every_n_layers", &[0.0]),
];

/// Checks that the file is a whole model.
///
/// # Errors
/// An adapter, a projector or another kind of file that `general.type` names, or a part of a split model.
pub(super) fn check_kind(gguf: &GgufFile) -> Result<()> {
    let count = gguf.optional("split.count", "an integer", GgufValue::as_u64)?.unwrap_or(1);
    if count > 1 {
        let part = match gguf.optional("split.no", "an integer", GgufValue::as_u64)? {
            Some(index) => format!("part {} of {count}", index.saturating_add(1)),
            None => format!("one of {count} parts"),
        };
        let what = format!(
            "is {part} of a split model; merge the parts with `llama-gguf-split --merge FIRST-PART MERGED.gguf` and \
             import the merged file"
        );
        return Err(Error::file(gguf.path(), what));
    }
    match gguf.optional("general.type", "a string", GgufValue::as_str)? {
        None | Some("model") => Ok(()),
        Some(other) => {
            let hint = match other {
                "adapter" => "; merge it into its base model and import the result",
                _ => "; import the file of the language model",
            };
            Err(Error::file(gguf.path(), format!("is of the type '{other}' (general.type), not a model{hint}")))
        }
    }
}

/// Checks every key under the prefix of `architecture`, whose scores are scaled by `score_scale`.
///
/// # Errors
/// A key with a value that changes the computation in a way that is not supported.
pub(super) fn check_computation(
    gguf: &GgufFile,
    architecture: &GgufArchitecture,
    score_scale: f64,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut unknown = Vec::new();
    let prefix = format!("{}.", architecture.name);
    for (key, value) in gguf.keys_under(&prefix) {
        let name = &key[prefix.len()..];
        if architecture.handled.contains(&name) {
            continue;
        }
        let number = match value {
            GgufValue::Bool(flag) => Some(f64::from(u8::from(*flag))),
            other => other.as_f64(),
        };
        let is_neutral = if let Some((_, neutral)) = NEUTRAL.iter().find(|(known, _)| *known == name) {
            number.is_some_and(|number| neutral.contains(&number))
        } else if name == "attention.scale" {
            // Stored in single precision; 0 means the default.
            number.is_some_and(|scale| scale == 0.0 || (scale - score_scale).abs() <= 1e-6 * score_scale)
        } else if name == "attention.sliding_window" {
            let context = gguf.optional_number(&format!("{prefix}context_length"))?.unwrap_or(0.0);
            number.is_some_and(|window| window == 0.0 || window >= context)
        } else if name.starts_with("expert_") || name.starts_with("rope.dimension_sections") {
            // Without experts, which `expert_count` says, their settings have no effect.
            name.starts_with("expert_") || matches!(value, GgufValue::Array(sections) if sections.iter().all(is_zero))
        } else {
            if !HARMLESS.contains(&name) {
                unknown.push(key);
            }
            true
        };
        if !is_neutral {
            let shown = value.describe();
            let what = format!("has '{key}' = {shown}, which changes the model's computation and is not supported");
            return Err(Error::file(gguf.path(), what));
        }
    }
    if !unknown.is_empty() {
        warnings.push(format!(
            "has metadata that the import does not know and leaves out: {}; if it changes the model's computation, the \
             features are wrong",
            unknown.join(", ")
        ));
    }
    Ok(())
}

fn is_zero(value: &GgufValue) -> bool {
    value.as_f64() == Some(0.0)
}
