//! `actbench datasets`: the data sets known by name, and the layout of data files.

use clap::Args;
use serde_json::{Value, json};

use super::stdout;
use crate::error::Result;
use crate::report::document::{Table, text_cell, text_table};
use actbench_activations::data::REGISTERED;

/// List the built-in data sets, and how to name others.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  actbench datasets\n  actbench run --dataset embedded:long --samples 2000")]
pub struct DatasetsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The other values of `--dataset`.
const FILE_FORMATS: &str = "Files, one dialogue per row with a label of 0 or 1:\n  \
FILE.jsonl      {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...], \"label\": 1}\n  \
FILE.csv        columns messages (JSON, as above) and label, or system, user, assistant and label\n  \
FILE.parquet    columns messages and label\n\
Roles are those of the model's chat template; tokens of the role assistant are\n\
pooled. Label 1 is the class that a probe should detect. Further keys of messages\n\
(tool_calls, reasoning_content) and the keys tools, documents and\n\
chat_template_kwargs of a row reach the chat template as in transformers.\n";

/// Prints the list.
///
/// # Errors
/// A fault of actbench: the list is always valid JSON.
pub fn datasets(args: &DatasetsArgs) -> Result<()> {
    let text = if args.json {
        let known: Vec<Value> =
            REGISTERED.iter().map(|name| json!({ "name": name, "description": description(name) })).collect();
        stdout::json(&known)?
    } else {
        let mut table = Table::new("", &["data set", "description"]);
        for name in REGISTERED {
            table.push(vec![text_cell(name), text_cell(description(name))]);
        }
        format!("{}\n{FILE_FORMATS}", text_table(&table, stdout::terminal_width()))
    };
    stdout::text(text);
    Ok(())
}

fn description(name: &str) -> &'static str {
    match name {
        "embedded" => "generated dialogues, all distinct; the same as embedded:short",
        "embedded:short" => "generated dialogues of two sentences, about 60 tokens",
        "embedded:medium" => "generated dialogues with a paragraph, about 150 tokens",
        "embedded:long" => "generated dialogues of several turns, about 600 tokens",
        "embedded:mixed" => "half short, a third medium, the rest long dialogues",
        "repe" => {
            "true statements under an honest and a deceptive system prompt; from --data-dir or the Hugging Face hub"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_set_has_a_description() {
        assert!(REGISTERED.iter().all(|name| !description(name).is_empty()));
    }
}
