//! `actbench datasets`: the data sets that are known by name, and how files are laid out.

use clap::Args;
use serde_json::{Value, json};

use super::stdout;
use crate::error::{Error, Result};
use crate::report::document::{Table, text_cell, text_table};
use actbench_activations::data::REGISTERED;

/// List the data sets that are built in and the forms in which others are named.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  actbench datasets\n  actbench run --dataset embedded:long --samples 2000")]
pub struct DatasetsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What `--dataset` takes beside the names of the table.
const FORMS: &str = "Files, a dialogue a row with a label of 0 or 1:\n  \
FILE.jsonl      {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...], \"label\": 1}\n  \
FILE.csv        columns messages (JSON, as above) and label, or system, user, assistant and label\n  \
FILE.parquet    columns messages and label\n\
Roles are system, user and assistant; label 1 is what a probe is to find.\n";

/// Runs the command.
///
/// # Errors
/// Never on a system that can print.
pub fn datasets(args: &DatasetsArgs) -> Result<()> {
    let text = match args.json {
        true => {
            let known: Vec<Value> =
                REGISTERED.iter().map(|name| json!({ "name": name, "description": what(name) })).collect();
            serde_json::to_string_pretty(&known).map_err(|error| Error::usage(error.to_string()))? + "\n"
        }
        false => {
            let mut table = Table::new("", &["data set", "what it is"]);
            for name in REGISTERED {
                table.push(vec![text_cell(name), text_cell(what(name))]);
            }
            format!("{}\n{FORMS}", text_table(&table))
        }
    };
    stdout::text(text);
    Ok(())
}

fn what(name: &str) -> &'static str {
    match name {
        "embedded" => "generated dialogues, as many distinct rows as are asked for; the same as embedded:short",
        "embedded:short" => "generated dialogues of two sentences, about 60 tokens",
        "embedded:medium" => "the same with a paragraph, about 150 tokens",
        "embedded:long" => "the same with several turns, about 600 tokens",
        "embedded:mixed" => "half of them short, a third medium, the rest long",
        "repe" => {
            "true statements under an honest and a deceptive system prompt; a local copy by --data-dir, else the hub"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_set_is_described() {
        assert!(REGISTERED.iter().all(|name| !what(name).is_empty()));
    }
}
