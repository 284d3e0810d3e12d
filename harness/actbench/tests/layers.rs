//! Modules use each other in one direction: a declared order inside the engine and inside actbench, and no cycle of files in any
//! crate.
#![allow(clippy::unwrap_used, clippy::panic)] // Test helpers may panic like tests.

mod sources;

use std::collections::BTreeMap;

use sources::graph::{Edge, SourceGraph, cycles};
use sources::{SourceFile, assert_none, rust_files};

/// The modules of a crate from the lowest floor to the highest. A module uses modules of lower floors only; two modules of one
/// floor do not know each other.
type Floors = [&'static [&'static str]];

/// The engine: data flows from dialogues to tokens, activations and probes.
const ENGINE_FLOORS: [&[&str]; 10] = [
    &["units", "progress", "python_json"],
    &["error"],
    &["panics", "lfs"],
    &["tokens", "hub"],
    &["data", "import"],
    &["text"],
    &["model"],
    &["plan"],
    &["eager"],
    &["probe"],
];

/// The benchmark.
const FLOORS: [&[&str]; 14] = [
    // The error type.
    &["error"],
    // Files that appear whole or not at all.
    &["atomic_file"],
    // Which existing files a command may replace, and what is shown while it works.
    &["own_output", "progress"],
    // What is run: tasks, methods, settings, metrics; and which part of it.
    &["case", "shard"],
    // Which GPUs there are, and which a run uses.
    &["devices"],
    // What the machine is, and what a process takes of it.
    &["measure"],
    // Durations and sizes for people.
    &["quantities"],
    // What a result file keeps.
    &["results"],
    // The benchmark's body.
    &["workload"],
    // A case in a process of its own.
    &["runner"],
    // Predictions, sizes from which lazy is better, many runs, runs as the cases of a gate.
    &["planner", "crossover", "matrix", "gate_adapter"],
    // All of it as text.
    &["report"],
    &["commands"],
    &["cli"],
];

/// Crates whose files form no cycle.
const CRATES: [&str; 8] = [
    "fixtures",
    "kernels",
    "kernels/check",
    "harness/activations",
    "harness/pairgate",
    "harness/actbench",
    "benches",
    "fuzz",
];

/// Cycles of files that stay, each with its crate and its reason; one that is cut must leave this list.
const ALLOWED_CYCLES: [(&str, &[&str], &str); 0] = [];

fn graph_of(files: &[SourceFile], crate_directory: &str) -> SourceGraph {
    let prefix = format!("{crate_directory}/src/");
    let own = files.iter().filter_map(|file| Some((file.name.strip_prefix(&prefix)?, file.text.as_str())));
    SourceGraph::new(own)
}

/// The crates with a declared order.
const ORDERED: [(&str, &Floors); 2] = [("harness/activations", &ENGINE_FLOORS), ("harness/actbench", &FLOORS)];

fn floor_of(floors: &Floors, module: &str) -> Option<usize> {
    floors.iter().position(|floor| floor.contains(&module))
}

/// The edges between different modules that do not lead down, a line each, with the file and line that use the module.
fn forbidden_edges(floors: &Floors, edges: &[Edge]) -> Vec<String> {
    let mut first_uses: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for Edge { from, to, line } in edges {
        let leads_down = match (floor_of(floors, &from[0]), floor_of(floors, &to[0])) {
            (Some(user), Some(used)) => user > used,
            _ => true, // A module without a floor fails in a test of its own.
        };
        if from[0] != to[0] && !leads_down {
            let place = format!("{}:{line} uses {}", from.join("::"), to.join("::"));
            first_uses.entry((&from[0], &to[0])).or_default().push(place);
        }
    }
    let line = |((from, to), places): ((&str, &str), Vec<String>)| format!("{from} -> {to}: {}", places.join("; "));
    first_uses.into_iter().map(line).collect()
}

/// Every cycle of files, its members in order. That a file uses a module it lies in does not count: a module's head
/// declares what its files share, and composes them.
fn file_cycles(graph: &SourceGraph) -> Vec<Vec<String>> {
    let edges = graph.edges().into_iter().filter(|edge| !edge.from.starts_with(&edge.to));
    cycles(&edges.map(|edge| (edge.from.join("::"), edge.to.join("::"))).collect())
}

#[test]
fn every_module_has_one_floor() {
    for (crate_directory, floors) in ORDERED {
        let modules = graph_of(&rust_files(), crate_directory).modules();
        assert!(modules.len() > 8, "the modules were not found: {modules:?}");
        let places = |module: &String| floors.iter().filter(|floor| floor.contains(&module.as_str())).count();
        let offenders: Vec<String> = modules.into_iter().filter(|module| places(module) != 1).collect();
        assert_none(&offenders, &format!("each module of {crate_directory} has exactly one place in its floors"));
        let known = graph_of(&rust_files(), crate_directory).modules();
        let stale: Vec<String> = floors
            .iter()
            .flat_map(|floor| floor.iter())
            .filter(|module| !known.contains(**module))
            .map(|module| (*module).to_owned())
            .collect();
        assert_none(&stale, &format!("each place in the floors of {crate_directory} is a module"));
    }
}

