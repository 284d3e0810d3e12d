//! Tensors of quantized models, adapters and older versions, which explain why a tensor is missing.

/// Last parts of names next to a quantized weight: GPTQ and AWQ (`qweight`), compressed-tensors, bitsandbytes, FP8, HQQ, MLX, torchao.
const QUANTIZED: [&str; 21] = [
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight_packed",
    "weight_scale",
    "weight_scale_2",
    "weight_scale_inv",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "input_scale",
    "activation_scale",
    "k_scale",
    "v_scale",
    "SCB",
    "weight_format",
    "absmax",
    "quant_map",
    "W_q",
    "qdata",
];

/// Whether the tensor `stored` belongs to a quantized weight.
pub(in crate::model) fn is_quantization(stored: &str) -> bool {
    let last = stored.rsplit('.').next().unwrap_or_default();
    QUANTIZED.contains(&last) || stored.contains(".quant_state.") || last.ends_with("_qdata")
}

/// Whether the tensor `stored` belongs to an adapter of PEFT that is not merged.
fn is_adapter(stored: &str) -> bool {
    [".base_layer.", ".lora_", "base_model.model.", ".modules_to_save."].iter().any(|part| stored.contains(part))
}

/// The reason why the tensor `name` is missing or misshapen, from the names that `names_from` finds by their start. `base` is the base
/// model's prefix: `model.`.
pub(super) fn explain(name: &str, base: &str, names_from: impl Fn(&str) -> Vec<String>) -> Option<String> {
    let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
    let bare = module.strip_prefix(base).unwrap_or(module);
    let prefixes = [String::new(), base.to_owned(), base.repeat(2), format!("base_model.model.{base}")];
    let beside: Vec<String> = prefixes.iter().flat_map(|prefix| names_from(&format!("{prefix}{bare}."))).collect();
    if let Some(found) = beside.iter().find(|found| is_quantization(found)) {
        return Some(format!(
            "its weights are quantized ('{found}'), which is not supported; save the model without quantization"
        ));
    }
    if let Some(found) = beside.iter().find(|found| is_adapter(found)) {
        return Some(format!(
            "its weights are of an adapter that is not merged ('{found}'); merge it (peft's merge_and_unload) and save that"
        ));
    }
    if let Some(found) = stacked_experts(bare, &prefixes, &names_from) {
        return Some(format!(
            "its experts are stacked in one tensor ('{found}'), which is not supported; save the model with save_pretrained of \
             transformers, without save_original_format=False"
        ));
    }
    let gamma = beside.iter().find(|found| found.ends_with(".gamma"))?;
    Some(format!("transformers does not read '{gamma}' and would initialize the norm itself; rename it to '{name}'"))
}

/// The tensor of all experts of a block, as transformers 5 has them in memory, if `bare` is a part of experts in that block.
fn stacked_experts(bare: &str, prefixes: &[String], names_from: impl Fn(&str) -> Vec<String>) -> Option<String> {
    if !bare.contains(".experts.") && !bare.ends_with(".gate") {
        return None;
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let until_number = bare.split('.').position(is_number)? + 1;
    let block = bare.split('.').take(until_number).collect::<Vec<_>>().join(".");
    let names = prefixes.iter().flat_map(|prefix| names_from(&format!("{prefix}{block}.")));
    names.into_iter().find(|name| name.ends_with(".experts.gate_up_proj") || name.ends_with(".experts.down_proj"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(stored: &'static str) -> Option<String> {
        explained_of("model.layers.0.mlp.up_proj.weight", "model.", stored)
    }

    fn explained_of(name: &str, base: &str, stored: &str) -> Option<String> {
        explain(name, base, |prefix| {
            [stored].iter().filter(|name| name.starts_with(prefix)).map(|name| (*name).to_owned()).collect()
        })
    }

    #[test]
    fn neighbors_explain_a_missing_tensor() {
        for quantized in ["qweight", "weight_packed", "weight.absmax", "weight.quant_state.bitsandbytes__nf4", "scales"]
        {
            let stored: &'static str = format!("model.layers.0.mlp.up_proj.{quantized}").leak();
            assert!(explained(stored).unwrap().contains("quantized"), "{stored}");
        }
        insta::assert_snapshot!(explained("layers.0.mlp.up_proj.SCB").unwrap(), @"its weights are quantized ('layers.0.mlp.up_proj.SCB'), which is not supported; save the model without quantization");
        insta::assert_snapshot!(explained("base_model.model.model.layers.0.mlp.up_proj.base_layer.weight").unwrap(), @"its weights are of an adapter that is not merged ('base_model.model.model.layers.0.mlp.up_proj.base_layer.weight'); merge it (peft's merge_and_unload) and save that");
        insta::assert_snapshot!(explained("model.layers.0.mlp.up_proj.gamma").unwrap(), @"transformers does not read 'model.layers.0.mlp.up_proj.gamma' and would initialize the norm itself; rename it to 'model.layers.0.mlp.up_proj.weight'");
        assert_eq!(explained("model.layers.0.mlp.up_proj.other"), None);
        assert_eq!(explained("model.layers.0.mlp.down_proj.qweight"), None);
    }

    #[test]
    fn stacked_experts_are_named_with_advice() {
        let stacked = "model.layers.1.mlp.experts.gate_up_proj";
        let explained = |name| explained_of(name, "model.", stacked);
        insta::assert_snapshot!(explained("model.layers.1.mlp.experts.0.gate_proj.weight").unwrap(), @"its experts are stacked in one tensor ('model.layers.1.mlp.experts.gate_up_proj'), which is not supported; save the model with save_pretrained of transformers, without save_original_format=False");
        assert_eq!(
            explained("model.layers.1.block_sparse_moe.gate.weight"),
            explained("model.layers.1.mlp.experts.0.gate_proj.weight")
        );
        for other in [
            "model.layers.0.mlp.experts.0.gate_proj.weight",
            "model.layers.1.self_attn.q_proj.weight",
            "model.norm.weight",
        ] {
            assert_eq!(explained(other), None, "{other}");
        }
    }

    #[test]
    fn neighbors_of_other_bases_explain_too() {
        let name = "transformer.h.0.attn.c_attn.weight";
        for stored in ["h.0.attn.c_attn.qweight", "transformer.h.0.attn.c_attn.qweight"] {
            assert!(explained_of(name, "transformer.", stored).unwrap().contains("quantized"), "{stored}");
        }
        let adapter = "base_model.model.transformer.h.0.attn.c_attn.base_layer.weight";
        assert!(explained_of(name, "transformer.", adapter).unwrap().contains("adapter"));
    }
}
