//! `actbench models`: the models that need no download, and how others are named.

use actbench_fixtures::presets::PRESETS;
use actbench_kernels::DType;
use clap::Args;
use serde_json::{Value, json};

use super::stdout;
use crate::error::{Error, Result};
use crate::report::document::{Table, TableCell, number_cell, text_cell, text_table, whole_cell};

/// List the models that are built in and the forms in which others are named.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  actbench models\n  actbench run --model synthetic:llama-3.2-1b --samples 100")]
pub struct ModelsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What `--model` takes beside the names of the table.
const FORMS: &str = "The embedded model is the one without --model; it has the shape of synthetic:tiny.\n\
Weights of synthetic models are made up: they answer how fast and how large, and nothing about\n\
what a model knows.\n\n\
Other models, Llama architecture:\n  \
ORGANISATION/NAME    from the Hugging Face hub, or its cache with HF_HUB_OFFLINE=1\n  \
DIRECTORY            with config.json, tokenizer.json and .safetensors files\n  \
FILE.gguf            read as it is; `actbench import` makes a directory of it\n";

/// Runs the command.
///
/// # Errors
/// Never on a system that can print.
pub fn models(args: &ModelsArgs) -> Result<()> {
    let text = match args.json {
        true => {
            let models: Vec<Value> = presets().map(|it| json!({
                "name": it.name, "layers": it.layers, "hidden_size": it.hidden_size, "parameters": it.parameters,
            })).collect();
            serde_json::to_string_pretty(&models).map_err(|error| Error::usage(error.to_string()))? + "\n"
        }
        false => {
            let mut table = Table::new("", &["model", "#layers", "#hidden size", "#parameters", "#MB in bf16"]);
            for it in presets() {
                table.push(it.line());
            }
            format!("{}\n{FORMS}", text_table(&table))
        }
    };
    stdout::text(text);
    Ok(())
}

/// A preset as it is listed.
struct Listed {
    name: String,
    layers: usize,
    hidden_size: usize,
    parameters: usize,
}

impl Listed {
    fn line(&self) -> Vec<TableCell> {
        let mebibytes = (self.parameters * DType::Bf16.size()) as f64 / f64::from(1 << 20);
        vec![
            text_cell(&self.name),
            whole_cell(self.layers),
            whole_cell(self.hidden_size),
            whole_cell(self.parameters),
            number_cell(Some(mebibytes), crate::report::format::mebibytes),
        ]
    }
}

fn presets() -> impl Iterator<Item = Listed> {
    PRESETS.iter().map(|preset| Listed {
        name: format!("synthetic:{}", preset.name),
        layers: preset.shape.n_layers,
        hidden_size: preset.shape.hidden_size,
        parameters: preset.shape.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum(),
    })
}
