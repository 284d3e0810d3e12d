//! Invariants of ARCHITECTURE.md that can be read off the sources. The order of modules has a test of its own, `layers.rs`.
#![allow(clippy::unwrap_used, clippy::panic)] // Test helpers may panic like tests.

mod sources;

use std::collections::BTreeSet;
use std::fs;

use sources::graph::written_paths;
use sources::lexer::{Token, TokenKind, tokens, without_tests};
use sources::{SourceFile, assert_none, root, rust_files};

/// Modules that know no device: they get a model, figures or text, and never a backend.
const WITHOUT_DEVICE: [&str; 20] = [
    "harness/activations/src/data",
    "harness/activations/src/text",
    "harness/activations/src/tokens",
    "harness/activations/src/import",
    "harness/activations/src/plan",
    "harness/activations/src/eager",
    "harness/activations/src/probe",
    "harness/actbench/src/case",
    "harness/actbench/src/results",
    "harness/actbench/src/runner",
    "harness/actbench/src/planner",
    "harness/actbench/src/crossover",
    "harness/actbench/src/matrix",
    "harness/actbench/src/report",
    "harness/actbench/src/gate",
    "harness/actbench/src/history",
    "harness/actbench/src/compare",
    "harness/actbench/src/selftest",
    "harness/actbench/src/stats",
    "harness/pairgate/src",
];

/// What a device is reached by.
const DEVICES: [&str; 8] = [
    "CpuBackend",
    "CudaBackend",
    "EmulatedBackend",
    "DriverDevice",
    "Emulator",
    "OpenGpus",
    "actbench_kernels::cpu",
    "actbench_kernels::cuda",
];

/// Files of those modules that may name a device all the same, and why.
const DEVICE_EXCEPTIONS: [(&str, &str); 2] = [
    (
        "harness/actbench/src/planner/calibrate",
        "it measures the rates of this machine, on which predictions of time rest",
    ),
    ("harness/actbench/src/planner/memory", "it asks in which sizes the CPU backend allocates, and opens no device"),
];

/// Modules that compute: no files, no environment, no processes, no clock, no output.
const PURE: [&str; 5] = [
    "harness/activations/src/probe",
    "harness/actbench/src/stats",
    "harness/actbench/src/crossover",
    "harness/actbench/src/report",
    "harness/pairgate/src/stats",
];

/// What files, environment, processes, clocks and output are reached by.
const EFFECTS: [&str; 18] = [
    "fs",
    "File",
    "OpenOptions",
    "tempfile",
    "atomic_file",
    "write_whole",
    "std::env",
    "env::var",
    "std::process",
    "Command",
    "std::net",
    "Instant",
    "SystemTime",
    "jiff",
    "stdin",
    "stdout",
    "println",
    "eprintln",
];

/// Macros that panic where standard output or standard error cannot be written; `pairgate::console` does not.
const PANICKING_MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Which crates of the workspace each crate may depend on. Cargo refuses cycles, but not a needless arrow.
const DEPENDENCIES: [(&str, &[&str]); 7] = [
    ("fixtures", &[]),
    ("kernels", &[]),
    ("harness/activations", &["actbench-fixtures", "actbench-kernels"]),
    ("harness/pairgate", &[]),
    ("harness/actbench", &["actbench-activations", "actbench-fixtures", "actbench-kernels", "pairgate"]),
    ("kernels/check", &["actbench-kernels"]),
    ("kernels-check", &["actbench-kernels"]),
];

/// Whether `code` has the word `a`, or the path `a::b` written out or in a `use` tree.
fn names(code: &[Token], pattern: &str) -> bool {
    let wanted: Vec<&str> = pattern.split("::").collect();
    if wanted.len() == 1 {
        return code.iter().any(|token| token.kind == TokenKind::Word && token.text == pattern);
    }
    written_paths(code).iter().any(|path| path.windows(wanted.len()).any(|window| window == wanted))
}

/// The names among `words` in the code of `source` without its tests.
fn named<'a>(source: &str, words: &[&'a str]) -> Vec<&'a str> {
    let (code, _) = without_tests(&tokens(source));
    words.iter().copied().filter(|word| names(&code, word)).collect()
}

/// Test code in a file of its own: it may read reference values and open devices.
fn is_test_file(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("/test_support.rs")
}

/// Whether a file is part of a program or library that users run: neither a test, an example, a benchmark nor a build script.
fn is_product(name: &str) -> bool {
    let is_aside =
        ["tests", "examples", "benches"].iter().any(|directory| name.split('/').any(|part| part == *directory));
    !is_aside && !is_test_file(name) && !name.ends_with("build.rs")
}

