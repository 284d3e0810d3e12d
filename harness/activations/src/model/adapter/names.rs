//! Names of an adapter's tensors: `base_model.model.MODULE.lora_A.weight` and the others that PEFT writes.

/// Stands before the name that a module has in the base model.
const PREFIX: &str = "base_model.model.";

/// The role of a tensor in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TensorRole {
    /// The first factor of a projection, `[rank, in_features]`.
    FirstFactor,
    /// The second factor of a projection, `[out_features, rank]`.
    SecondFactor,
    /// The first factor of an embedding, `[rank, rows]`.
    FirstOfEmbedding,
    /// The second factor of an embedding, `[width, rank]`.
    SecondOfEmbedding,
    /// A weight that replaces the base model's.
    Weight,
    /// A bias that replaces the base model's.
    Bias,
}

/// The last parts of names, each with its role. An adapter's own name may follow the factor: `lora_A.default.weight`.
const FACTORS: [(&str, &str, TensorRole); 4] = [
    (".lora_A", ".weight", TensorRole::FirstFactor),
    (".lora_B", ".weight", TensorRole::SecondFactor),
    (".lora_embedding_A", "", TensorRole::FirstOfEmbedding),
    (".lora_embedding_B", "", TensorRole::SecondOfEmbedding),
];

/// Splits the name of a tensor into the name of its module in the base model and its role.
///
/// # Errors
/// A name that PEFT's LoRA does not have, with the reason.
pub(super) fn parse(stored: &str) -> Result<(&str, TensorRole), &'static str> {
    let name = stored.strip_prefix(PREFIX).ok_or("does not begin with base_model.model., as PEFT writes it")?;
    for (factor, end, role) in FACTORS {
        let Some((module, rest)) = name.rsplit_once(factor) else { continue };
        let Some(adapter) = rest.strip_suffix(end) else { continue };
        let is_named = adapter.strip_prefix('.').is_some_and(|name| !name.is_empty() && !name.contains('.'));
        if adapter.is_empty() || is_named {
            return Ok((module, role));
        }
    }
    if name.contains(".lora_magnitude_vector") {
        return Err("is of DoRA, which is not supported");
    }
    if name.contains(".lora_") {
        return Err("is of a variant of LoRA that is not supported");
    }
    let (module, role) = match name.rsplit_once('.') {
        Some((module, "weight")) => (module, TensorRole::Weight),
        Some((module, "bias")) => (module, TensorRole::Bias),
        _ => return Err("is neither a factor of LoRA nor a weight or a bias"),
    };
    // The layer inside an adapted one, and the trained copy of a module that is saved whole.
    let module = module.strip_suffix(".base_layer").unwrap_or(module);
    let module = match module.rsplit_once(".modules_to_save") {
        Some((module, "")) => module,
        Some((module, adapter)) if adapter.starts_with('.') => module,
        _ => module,
    };
    Ok((module, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_versions_are_read() {
        use TensorRole::{Bias, FirstFactor, FirstOfEmbedding, SecondFactor, SecondOfEmbedding, Weight};
        let query = "model.layers.0.self_attn.q_proj";
        for (end, role) in [
            ("lora_A.weight", FirstFactor),
            ("lora_B.weight", SecondFactor),
            ("lora_A.default.weight", FirstFactor),
            ("lora_B.my-adapter.weight", SecondFactor),
            ("lora_embedding_A", FirstOfEmbedding),
            ("lora_embedding_B.default", SecondOfEmbedding),
            ("weight", Weight),
            ("bias", Bias),
            ("base_layer.weight", Weight),
            ("base_layer.bias", Bias),
            ("modules_to_save.weight", Weight),
            ("modules_to_save.default.bias", Bias),
        ] {
            let stored = format!("base_model.model.{query}.{end}");
            assert_eq!(parse(&stored), Ok((query, role)), "{stored}");
        }
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        for (stored, reason) in [
            ("model.layers.0.mlp.up_proj.lora_A.weight", "does not begin with"),
            ("base_model.model.a.lora_magnitude_vector", "DoRA"),
            ("base_model.model.a.lora_magnitude_vector.default.weight", "DoRA"),
            ("base_model.model.a.lora_B.bias", "variant"),
            ("base_model.model.a.lora_A.x.y.weight", "variant"),
            ("base_model.model.a.scores", "neither"),
        ] {
            let error = parse(stored).unwrap_err();
            assert!(error.contains(reason), "{stored}: {error}");
        }
    }
}
