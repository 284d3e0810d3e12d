//! `actbench report` and `actbench recommend` on the files of real runs, and what they say of files that are none.

use std::fs;

use crate::runner_support::{SMALL, Sandbox, stderr, stdout};
use serde_json::Value;

/// A run of so many samples, its result file in the folder `cells`.
fn measure(sandbox: &Sandbox, samples: &str, more: &[&str]) {
    fs::create_dir_all(sandbox.path("cells")).unwrap();
    let output = format!("cells/{samples}.json");
    let fixed = ["--samples", samples, "--repetitions", "2", "--quiet", "--output", &output];
    let settings: Vec<&str> = SMALL[2..].to_vec();
    let result = sandbox.output(&[&["run"], &settings[..], &fixed, more].concat());
    assert!(result.status.code().is_some_and(|code| code < 2), "{}", stderr(&result));
}

#[test]
fn a_folder_of_results_becomes_a_report_and_a_recommendation() {
    let sandbox = Sandbox::new();
    measure(&sandbox, "20", &[]);
    measure(&sandbox, "40", &[]);
    // What else lies in the folder of a matrix is no result file and no trouble.
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
        "## Failures and memory that ran out",
        "## Where lazy begins to win",
        "## Recommendation",
        "## Attachments",
    ] {
        assert!(text.contains(section), "{section} is not in {text}");
    }
    // Every file that the Markdown names beside itself is there, results apart, which are named as they were given.
    for name in text.match_indices("](").map(|(at, _)| text[at + 2..].split(')').next().unwrap()) {
        let folder = if name.starts_with("cells/") { "" } else { "made/report" };
        assert!(sandbox.path(folder).join(name).is_file(), "{name}");
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
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let evidence: Vec<usize> =
        told["recommendations"].as_array().unwrap().iter().map(|it| it["evidence"].as_array().unwrap().len()).collect();
    assert_eq!(evidence, [2, 2, 0, 0, 0, 0, 0, 0, 0]);
    let sizes: Vec<&Value> = told["crossover"].as_array().unwrap().iter().map(|it| &it["sizes"]).collect();
    assert_eq!(sizes, vec![&serde_json::json!([20, 40]); 6]);
    let text = stdout(&sandbox.output(&["recommend", "cells"]));
    assert!(text.contains("one GPU") && text.contains("several GPUs") && text.contains("not measured"), "{text}");
}

#[test]
fn a_sweep_keeps_the_score_of_each_of_its_probes() {
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

/// What is said of arguments that are refused, in one line.
#[track_caller]
fn refusal(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = sandbox.output(arguments);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{}", stderr(&output));
    let told = stderr(&output);
    assert_eq!(told.lines().count(), 1, "{told}");
    told.trim_end().to_owned()
}

#[test]
fn files_that_are_no_results_are_refused_by_name() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).unwrap();
    fs::write(sandbox.path("other.json"), "{\"schema\": \"other/7\"}").unwrap();
    fs::write(sandbox.path("bare.json"), "[1, 2]").unwrap();
    fs::write(sandbox.path("torn.json"), "{\"schema\": ").unwrap();
    fs::write(sandbox.path("half.json"), "{\"schema\": \"actbench/1\", \"rows\": []}").unwrap();
    let told = |name: &str| refusal(&sandbox, &["report", name, "--out", "report"]);
    insta::assert_snapshot!(
        ["absent.json", "empty", "other.json", "bare.json", "torn.json", "half.json"].map(told).join("\n"),
        @r##"
error: cannot read absent.json: No such file or directory (os error 2)
error: empty: holds no result file; name the folder that `actbench matrix` wrote to
error: other.json: has the schema 'other/7'; name a file that `actbench run --output` wrote (actbench/1)
error: bare.json: names no schema; name a file that `actbench run --output` wrote (actbench/1)
error: torn.json: is not JSON: EOF while parsing a value at line 1 column 11
error: half.json: is no whole result file: missing field `config`; run it again
"##
    );
    let bounds = ["recommend", "other.json", "--medium-from", "10", "--large-from", "10"];
    insta::assert_snapshot!(refusal(&sandbox, &bounds), @r##"
error: --medium-from 10 must be below --large-from 10
"##);
    assert!(refusal(&sandbox, &["report", "--out", "report"]).contains("<RESULTS>..."));
    assert!(!sandbox.path("report").exists());
}
