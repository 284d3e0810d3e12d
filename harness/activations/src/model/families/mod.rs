//! Families of models: each turns Hugging Face's `config.json` into a [`DecoderSpec`], checked once.
//!
//! `entries` reads single entries, `rope` rotary settings and `decoder` the shape that most families share; `keys` judges the keys
//! that a family does not know. A family is a file: its defaults are those of its configuration class in transformers 5.24, and
//! what it computes is its modeling file.

mod decoder;
mod entries;
mod experts;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod keys;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope;
mod smollm3;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value};

use super::spec::DecoderSpec;
use crate::error::{Error, Result};
use crate::lfs;
use crate::python_json;
use entries::Entries;

/// A family of models.
struct Family {
    /// transformers' `model_type`, by which the family is named in lists. Others with the same decoder follow.
    model_types: &'static [&'static str],
    /// Classes that tell the family where a file has no `model_type`.
    classes: &'static [&'static str],
    /// One model of it, in messages.
    title: &'static str,
    /// Published models, for the table of supported families.
    models: &'static str,
    /// What it has besides the parts of a Llama, for the same table.
    differs: &'static str,
    /// The keys of [`keys`] that it reads or rightly ignores.
    handled: &'static [&'static str],
    /// Whether the other keys of [`keys`] are warnings; they are errors otherwise.
    others_are_warnings: bool,
    /// The object to read instead of the file's.
    settings: Option<ReadSettings>,
    /// Reads the decoder.
    read: fn(&Entries<'_>) -> Result<DecoderSpec, String>,
}

/// Gives the object that describes the text model, with defaults where the family has them for every key.
type ReadSettings = fn(&Map<String, Value>) -> Result<Map<String, Value>, String>;

/// All families, in the order of the list in errors.
static FAMILIES: [Family; 14] = [
    llama::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    olmo2::FAMILY,
    smollm3::FAMILY,
    gpt_neox::FAMILY,
    gpt2::FAMILY,
];

/// Model types that are known but not computed, with the part that is missing.
const REFUSED: [(&str, &str); 22] = [
    ("qwen2_moe", MOE),
    ("gpt_oss", MOE),
    ("olmoe", MOE),
    ("phimoe", MOE),
    ("granitemoe", MOE),
    ("llama4", MOE),
    ("llama4_text", MOE),
    ("deepseek_v2", MOE),
    ("deepseek_v3", MOE),
    ("glm4_moe", MOE),
    ("gemma3n", "embeddings of each layer"),
    ("gemma3n_text", "embeddings of each layer"),
    ("gemma4", "embeddings of each layer"),
    ("gemma4_text", "embeddings of each layer"),
    ("qwen3_next", LINEAR),
    ("qwen3_5", LINEAR),
    ("qwen3_5_text", LINEAR),
    ("qwen3_5_moe", LINEAR),
    ("mamba", LINEAR),
    ("jamba", LINEAR),
    ("ministral", "windows in some layers"),
    ("mistral3", "images"),
];

const MOE: &str = "a mixture of experts";
const LINEAR: &str = "layers without softmax attention";

/// The table of supported families, in Markdown.
pub fn support_table() -> String {
    let header = "| models | `model_type` | beyond a Llama |\n|---|---|---|\n".to_owned();
    FAMILIES.iter().fold(header, |table, family| {
        let types = family.model_types.join("`, `");
        format!("{table}| {} | `{types}` | {} |\n", family.models, family.differs)
    })
}

impl DecoderSpec {
    /// Parses and checks the `config.json` in `text`; `origin` names the file in errors. Keys that transformers ignores for the family
    /// although they matter elsewhere are warnings for a Llama and errors for the others.
    ///
    /// # Errors
    /// Not JSON, another architecture, a missing or impossible entry, or a key that asks for another forward pass.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let (spec, warnings) = read(text, origin)?;
        for warning in warnings {
            tracing::warn!("{origin}: {warning}");
        }
        Ok(spec)
    }
}

/// [`DecoderSpec::parse`] with the warnings as text, each without its origin.
fn read(text: &str, origin: &str) -> Result<(DecoderSpec, Vec<String>)> {
    let fail = |what: String| Error::input(origin, what);
    lfs::reject_pointer(Path::new(origin), text.as_bytes())?;
    let value =
        python_json::parse(text).map_err(|error| fail(format!("not valid JSON: {error}; download the file again")))?;
    let family = find_family(&value).map_err(fail)?;
    let config = value.as_object().ok_or_else(|| fail("not an object; download the file again".to_owned()))?;
    family.read_config(config).map_err(fail)
}

impl Family {
    fn read_config(&self, config: &Map<String, Value>) -> Result<(DecoderSpec, Vec<String>), String> {
        keys::refuse_unsupported(config)?;
        let settings = match self.settings {
            None => Cow::Borrowed(config),
            Some(settings) => Cow::Owned(settings(config)?),
        };
        keys::refuse_unsupported(&settings)?;
        let entries = Entries::new(self.title, &settings);
        let spec = (self.read)(&entries)?;
        let shape =
            keys::Shape { config: &settings, head_dim: spec.head_dim, max_positions: spec.max_position_embeddings };
        let mut warnings = entries.into_warnings();
        if let Some(found) = keys::unhandled(&shape, self.handled) {
            let title = self.title;
            if !self.others_are_warnings {
                return Err(format!("{title} does not have {found}: check that the model is {title}"));
            }
            warnings.push(format!("{title} ignores {found}: check that the model is {title}"));
        }
        Ok((spec, warnings))
    }
}

/// The family of a configuration: that of its `model_type`, or of its class where it has none.
fn find_family(value: &Value) -> Result<&'static Family, String> {
    let classes: Vec<&str> =
        value["architectures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let model_type = value["model_type"].as_str();
    let is_named = |family: &&Family| match model_type {
        Some(model_type) => family.model_types.contains(&model_type),
        None => classes.iter().any(|class| family.classes.contains(class)),
    };
    if let Some(family) = FAMILIES.iter().find(is_named) {
        return Ok(family);
    }
    let found = model_type.map(str::to_owned).unwrap_or_else(|| classes.join(", "));
    let missing = REFUSED.iter().find(|(refused, _)| *refused == found).map(|(_, missing)| format!(" ({missing})"));
    let found = if found.is_empty() { "none named".to_owned() } else { format!("'{found}'") };
    let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types.iter().copied()).collect();
    Err(format!(
        "unknown architecture {found}{}: the supported values of 'model_type' are {}",
        missing.unwrap_or_default(),
        known.join(", ")
    ))
}