/// The panicking macros that the code of `source` invokes, without its tests.
fn panicking_macros(source: &str) -> Vec<String> {
    let (code, _) = without_tests(&tokens(source));
    let invokes = |pair: &[Token]| pair[1].text == "!" && PANICKING_MACROS.contains(&pair[0].text.as_str());
    code.windows(2).filter(|pair| invokes(pair)).map(|pair| pair[0].text.clone()).collect()
}

fn is_below(file: &SourceFile, directories: &[&str]) -> bool {
    let name = file.name.trim_end_matches(".rs");
    directories.iter().any(|it| name.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The dependencies of a manifest on crates of the workspace, development dependencies included.
fn workspace_dependencies(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().map(str::trim);
    let names = lines.filter(|line| line.starts_with("actbench") || line.starts_with("pairgate"));
    names.filter_map(|line| line.split(['.', ' ', '=']).next()).map(str::to_owned).collect()
}

#[test]
fn every_file_opens_with_a_description() {
    let files = rust_files().into_iter();
    let offenders: Vec<String> = files.filter(|file| !file.text.starts_with("//! ")).map(|file| file.name).collect();
    assert_none(&offenders, "files must open with a `//!` line");
}

#[test]
fn no_file_exceeds_600_lines() {
    let length = |file: &SourceFile| file.text.lines().count();
    let long = rust_files().into_iter().filter(|file| length(file) > 600);
    let offenders: Vec<String> = long.map(|file| format!("{}: {} lines", file.name, length(&file))).collect();
    assert_none(&offenders, "a file has one responsibility and at most 600 lines");
}

#[test]
fn crates_depend_in_one_direction() {
    let mut offenders = Vec::new();
    let mut checked = 0;
    for (directory, allowed) in DEPENDENCIES {
        let Ok(manifest) = fs::read_to_string(root().join(directory).join("Cargo.toml")) else { continue };
        checked += 1;
        // The name of the package itself is not a dependency.
        let body = manifest.split_once("[dependencies]").map_or("", |(_, body)| body);
        let found = workspace_dependencies(body).into_iter().filter(|name| !allowed.contains(&name.as_str()));
        offenders.extend(found.map(|name| format!("{directory} depends on {name}")));
    }
    assert!(checked >= 5, "only {checked} manifests were found");
    assert_none(&offenders, "fixtures, kernels -> activations -> actbench -> benches; pairgate -> actbench");
}

#[test]
fn plans_probes_and_reports_know_no_device() {
    let mut offenders = Vec::new();
    for file in rust_files().iter().filter(|file| is_below(file, &WITHOUT_DEVICE) && !is_test_file(&file.name)) {
        let is_excepted = DEVICE_EXCEPTIONS.iter().any(|(name, _)| is_below(file, &[name]));
        if !is_excepted {
            offenders.extend(named(&file.text, &DEVICES).iter().map(|device| format!("{}: {device}", file.name)));
        }
    }
    assert_none(&offenders, "only models, the workload and the choice of devices know a device");
}

#[test]
fn statistics_and_reports_have_no_effects() {
    let mut offenders = Vec::new();
    for file in rust_files().iter().filter(|file| is_below(file, &PURE) && !is_test_file(&file.name)) {
        offenders.extend(named(&file.text, &EFFECTS).iter().map(|effect| format!("{}: {effect}", file.name)));
    }
    assert_none(&offenders, "statistics, probes, crossover and reports are pure");
}

#[test]
fn no_program_panics_where_its_output_cannot_be_written() {
    let product: Vec<SourceFile> = rust_files().into_iter().filter(|file| is_product(&file.name)).collect();
    assert!(product.len() > 200, "only {} files were found", product.len());
    let mut offenders = Vec::new();
    for file in &product {
        offenders.extend(panicking_macros(&file.text).iter().map(|name| format!("{}: {name}!", file.name)));
    }
    assert_none(&offenders, "programs write through `pairgate::console`, or ignore the error of `writeln!`");
}

#[test]
fn architecture_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut offenders = Vec::new();
    let mut found = 0;
    for library in ["harness/activations", "harness/pairgate", "harness/actbench"] {
        let Ok(text) = fs::read_to_string(root().join(library).join("src/lib.rs")) else { continue };
        let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        for module in modules {
            found += 1;
            // `gate`, `gate/` and `gate::judge` name it.
            if !["`", "/", "::"].iter().any(|end| map.contains(&format!("`{module}{end}"))) {
                offenders.push(format!("{library}: `{module}`"));
            }
        }
    }
    assert!(found > 15, "only {found} modules were found");
    assert_none(&offenders, "ARCHITECTURE.md names each module of the harness in backquotes");
}

/// The cells of the rows of the table in `page` whose header starts with `header`.
fn table_rows<'a>(page: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The parts of `cell` in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn readme_lists_the_families_of_the_code() {
    let table = actbench_activations::model::families::support_table();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&table), "README.md needs this table:\n{table}");
}

