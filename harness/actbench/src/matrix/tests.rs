//! Parsing files, orders, shards and directories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::directory::{MatrixDirectory, MatrixManifest};
use super::file::{RunFlagParser, RunMatrix};
use super::order::order;
use super::{PRESETS, merge};
use crate::error::{Error, Result};
use crate::shard::Shard;

/// A parser of a few flags.
struct FewFlags;

impl RunFlagParser for FewFlags {
    fn names(&self) -> Vec<String> {
        [
            "model",
            "dataset",
            "samples",
            "layer",
            "sweep-layers",
            "pool",
            "dtype",
            "batch-size",
            "tasks",
            "no-opt",
            "ablate",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn is_switch(&self, name: &str) -> bool {
        name == "ablate"
    }

    fn check(&self, flags: &[String]) -> Result<(), String> {
        let bad = flags.iter().find(|flag| flag.contains("bad"));
        bad.map_or(Ok(()), |flag| Err(format!("{flag} is bad")))
    }

    fn n_layers(&self, model: Option<&str>) -> Result<usize> {
        match model {
            Some("deep") => Ok(32),
            None => Ok(8),
            Some(other) => Err(Error::input(other, "no such model")),
        }
    }

    fn model_location(&self, name: &str) -> String {
        name.to_owned()
    }
}

fn parse(text: &str) -> Result<RunMatrix> {
    RunMatrix::parse(text, "m.toml", &FewFlags)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn grid_expands_with_last_list_fastest() {
    let matrix = parse(
        r#"
        seed = 7
        [settings]
        dataset = "d"
        pool = "last"
        [[grid]]
        models = ["deep"]
        samples = [10, 20]
        layers = [8, "all"]
        [[grid]]
        dataset = "other"
        pools = ["mean", "max"]
        no-opt = ["prefix", "mask"]
        ablate = true
        "#,
    )
    .unwrap();
    assert_eq!(matrix.seed, 7);
    let lines: Vec<String> = matrix.cells.iter().map(|cell| format!("{}: {}", cell.name, cell.text())).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    001-deep-n10-l8: --dataset=d --pool=last --model deep --samples 10 --layer 7 --sweep-layers 8
    002-deep-n10-l32: --dataset=d --pool=last --model deep --samples 10 --layer 31 --sweep-layers 32
    003-deep-n20-l8: --dataset=d --pool=last --model deep --samples 20 --layer 7 --sweep-layers 8
    004-deep-n20-l32: --dataset=d --pool=last --model deep --samples 20 --layer 31 --sweep-layers 32
    005-mean: --ablate --dataset=other --no-opt=prefix --no-opt=mask --pool mean
    006-max: --ablate --dataset=other --no-opt=prefix --no-opt=mask --pool max
    ");
}

#[test]
fn named_layer_stays_and_lists_are_optional() {
    let matrix = parse("[settings]\nlayer = 3\n[[grid]]\nlayers = [4, \"all\"]\n[[grid]]\nsamples = 5\n").unwrap();
    let texts: Vec<String> = matrix.cells.iter().map(super::CellFlags::text).collect();
    assert_eq!(texts, ["--layer=3 --sweep-layers 4", "--layer=3 --sweep-layers 8", "--layer=3 --samples=5"]);
    assert_eq!(parse("grid = []").unwrap().cells, []);
}

#[test]
fn errors_have_line_and_correction() {
    let texts = [
        "samples = [1]",
        "[[grid]]\nsample = [1]",
        "[settings]\n\nquite-unknown = 1\n[[grid]]\n",
        "[grid]\nsamples = [1]",
        "[[grid]]\nlayers = 8",
        "[[grid]]\nlayers = [8,\n0]",
        "[[grid]]\nsamples = []",
        "[[grid]]\nsamples = [1, 1]",
        "[[grid]]\nmodels = [[\"a\"]]",
        "[[grid]]\nmodels = [\"unknown\"]\nlayers = [\"all\"]",
        "[[grid]]\npool = \"bad\"",
        "[[grid]]\npools = [\"mean\",\n  \"bad\"]",
        "[[grid]]\npool = 1979-05-27",
        "seed = \"x\"",
        "settings = 3",
        "grid = [1]",
        "[settings]\nmodel = \"a\n",
        "[settings]",
    ];
    let all: Vec<String> = texts.map(error).to_vec();
    insta::assert_snapshot!(all.join("\n"), @r#"
    m.toml:1: unknown key 'samples' at the top level: use seed, settings, grid
    m.toml:2: unknown key 'sample' in a grid: write samples
    m.toml:3: unknown key 'quite-unknown' in [settings]: use a flag of `actbench run` without its dashes
    m.toml:1: grid must be a list: write [[grid]], with two brackets
    m.toml:2: layers must be a list: write layers = [8, 16, "all"]
    m.toml:3: layers has '0', which is not a number of layers from 1 on: write layers = [8, 16, "all"]
    m.toml:2: samples is empty: write samples = [200, 2000]
    m.toml:2: samples has '1' twice: write samples = [200, 2000]
    m.toml:2: models must be a list of strings or numbers: write models = ["synthetic:llama-3.2-1b", "./smollm2"]
    m.toml:1: unknown: no such model
    m.toml:2: --pool=bad is bad
    m.toml:3: --pool=bad is bad
    m.toml:2: pool must be a string, number, true, false or a list of these
    m.toml:1: seed must be a whole number: write seed = 0
    m.toml:1: settings must be a table: write [settings]
    m.toml:1: a grid must be a table: write [[grid]], followed by its lists, such as samples = [200, 2000]
    m.toml:2: is not TOML: invalid basic string, expected `"`
    m.toml:1: no grid: write [[grid]], followed by its lists, such as samples = [200, 2000]
    "#);
}

#[test]
fn too_many_cells_are_refused() {
    let list = (1..=400).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!("[[grid]]\nsamples = [{list}]\nbatch-sizes = [{list}]\n");
    assert!(error(&text).starts_with("m.toml:1: makes more than 100000 cells"), "{}", error(&text));
}

#[test]
fn presets_exist_and_shards_are_parsed() {
    assert_eq!(PRESETS.map(|(name, _)| name), ["small", "paper"]);
    for bad in ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"] {
        assert!(bad.parse::<Shard>().is_err(), "{bad}");
    }
    assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
}

#[test]
fn directory_resumes_its_own_matrix_only() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("m");
    let matrix = parse("[[grid]]\nsamples = [1, 2]\n").unwrap();
    let manifest = MatrixManifest::new(&matrix, Shard::WHOLE);
    let first = MatrixDirectory::open(&path, &manifest, "text", false).unwrap();
    assert!(MatrixDirectory::open(&path, &manifest, "text", true).unwrap_err().to_string().contains("another process"));
    std::fs::write(first.running_path(&matrix.cells[0]), "half").unwrap();
    assert!(!first.is_finished(&matrix.cells[0]));
    drop(first);
    let error = MatrixDirectory::open(&path, &manifest, "text", false).unwrap_err().to_string();
    assert!(error.contains("--resume"), "{error}");
    let resumed = MatrixDirectory::open(&path, &manifest, "text", true).unwrap();
    assert!(!resumed.running_path(&matrix.cells[0]).exists(), "the file of a killed process is removed");
    drop(resumed);
    let other = MatrixManifest::new(&parse("[[grid]]\nsamples = [1, 3]\n").unwrap(), Shard::WHOLE);
    let error = MatrixDirectory::open(&path, &other, "text", true).unwrap_err().to_string();
    assert!(error.contains("--samples 2") && error.contains("--samples 3"), "{error}");
    std::fs::write(parent.path().join("file"), "").unwrap();
    let error = MatrixDirectory::open(parent.path(), &manifest, "text", true).unwrap_err().to_string();
    assert!(error.contains("has other files"), "{error}");
    let error =
        merge::merge(&[parent.path().to_path_buf()], &parent.path().join("out"), false).unwrap_err().to_string();
    assert!(error.contains("matrix.json"), "{error}");
}

proptest! {
    #[test]
    fn cells_are_the_unique_combinations_of_lists(
        lengths in prop::collection::vec(0usize..4, 6), seed in any::<u32>(), count in 1usize..6,
    ) {
        let axes = ["models", "samples", "layers", "pools", "dtypes", "batch-sizes"];
        let lists = axes.iter().zip(&lengths).filter(|(_, length)| **length > 0).map(|(axis, length)| {
            let values = (1..=*length).map(|value| value.to_string()).collect::<Vec<_>>();
            format!("{axis} = [{}]\n", values.join(", "))
        });
        let text = format!("seed = {seed}\n[[grid]]\n{}", lists.collect::<String>());
        let matrix = parse(&text).unwrap();
        let n: usize = lengths.iter().map(|length| (*length).max(1)).product();
        prop_assert_eq!(matrix.cells.len(), n);
        let names: BTreeSet<&str> = matrix.cells.iter().map(|cell| cell.name.as_str()).collect();
        let flags: BTreeSet<&Vec<String>> = matrix.cells.iter().map(|cell| &cell.flags).collect();
        prop_assert_eq!((names.len(), flags.len()), (n, n));

        // Shards partition one order, and their sizes differ by at most one cell.
        let whole = order(n, matrix.seed, Shard::WHOLE);
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        let shards: Vec<Vec<usize>> = (1..=count).map(|index| order(n, matrix.seed, Shard { index, count })).collect();
        for (position, cell) in whole.iter().enumerate() {
            prop_assert_eq!(shards[position % count][position / count], *cell);
        }
        prop_assert_eq!(shards.iter().map(Vec::len).sum::<usize>(), n);
    }
}
