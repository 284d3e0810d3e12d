//! `actbench models`: the built-in models, and how to name others.

use actbench_activations::model::spec::DecoderSpec;
use actbench_fixtures::presets::{PRESETS, Preset};
use actbench_kernels::DType;
use clap::Args;
use serde_json::{Value, json};

use super::stdout;
use crate::error::Result;
use crate::report::document::{Table, TableCell, number_cell, text_cell, text_table, whole_cell};

/// List the built-in models, and how to name others.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  actbench models\n  actbench run --model synthetic:llama-3.2-1b --samples 100")]
pub struct ModelsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The other values of `--model`.
const MODEL_FORMS: &str = "Without --model, the embedded model is used; it has the shape of synthetic:tiny.\n\
Synthetic models have random weights: use them to measure time and memory, not probe quality.\n\n\
Other models, of a family in the list:\n  \
ORGANIZATION/NAME    from the Hugging Face hub, or from its cache if HF_HUB_OFFLINE=1\n  \
DIRECTORY            with config.json, tokenizer.json and .safetensors files\n  \
FILE.gguf            of most families, read directly; `actbench import` converts it to a directory\n\n\
--adapter DIRECTORY merges a LoRA adapter of PEFT into any of them.\n";

/// Prints the list.
///
/// # Errors
/// A fault of actbench: the list is always valid JSON.
pub fn models(args: &ModelsArgs) -> Result<()> {
    let text = if args.json {
        let model = |it: ListedModel| {
            json!({
                "name": it.name, "family": it.family, "layers": it.layers, "hidden_size": it.hidden_size,
                "parameters": it.parameters,
            })
        };
        stdout::json(&presets()?.into_iter().map(model).collect::<Vec<Value>>())?
    } else {
        let mut table = Table::new("", &["model", "family", "#layers", "#hidden size", "#parameters", "#MiB in bf16"]);
        for it in presets()? {
            table.push(it.line());
        }
        format!("{}\n{MODEL_FORMS}", text_table(&table, stdout::terminal_width()))
    };
    stdout::text(text);
    Ok(())
}

/// A line of the list.
struct ListedModel {
    name: String,
    family: &'static str,
    layers: usize,
    hidden_size: usize,
    parameters: usize,
}

impl ListedModel {
    fn line(&self) -> Vec<TableCell> {
        let mebibytes = (self.parameters * DType::Bf16.size()) as f64 / f64::from(1 << 20);
        vec![
            text_cell(&self.name),
            text_cell(self.family),
            whole_cell(self.layers),
            whole_cell(self.hidden_size),
            whole_cell(self.parameters),
            number_cell(Some(mebibytes), crate::report::format::mebibytes),
        ]
    }
}

fn presets() -> Result<Vec<ListedModel>> {
    let listed = |preset: &Preset| {
        let spec = DecoderSpec::parse(&preset.config_json(), preset.name)?;
        Ok(ListedModel {
            name: format!("synthetic:{}", preset.name),
            family: spec.family,
            layers: spec.n_layers,
            hidden_size: spec.hidden_size,
            parameters: spec.n_parameters(),
        })
    };
    PRESETS.iter().map(listed).collect()
}
