//! `actbench report` and `actbench recommend` on the files of real runs, and on other files.

use std::fs;

use crate::runner_support::{SMALL, Sandbox, stderr, stdout};
use serde_json::Value;

/// Runs with this number of samples; the result file is in the directory `cells`.
fn measure(sandbox: &Sandbox, samples: &str, more: &[&str]) {
    fs::create_dir_all(sandbox.path("cells")).unwrap();
    let output = format!("cells/{samples}.json");
    let fixed = ["--samples", samples, "--repetitions", "2", "--quiet", "--output", &output];
    let settings: Vec<&str> = SMALL[2..].to_vec();
    let result = sandbox.output(&[&["run"], &settings[..], &fixed, more].concat());
    assert!(result.status.code().is_some_and(|code| code < 2), "{}", stderr(&result));
}

#[test]
fn warning_about_the_data_reaches_the_report() {
    let sandbox = Sandbox::new();
    // The same dialogue for all rows, so that test rows are training rows as well.
    let row = |label: usize| {
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}},{{\"role\":\"assistant\",\"content\":\"b\"}}],\
             \"label\":{label}}}\n"
        )
    };
    fs::write(sandbox.path("rows.jsonl"), (0..40).map(|index| row(index % 2)).collect::<String>()).unwrap();
    let settings =
        ["run", "--dataset", "rows.jsonl", "--tasks", "train", "--methods", "lazy", "--repetitions", "1", "-q"];
    let output = sandbox.output(&[&settings, &SMALL[..]].concat());
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let results = sandbox.results();
    let warning = results["input_warnings"][0].as_str().unwrap();
    assert!(warning.contains("test rows have a dialogue that is also a training row"), "{warning}");
    assert!(printed.contains(&format!("warning: {warning}\n")), "{printed}");
    assert_eq!(sandbox.output(&["report", "results.json", "--out", "report"]).status.code(), Some(0));
    let page = fs::read_to_string(sandbox.path("report/REPORT.md")).unwrap();
    assert!(page.contains("warning: ") && page.contains("also a training row"), "{page}");
}

