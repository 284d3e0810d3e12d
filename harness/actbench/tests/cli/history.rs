//! `actbench history` and `actbench compare` on the file of a real run and on copies of it with other dates and times.

use std::fs;

use crate::runner_support::{Sandbox, stderr, stdout};
use serde_json::{Value, json};

/// A small real run, of which the others are copies.
fn measured() -> (Sandbox, Value) {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--tasks", "train", "--methods", "lazy", "--repetitions", "2", "--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let results = sandbox.results();
    (sandbox, results)
}

/// The same run on hour `hour` of a month, whose times are all about `seconds`.
fn copy(sandbox: &Sandbox, results: &Value, name: &str, hour: usize, seconds: f64) -> String {
    let mut results = results.clone();
    results["environment"]["date"] = json!(format!("2024-05-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24));
    results["environment"]["commit"] = json!(format!("{hour:040x}"));
    for (index, row) in results["rows"].as_array_mut().unwrap().iter_mut().enumerate() {
        row["elapsed_s"] = json!(seconds * (1.0 + 0.001 * index as f64));
    }
    fs::write(sandbox.path(name), serde_json::to_string(&results).unwrap()).unwrap();
    name.to_owned()
}

/// A history of runs whose times scatter by half a percent around each of `levels`.
fn keep(sandbox: &Sandbox, results: &Value, directory: &str, levels: &[(usize, f64)]) {
    let levels: Vec<f64> = levels.iter().flat_map(|(n, level)| vec![*level; *n]).collect();
    let names: Vec<String> = levels
        .iter()
        .enumerate()
        .map(|(hour, level)| {
            let scatter = 1.0 + 0.005 * ((hour * 7 % 5) as f64 - 2.0) / 2.0;
            copy(sandbox, results, &format!("temporary/{hour}.json"), hour, level * scatter)
        })
        .collect();
    let arguments: Vec<&str> =
        ["history", "add", directory].into_iter().chain(names.iter().map(String::as_str)).collect();
    let output = sandbox.output(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), levels.len());
}

#[test]
fn runs_are_added_listed_plotted_and_checked() {
    let (sandbox, results) = measured();
    keep(&sandbox, &results, "kept", &[(15, 0.5), (15, 0.55)]);
    let again = sandbox.output(&["history", "add", "kept", "temporary/3.json"]);
    assert_eq!((again.status.code(), stdout(&again).as_str()), (Some(0), ""));
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    assert_eq!(fs::read_dir(sandbox.path("kept")).unwrap().count(), 30);

    let listed = stdout(&sandbox.output(&["history", "list", "kept"]));
    assert!(listed.contains("20240501T000000Z-000000000000") && listed.contains("train lazy"), "{listed}");
    let series: Value = serde_json::from_str(&stdout(&sandbox.output(&["history", "list", "kept", "--json"]))).unwrap();
    let wall = series.as_array().unwrap().iter().find(|it| it["metric"] == "wall").unwrap();
    assert_eq!((wall["points"].as_array().unwrap().len(), wall["changes"][0]["index"].as_u64()), (30, Some(15)));

    let drawn = sandbox.output(&["history", "plot", "kept", "--out", "plots"]);
    assert_eq!(drawn.status.code(), Some(0), "{}", stderr(&drawn));
    let page = fs::read_to_string(sandbox.path("plots/HISTORY.md")).unwrap();
    assert!(page.contains("+10.0%"), "{page}");
    let charts: Vec<&str> = page.match_indices("](").map(|(at, _)| page[at + 2..].split(')').next().unwrap()).collect();
    assert!(charts.len() >= 4, "{charts:?}");
    for chart in charts {
        let svg = fs::read_to_string(sandbox.path("plots").join(chart)).unwrap();
        roxmltree::Document::parse(&svg).unwrap();
    }

    let recent = sandbox.output(&["history", "check", "kept", "--recent", "20"]);
    assert_eq!(recent.status.code(), Some(1), "{}", stdout(&recent));
    assert!(stdout(&recent).contains("wall, s") && stderr(&recent).contains("for the worse"), "{}", stdout(&recent));
    assert_eq!(sandbox.output(&["history", "check", "kept", "--recent", "5"]).status.code(), Some(0));
}

#[test]
fn stored_result_is_judged_by_history_alone() {
    let (sandbox, results) = measured();
    keep(&sandbox, &results, "kept", &[(12, 0.5)]);
    copy(&sandbox, &results, "base.json", 20, 0.5);
    copy(&sandbox, &results, "same.json", 30, 0.501);
    copy(&sandbox, &results, "slow.json", 31, 0.55);
    let judge = |head: &str, more: &[&str]| {
        let output = sandbox.output(&[&["compare", "base.json", head], more].concat());
        (output.status.code(), stdout(&output))
    };
    let (status, text) = judge("slow.json", &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("pass: 2 judged figures, none of them worse") && text.contains("1.100"), "{text}");
    assert!(text.contains("there is no history"), "{text}");
    assert!(text.contains(" not judged ") && !text.contains("inconclusive"), "{text}");
    assert_eq!(judge("slow.json", &["--strict"]).0, Some(3));
    let (status, text) = judge("same.json", &["--history", "kept"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("past mean") && text.contains(" (12 runs)"), "{text}");
    let (status, text) = judge("slow.json", &["--history", "kept"]);
    assert_eq!(status, Some(1), "{text}");
    let (status, text) = judge("slow.json", &["--history", "kept", "--json"]);
    let comparison: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, comparison["outcome"].as_str(), comparison["n_history"].as_u64()),
        (Some(1), Some("regressed"), Some(12))
    );

    // Another machine: the history is ignored, and the reason names the difference.
    let mut other: Value = serde_json::from_str(&fs::read_to_string(sandbox.path("slow.json")).unwrap()).unwrap();
    other["environment"]["kernel"] = json!("Another 1.0");
    fs::write(sandbox.path("other.json"), other.to_string()).unwrap();
    let (status, text) = judge("other.json", &["--history", "kept"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("figures; the ratios above are advisory"), "{text}");
    assert_eq!(judge("other.json", &["--history", "kept", "--strict"]).0, Some(3));
    assert!(text.contains("the machines differ: kernel") && text.contains("against Another 1.0"), "{text}");
    other["rows"][1]["status"] = json!("killed");
    fs::write(sandbox.path("killed.json"), other.to_string()).unwrap();
    assert_eq!(judge("killed.json", &["--history", "kept"]).0, Some(2));
}

#[test]
fn runs_of_different_models_are_refused() {
    let (sandbox, mut results) = measured();
    keep(&sandbox, &results, "kept", &[(12, 0.5)]);
    copy(&sandbox, &results, "head.json", 30, 0.501);
    results["config"]["model"] = json!("another");
    results["identity"]["weights"] = json!("f".repeat(64));
    copy(&sandbox, &results, "other.json", 20, 0.5);
    for arguments in [&["compare", "other.json", "head.json"][..], &["compare", "other.json", "head.json", "--json"]] {
        let output = sandbox.output(arguments);
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{text}");
        assert!(text.contains("model another against embedded") && text.lines().count() == 1, "{text}");
    }
    // The history of head judges it, whatever base is.
    let output = sandbox.output(&["compare", "other.json", "head.json", "--history", "kept"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn short_history_is_a_note_unless_strict() {
    let (sandbox, results) = measured();
    keep(&sandbox, &results, "kept", &[(11, 0.5)]);
    let check = |more: &[&str]| sandbox.output(&[&["history", "check", "kept"], more].concat());
    let short = check(&[]);
    assert_eq!(short.status.code(), Some(0), "{}", stderr(&short));
    assert!(!stdout(&short).contains("no change found"), "{}", stdout(&short));
    assert!(stdout(&short).contains("too few to detect a change"), "{}", stdout(&short));
    assert!(stderr(&short).contains("note: nothing was checked"), "{}", stderr(&short));
    assert_eq!(check(&["--strict"]).status.code(), Some(3));

    // Eleven runs are enough to judge by, and the outcome names what was judged.
    copy(&sandbox, &results, "base.json", 20, 0.5);
    copy(&sandbox, &results, "same.json", 30, 0.501);
    let output = sandbox.output(&["compare", "base.json", "same.json", "--history", "kept", "--strict"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("pass: no figure is worse"), "{}", stdout(&output));

    // A figure that older files lack is named, and fails nothing.
    for hour in 0..11 {
        let path = sandbox.path(&format!("temporary/{hour}.json"));
        let mut older: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for row in older["rows"].as_array_mut().unwrap() {
            row["extra"].as_object_mut().unwrap().remove("peak_anonymous_mb").unwrap();
        }
        fs::write(&path, older.to_string()).unwrap();
        assert_eq!(sandbox.output(&["history", "add", "older", path.to_str().unwrap()]).status.code(), Some(0));
    }
    let compare =
        |more: &[&str]| sandbox.output(&[&["compare", "base.json", "same.json", "--history", "older"], more].concat());
    let output = compare(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("none of them worse; 1 not judged"), "{}", stdout(&output));
    assert!(stderr(&output).contains("note: 1 figure not judged"), "{}", stderr(&output));
    assert_eq!(compare(&["--strict"]).status.code(), Some(3));
}

#[test]
fn latest_runs_that_cannot_show_a_change_are_named() {
    let (sandbox, results) = measured();
    // However large a change is: of 16 runs, the latest 4 are the same in one of 910 permutations.
    keep(&sandbox, &results, "kept", &[(12, 0.5), (4, 0.75)]);
    let check = sandbox.output(&["history", "check", "kept"]);
    let text = stdout(&check);
    assert_eq!(check.status.code(), Some(0), "{text}");
    let unjudged = " series: the latest 4 runs cannot be judged yet; with 12 runs before it, a change needs at least 5 runs \
                    from it on\n";
    assert!(text.starts_with("no change found\n") && text.ends_with(unjudged), "{text}");
}

#[test]
fn scattered_history_is_inconclusive_without_strict() {
    let (sandbox, results) = measured();
    keep(&sandbox, &results, "kept", &[(1, 0.5), (1, 0.9)].repeat(6));
    copy(&sandbox, &results, "base.json", 20, 0.5);
    copy(&sandbox, &results, "head.json", 30, 0.7);
    let output = sandbox.output(&["compare", "base.json", "head.json", "--history", "kept"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("inconclusive: 1 of ") && text.contains("past runs scatter"), "{text}");
    assert!(!text.contains("advisory"), "{text}");
}

#[test]
fn invalid_history_is_refused_with_its_path() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).unwrap();
    fs::write(sandbox.path("odd.json"), "{}").unwrap();
    let refused = |arguments: &[&str], name: &str| {
        let output = sandbox.output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.starts_with("error: ") && text.contains(name) && text.lines().count() == 1, "{text}");
    };
    refused(&["history", "list", "absent"], "absent");
    refused(&["history", "add", "kept", "odd.json"], "odd.json");
    refused(&["history", "add", "odd.json", "odd.json"], "odd.json: is a file; the first argument is the directory");
    refused(&["history", "plot", "empty", "--out", "plots"], "empty");
    refused(&["compare", "odd.json", "odd.json"], "odd.json");
    refused(&["compare", "absent.json", "odd.json"], "absent.json");
    let none = sandbox.output(&["history", "list", "empty"]);
    assert_eq!(none.status.code(), Some(0));
    assert!(stdout(&none).contains("history add"), "{}", stdout(&none));
    let check = sandbox.output(&["history", "check", "empty"]);
    assert_eq!(check.status.code(), Some(0));
    assert!(stderr(&check).contains("nothing was checked"), "{}", stderr(&check));
    assert_eq!(sandbox.output(&["history", "check", "empty", "--strict"]).status.code(), Some(3));
    assert!(!sandbox.path("kept").exists() && !sandbox.path("plots").exists());
}