#[test]
fn modules_use_lower_floors_only() {
    for (crate_directory, floors) in ORDERED {
        let edges = graph_of(&rust_files(), crate_directory).edges();
        assert!(edges.len() > 100, "only {} uses were found in {crate_directory}", edges.len());
        let rule = format!("a module of {crate_directory} uses modules of lower floors only");
        assert_none(&forbidden_edges(floors, &edges), &rule);
    }
}

#[test]
fn files_of_a_crate_form_no_cycle() {
    let files = rust_files();
    let mut offenders = Vec::new();
    let mut allowed: Vec<_> = ALLOWED_CYCLES.to_vec();
    for crate_directory in CRATES {
        for members in file_cycles(&graph_of(&files, crate_directory)) {
            match allowed.iter().position(|(owner, known, _)| *owner == crate_directory && members == **known) {
                Some(position) => drop(allowed.remove(position)),
                None => offenders.push(format!("{crate_directory}: {}", members.join(", "))),
            }
        }
    }
    offenders.extend(allowed.iter().map(|(owner, known, _)| format!("{owner}: {known:?} is allowed and not there")));
    assert_none(&offenders, "files do not use each other in circles");
}

#[test]
fn every_crate_is_checked_for_cycles() {
    let mut manifests: Vec<String> = sources::files_below(&sources::root(), &["toml"])
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .filter_map(|path| path.parent()?.strip_prefix(sources::root()).ok()?.to_str().map(str::to_owned))
        .filter(|directory| !directory.is_empty())
        .collect();
    manifests.retain(|directory| !CRATES.contains(&directory.as_str()));
    assert_none(&manifests, "CRATES names every crate of the workspace");
}

// What follows shows that the checks above fail when they should.

#[test]
fn upward_use_is_found_with_its_line() {
    let graph = SourceGraph::new([
        ("report/mod.rs", "use crate::results::Row;"),
        ("results/mod.rs", "pub mod row;\npub use row::Row;"),
        ("results/row.rs", "pub struct Row;\n\nfn show() { crate::report::render() }"),
    ]);
    assert_eq!(forbidden_edges(&FLOORS, &graph.edges()), ["results -> report: results::row:3 uses report"]);
}

#[test]
fn use_within_one_floor_is_found() {
    let graph = SourceGraph::new([("planner.rs", "use crate::crossover;"), ("crossover.rs", "")]);
    assert_eq!(forbidden_edges(&FLOORS, &graph.edges()), ["planner -> crossover: planner:1 uses crossover"]);
}

#[test]
fn cycle_of_files_is_found() {
    let graph = SourceGraph::new([
        ("report/mod.rs", "pub mod table;\npub mod ablation;"),
        ("report/table.rs", "use super::ablation::render;"),
        ("report/ablation.rs", "fn render() { super::table::style() }"),
        ("report/leaf.rs", "use super::table;"),
    ]);
    assert_eq!(file_cycles(&graph), [["report::ablation", "report::table"]]);
}

#[test]
fn cycle_through_a_head_of_another_module_is_found() {
    let graph = SourceGraph::new([
        ("report/mod.rs", "pub mod table; pub fn render() { table::head() }"),
        ("report/table.rs", "use super::Width; use crate::results;"),
        ("results.rs", "fn show() { crate::report::render() }"),
    ]);
    assert_eq!(file_cycles(&graph), [["report", "report::table", "results"]]);
}

#[test]
fn cycle_of_modules_is_found() {
    let graph =
        SourceGraph::new([("a.rs", "use crate::b::X;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a::{self};")]);
    assert_eq!(file_cycles(&graph), [["a", "b", "c"]]);
}

#[test]
fn path_through_reexport_leads_to_definition() {
    let graph = SourceGraph::new([
        ("lib.rs", "pub use error::Error;"),
        ("error.rs", "pub enum Error {}"),
        ("case.rs", "use crate::shapes::{Square as Renamed, round::*}; fn f() -> crate::Error {}"),
        ("shapes/mod.rs", "mod square;\npub mod round;\npub use self::square::Square;"),
        ("shapes/square.rs", "pub struct Square;"),
        ("shapes/round.rs", "pub struct Circle;"),
    ]);
    let edges: Vec<(String, String)> =
        graph.edges().iter().map(|edge| (edge.from.join("::"), edge.to.join("::"))).collect();
    let expected =
        [("case", "error"), ("case", "shapes::round"), ("case", "shapes::square"), ("shapes", "shapes::square")];
    assert_eq!(edges, expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
}

#[test]
fn comments_strings_and_tests_use_nothing() {
    let text = r##"
        //! [`crate::report`]
        /* crate::report::a /* nested */ crate::report::b */
        const TEXT: &str = "use crate::report;";
        const RAW: &str = r#"crate::report "quoted" "#;
        const QUOTE: char = '"'; fn f<'a>(x: &'a str) { let _ = ('\'', crate::case::Task); }
        #[cfg(test)]
        mod tests { use crate::report::table; }
        #[cfg(test)]
        mod checks;
    "##;
    let graph = SourceGraph::new([
        ("results/mod.rs", text),
        ("results/checks.rs", "use crate::report;"),
        ("case.rs", ""),
        ("report/mod.rs", ""),
    ]);
    let edges = graph.edges();
    assert_eq!(edges, [Edge { from: vec!["results".to_owned()], to: vec!["case".to_owned()], line: 6 }]);
}