#[test]
fn directory_of_results_becomes_report_and_recommendation() {
    let sandbox = Sandbox::new();
    measure(&sandbox, "20", &[]);
    measure(&sandbox, "40", &[]);
    // Other files in the directory of a matrix are ignored.
    fs::write(sandbox.path("cells/state.json"), "{\"schema\": \"something else\"}").unwrap();
    fs::write(sandbox.path("cells/notes.txt"), "notes").unwrap();

    let output = sandbox.output(&["report", "cells", "--out", "made/report"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = fs::read_to_string(sandbox.path("made/report/REPORT.md")).unwrap();
    for section in [
        "## Environment",
        "## Exact commands",
        "## Result files",
        "## Summary",
        "### train",
        "### sweep",
        "**Time breakdown**",
        "**Bottleneck**",
        "**Memory**",
        "**Metric parity**",
        "## Failures and out-of-memory cases",
        "## Where lazy becomes better",
        "## Recommendation",
        "## Attachments",
    ] {
        assert!(text.contains(section), "{section} is not in {text}");
    }
    // Every linked file exists: next to the Markdown, or for result files at the path that was given.
    for name in text.match_indices("](").map(|(at, _)| text[at + 2..].split(')').next().unwrap()) {
        let directory = if name.starts_with("cells/") { "" } else { "made/report" };
        assert!(sandbox.path(directory).join(name).is_file(), "{name}");
    }
    let page = fs::read_to_string(sandbox.path("made/report/report.html")).unwrap();
    assert!(page.contains("id=\"time-against-samples-1\"") && page.contains("id=\"auroc-1\""), "charts are missing");
    let rows = fs::read_to_string(sandbox.path("made/report/observations.csv")).unwrap();
    assert_eq!(rows.lines().count(), 1 + 2 * 2 * 2 * 2);
    assert_eq!(sandbox.leftovers(), ["cells", "made"]);

    // The same files give the same report, byte for byte, over the old one.
    assert_eq!(sandbox.output(&["report", "cells", "--out", "made/report"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(sandbox.path("made/report/report.html")).unwrap(), page);

    let output = sandbox.output(&["recommend", "cells/20.json", "cells/40.json", "--medium-from", "30", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let recommendation: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let evidence: Vec<usize> = recommendation["recommendations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["evidence"].as_array().unwrap().len())
        .collect();
    assert_eq!(evidence, [1, 1, 1, 1], "train and sweep, each small and medium");
    let sizes: Vec<&Value> = recommendation["crossover"].as_array().unwrap().iter().map(|it| &it["sizes"]).collect();
    assert_eq!(sizes, vec![&serde_json::json!([20, 40]); 6]);
    let text = stdout(&sandbox.output(&["recommend", "cells"]));
    assert!(
        text.contains("Not measured: train on CPU, medium (1,000 to 10,000 samples) and large (from 10,000 samples);"),
        "{text}"
    );
    assert!(!text.contains("one GPU") && text.contains("2 cells, 50 % intervals, 2 blocks"), "{text}");

    // A run counts once, whether its file or a copy of it is given again.
    fs::copy(sandbox.path("cells/40.json"), sandbox.path("copy.json")).unwrap();
    let output = sandbox.output(&["recommend", "cells", "cells/20.json", "copy.json"]);
    let (text, warnings) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{warnings}");
    assert!(text.contains("2 cells, 50 % intervals, 2 blocks"), "{text}");
    assert!(warnings.contains("warning: cells/20.json is given twice; it counts once"), "{warnings}");
    assert!(warnings.contains("warning: copy.json is the same run as cells/40.json; it counts once"), "{warnings}");
}

#[test]
fn sweep_keeps_score_of_each_probe() {
    let sandbox = Sandbox::new();
    // With the 1.0 of the small settings that is three values of C.
    measure(&sandbox, "20", &["--tasks", "sweep", "--methods", "lazy", "--sweep-cs", "0.1,10.0"]);
    let results: Value = serde_json::from_slice(&fs::read(sandbox.path("cells/20.json")).unwrap()).unwrap();
    let extra = &results["rows"][0]["extra"];
    let aurocs: Vec<Vec<f64>> = serde_json::from_value(extra["aurocs"].clone()).unwrap();
    assert_eq!(aurocs.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    let mean = aurocs.concat().iter().sum::<f64>() / 6.0;
    assert!((mean - results["rows"][0]["metric_value"].as_f64().unwrap()).abs() <= 1e-12);
    let best = extra["best_layer"].as_u64().unwrap() as usize;
    assert!(aurocs[best].contains(&extra["best_auroc"].as_f64().unwrap()));
}

/// The one-line error for refused arguments.
#[track_caller]
fn refusal(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = sandbox.output(arguments);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{}", stderr(&output));
    let message = stderr(&output);
    assert_eq!(message.lines().count(), 1, "{message}");
    message.trim_end().to_owned()
}

#[test]
fn file_that_is_not_a_result_is_named() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).unwrap();
    fs::write(sandbox.path("other.json"), "{\"schema\": \"other/7\"}").unwrap();
    fs::write(sandbox.path("bare.json"), "[1, 2]").unwrap();
    fs::write(sandbox.path("torn.json"), "{\"schema\": ").unwrap();
    fs::write(sandbox.path("half.json"), "{\"schema\": \"actbench/1\", \"rows\": []}").unwrap();
    let error_for = |name: &str| refusal(&sandbox, &["report", name, "--out", "report"]);
    insta::assert_snapshot!(
        ["absent.json", "empty", "other.json", "bare.json", "torn.json", "half.json"].map(error_for).join("\n"),
        @r##"
error: cannot read absent.json: No such file or directory (os error 2)
error: empty: contains no result files; name an output directory of `actbench matrix`
error: other.json: has the schema 'other/7'; name a result file of `actbench run --output` (actbench/1)
error: bare.json: has no schema; name a result file of `actbench run --output` (actbench/1)
error: torn.json: is not JSON: EOF while parsing a value at line 1 column 11
error: half.json: is truncated or not a result file: missing field `config`; repeat the run
"##
    );
    let bounds = ["recommend", "other.json", "--medium-from", "10", "--large-from", "10"];
    insta::assert_snapshot!(refusal(&sandbox, &bounds), @r##"
error: --medium-from 10 must be below --large-from 10
"##);
    assert!(refusal(&sandbox, &["report", "--out", "report"]).contains("<RESULTS>..."));
    assert!(!sandbox.path("report").exists());
}