#[test]
fn profiling_page_locates_every_operation() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (page, profiled) = (read("docs/profiling.md"), read("kernels/src/profiled/mod.rs"));
    let (ops, gpu) = (read("kernels/benches/ops/main.rs"), read("benches/src/gpu_operations.rs"));
    let tests: Vec<String> =
        ["attention", "attention_scores", "embedding", "experts", "linear", "norms", "rows_and_pools"]
            .iter()
            .flat_map(|module| {
                let text = read(&format!("kernels/tests/cpu/{module}.rs"));
                let functions = text.lines().filter_map(|line| line.strip_prefix("fn ")?.split_once('('));
                functions.map(|(name, _)| format!("{module}::{name}")).collect::<Vec<_>>()
            })
            .collect();
    let rows = table_rows(&page, "| operation | CPU |");
    let mut offenders = Vec::new();
    for row in &rows {
        let [_, cpu, cuda, test, bench, gpu_bench] = row[..] else { panic!("{row:?} has not six cells") };
        let mut expect = |holds: bool, part: &str| offenders.extend((!holds).then(|| format!("{}: {part}", row[0])));
        quoted(cpu).chain(quoted(cuda)).for_each(|file| expect(root().join(file).is_file(), file));
        quoted(test).for_each(|filter| expect(tests.iter().any(|name| name.contains(filter)), filter));
        quoted(bench).for_each(|filter| expect(ops.contains(&format!("benchmark_group(\"{filter}\")")), filter));
        quoted(gpu_bench).for_each(|filter| expect(gpu.contains(filter), filter));
        expect([cpu, cuda, test].iter().all(|cell| quoted(cell).next().is_some()), "a place is missing");
    }
    let listed: BTreeSet<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    let recorded: BTreeSet<&str> =
        profiled.split("record(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
    assert!(recorded.len() > 8, "{recorded:?}");
    assert_eq!(listed, recorded, "the table of docs/profiling.md has the operations of `ProfiledBackend`");
    assert_none(&offenders, "docs/profiling.md names the files, tests and benchmarks of each operation");
}

// What follows shows that the checks above fail when they should.

#[test]
fn device_in_code_is_found() {
    for source in [
        "use actbench_kernels::CpuBackend;",
        "use actbench_kernels::{DType, cpu::{Isa, allocated_bytes}};",
        "fn f() { actbench_kernels::cpu::allocated_bytes(1); }",
        "fn open() -> CudaBackend<DriverDevice> {}",
    ] {
        assert!(!named(source, &DEVICES).is_empty(), "{source}");
    }
    let harmless = "//! CpuBackend\nconst A: &str = \"CpuBackend\";\n#[cfg(test)]\nmod tests { use actbench_kernels::CpuBackend; }";
    assert_eq!(named(harmless, &DEVICES), [""; 0]);
}

#[test]
fn effect_in_code_is_found() {
    for source in [
        "use std::fs; fn f() { fs::read(path) }",
        "use std::env;",
        "use std::{fmt, env};",
        "fn now() { std::time::Instant::now() }",
        "use crate::results::write_whole;",
        "fn f() { tempfile::tempdir() }",
        "fn f() { println!(\"x\") }",
    ] {
        assert!(!named(source, &EFFECTS).is_empty(), "{source}");
    }
    let harmless = "const A: &str = env!(\"CARGO_PKG_VERSION\"); fn instant(file: &str) {} // std::fs";
    assert_eq!(named(harmless, &EFFECTS), [""; 0]);
}

#[test]
fn panicking_macro_is_found() {
    let source = "fn f() { println!(\"x\"); std::eprintln!(); dbg!(1); writeln!(out, \"println!\"); }\n\
                  #[cfg(test)]\nmod tests { fn g() { print!(\"x\") } }";
    assert_eq!(panicking_macros(source), ["println", "eprintln", "dbg"]);
    assert!(is_product("harness/actbench/src/cli.rs") && is_product("kernels/check/src/main.rs"));
    for aside in
        ["kernels/build.rs", "kernels/examples/x/main.rs", "benches/src/lib.rs", "harness/actbench/tests/tidy.rs"]
    {
        assert!(!is_product(aside), "{aside}");
    }
}

#[test]
fn needless_dependency_is_found() {
    let found =
        workspace_dependencies("actbench-kernels.workspace = true\nserde = \"1\"\npairgate = { path = \"..\" }\n");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["actbench-kernels", "pairgate"]);
}

#[test]
fn directory_is_not_a_prefix_of_a_name() {
    let file = |name: &str| SourceFile { name: name.to_owned(), text: String::new() };
    assert!(is_below(&file("harness/actbench/src/stats.rs"), &PURE));
    assert!(is_below(&file("harness/actbench/src/report/chart/xy.rs"), &PURE));
    assert!(!is_below(&file("harness/actbench/src/stats_page.rs"), &PURE));
    assert_eq!(tokens("a // b")[0].kind, TokenKind::Word);
}
