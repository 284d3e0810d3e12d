//! Help, completions, and the lists of models and data sets.

use crate::runner_support::{Sandbox, stderr, stdout};
use actbench_fixtures::presets::PRESETS;
use serde_json::Value;

#[track_caller]
fn output_of(arguments: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let output = sandbox.output(arguments);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
    let text = stdout(&output);
    assert!(!text.contains('\u{1b}'), "{arguments:?}: a pipe has no colors: {text:?}");
    text
}

#[test]
fn help_begins_with_examples() {
    let help = output_of(&["--help"]);
    assert!(help.starts_with("Examples:\n  actbench run "), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    for word in ["NO_COLOR", "ACTBENCH_LOG", "3    inconclusive", "130  interrupted"] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
}

/// The commands that `--help` lists under `heading`, in order.
fn listed(help: &str, heading: &str) -> Vec<String> {
    let block = help.split(&format!("\n{heading}:\n")).nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = block.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    commands.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn help_lists_commands_by_group() {
    for flag in ["--help", "-h"] {
        let help = output_of(&[flag]);
        assert_eq!(listed(&help, "Measure"), ["run", "plan", "explain", "profile", "recommend", "report"], "{help}");
        assert_eq!(listed(&help, "Compare"), ["gate", "selftest", "compare", "history"], "{help}");
        let tools = listed(&help, "Tools");
        assert!(tools.contains(&"matrix".to_owned()) && !tools.contains(&"worker".to_owned()), "{tools:?}");
        assert!(listed(&help, "Options").contains(&"-h,".to_owned()), "{help}");
    }
}

#[test]
fn help_of_every_command_has_examples() {
    let help = output_of(&["--help"]);
    let commands = ["Measure", "Compare", "Tools"].iter().flat_map(|heading| listed(&help, heading));
    let names: Vec<String> = commands.filter(|name| name != "help").collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let help = output_of(&[name.as_str(), "--help"]);
        assert!(help.contains("Examples:"), "{name}: {help}");
        let measures = !["import", "models", "datasets", "completions"].contains(&name.as_str());
        assert!(!measures || help.contains("Exit status: "), "{name}: {help}");
    }
}

#[test]
fn no_color_overrides_forced_color() {
    let sandbox = Sandbox::new();
    let printed = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = sandbox.command(arguments).envs(variables.iter().copied()).output().unwrap();
        format!("{}{}", stdout(&output), stderr(&output))
    };
    let forced = ("CLICOLOR_FORCE", "1");
    assert!(
        printed(&["run", "--help"], &[forced]).contains('\u{1b}'),
        "no output has colors, so this test would prove nothing"
    );
    for arguments in [&["run", "--help"][..], &["run", "--bogus"], &["run", "--samples", "1"], &["models"]] {
        let text = printed(arguments, &[forced, ("NO_COLOR", "1")]);
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{arguments:?}: {text:?}");
    }
}

#[test]
fn completions_hide_the_worker() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = output_of(&["completions", shell]);
        assert!(script.contains("recommend") && script.contains("sweep-layers"), "{shell}");
        assert!(!script.contains("worker"), "{shell}");
    }
}

#[test]
fn models_and_datasets_are_listed() {
    let listed = output_of(&["models"]);
    for preset in PRESETS {
        assert!(listed.contains(&format!("synthetic:{}", preset.name)), "{listed}");
    }
    let tiny = listed.lines().find(|line| line.contains("synthetic:tiny ")).unwrap();
    let columns: Vec<&str> = tiny.split_whitespace().collect();
    assert_eq!(columns, ["synthetic:tiny", "llama", "8", "192", "3,935,424", "7.5"]);
    insta::assert_snapshot!(output_of(&["datasets"]), @r#"
 data set          description
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 embedded          generated dialogues, all distinct; the same as embedded:short
 embedded:short    generated dialogues of two sentences, about 60 tokens
 embedded:medium   generated dialogues with a paragraph, about 150 tokens
 embedded:long     generated dialogues of several turns, about 600 tokens
 embedded:mixed    half short, a third medium, the rest long dialogues
 repe              true statements under an honest and a deceptive system prompt; from --data-dir or the Hugging Face hub

Files, one dialogue per row with a label of 0 or 1:
  FILE.jsonl      {"messages": [{"role": "user", "content": "..."}, ...], "label": 1}
  FILE.csv        columns messages (JSON, as above) and label, or system, user, assistant and label
  FILE.parquet    columns messages and label
Roles are those of the model's chat template; tokens of the role assistant are
pooled. Label 1 is the class that a probe should detect. Further keys of messages
(tool_calls, reasoning_content) and the keys tools, documents and
chat_template_kwargs of a row reach the chat template as in transformers.
"#);
    let models: Value = serde_json::from_str(&output_of(&["models", "--json"])).unwrap();
    assert_eq!(models[0]["name"], "synthetic:tiny");
    let models = models.as_array().unwrap();
    assert_eq!(models.len(), PRESETS.len());
    let gemma = models.iter().find(|model| model["name"] == "synthetic:gemma-2-9b").unwrap();
    assert_eq!(gemma["family"], "gemma2");
    assert_eq!((gemma["layers"].as_u64(), gemma["hidden_size"].as_u64()), (Some(42), Some(3584)));
    assert_eq!(gemma["parameters"].as_u64(), Some(9_241_705_984));
    let known: Value = serde_json::from_str(&output_of(&["datasets", "--json"])).unwrap();
    assert_eq!(known.as_array().unwrap().len(), 6);
}

#[test]
fn long_help_has_more_than_short_help() {
    let (short, long) = (output_of(&["profile", "-h"]), output_of(&["profile", "--help"]));
    assert!(short.contains("\nMeasure the time of each operation of a run\n"), "{short}");
    assert!(!short.contains("no result file is written"), "{short}");
    assert!(long.contains("no result file is written"), "{long}");
}
