//! `phi3`: Phi 3 and 4, with stacked projections. The divisors of LongRoPE are tensors of the file.

use serde_json::{Value as Json, json};

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules};
use super::keys::ModelKeys;
use super::table::{ATTENTION_OUTPUT, DOWN, INPUT_NORM, MLP_NORM, OUTER, TensorModule, TensorTable, Width};
use super::{ArchitectureModel, GgufArchitecture, rope};
use crate::error::Result;

const SHORT_DIVISORS: &str = "rope_factors_short.weight";
const LONG_DIVISORS: &str = "rope_factors_long.weight";

const RULES: HeadRules = HeadRules { own_width: false, partly_rotated: true, ..HeadRules::GROUPED };

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "phi3",
    tensors: TensorTable {
        title: "Phi 3",
        outer: OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM,
            TensorModule::new("attn_qkv", "self_attn.qkv_proj", &[Width::QueryKeyValue, Width::Hidden]),
            ATTENTION_OUTPUT,
            MLP_NORM,
            TensorModule::new("ffn_up", "mlp.gate_up_proj", &[Width::GateAndUp, Width::Hidden]),
            DOWN,
        ],
        of_config: &[SHORT_DIVISORS, LONG_DIVISORS],
    },
    handled: &["attention.sliding_window", "rope.scaling.attn_factor"],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let keys = ModelKeys { gguf, architecture: ARCHITECTURE.name };
    let common = CommonMetadata::read(&keys, &RULES)?;
    let extents = &common.extents;
    let mut config = common.extents_config("Phi3ForCausalLM", "phi3");
    config["num_key_value_heads"] = extents.n_kv_heads.into();
    config["hidden_act"] = "silu".into();
    config["rms_norm_eps"] = common.eps.into();
    if let Some(theta) = common.rope_theta {
        config["rope_theta"] = theta.into();
    }
    config["partial_rotary_factor"] = rope::rotated_fraction(common.rotary_dim, extents.head_dim).into();
    let original = keys.count("rope.scaling.original_context_length")?;
    if let Some(original) = original {
        config["original_max_position_embeddings"] = original.into();
    }
    // Older converters write 0 for none.
    let window = keys.count("attention.sliding_window")?.filter(|&window| window > 0);
    config["sliding_window"] = window.into();
    config["rope_scaling"] = read_longrope(&keys, &common, original)?;
    Ok(common.model(config))
}

/// The value of `rope_scaling`; null without scaling.
fn read_longrope(keys: &ModelKeys<'_>, common: &CommonMetadata, original: Option<usize>) -> Result<Json> {
    let kind = keys.text("rope.scaling.type")?;
    if let Some(other) = kind.filter(|kind| !["none", "longrope"].contains(kind)) {
        return keys.fail(format!("has rotary scaling of type '{other}', which is not supported"));
    }
    let stored = keys.positive("rope.scaling.attn_factor")?;
    let pairs = common.rotary_dim / 2;
    let short = rope::read_divisors(keys, SHORT_DIVISORS, pairs)?;
    let long = rope::read_divisors(keys, LONG_DIVISORS, pairs)?;
    let (short, long) = match (short, long) {
        (Some(short), Some(long)) => (short, long),
        (None, None) if kind != Some("longrope") && stored.is_none_or(|factor| factor == 1.0) => return Ok(Json::Null),
        _ => return keys.fail(format!("has LongRoPE scaling without '{SHORT_DIVISORS}' or '{LONG_DIVISORS}'")),
    };
    let Some(original) = original.filter(|&original| original > 1) else {
        return keys.fail("has LongRoPE scaling without 'phi3.rope.scaling.original_context_length'");
    };
    // Older releases of transformers read `type`.
    let mut scaling = json!({"type": "longrope", "rope_type": "longrope", "short_factor": short, "long_factor": long});
    let factor = attention_factor(common.extents.max_positions as f64, original as f64);
    // Stored in single precision.
    if let Some(stored) = stored.filter(|stored| (stored - factor).abs() > 1e-6 * factor) {
        scaling["attention_factor"] = stored.into();
    }
    Ok(scaling)
}

/// The factor of cosines and sines that Hugging Face computes if the configuration has none (Ding et al. 2024).
fn attention_factor(max_positions: f64, original: f64) -> f64 {
    if max_positions <= original { 1.0 } else { (1.0 + (max_positions / original).ln() / original.ln()).sqrt() }
}
