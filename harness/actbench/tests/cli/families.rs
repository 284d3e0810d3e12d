//! A model of every family through the whole program: eager, lazy and lazy-disk give the same features.

use std::collections::BTreeMap;
use std::fs;

use actbench_fixtures::family_golden::{FAMILY_GOLDENS, FamilyCase};
use serde_json::{Value, json};

use crate::common_cli::ModelDirectory;
use crate::runner_support::{Sandbox, rows, stderr};

#[test]
fn modes_agree_on_every_family() {
    let mut families: BTreeMap<&str, FamilyCase> = BTreeMap::new();
    for case in FAMILY_GOLDENS.into_iter().filter(FamilyCase::has_shareable_prefixes) {
        families.entry(case.family).or_insert(case);
    }
    assert!(families.len() >= 15, "{families:?}");
    for (family, case) in families {
        let sandbox = Sandbox::new();
        let text = fs::read_to_string(case.directory().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        // Dialogues are longer than the rows of a golden.
        for key in ["n_positions", "n_ctx", "max_position_embeddings", "original_max_position_embeddings"] {
            if config.get(key).is_some() {
                config[key] = json!(1024);
            }
        }
        let model = ModelDirectory::of_config(config).write(&sandbox);
        let modes = ["--methods", "eager,lazy,lazy-disk", "--repetitions", "1", "--quiet", "--model"];
        let output = sandbox.run(&[&modes[..], &[model.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{family}: {}", stderr(&output));
        let results = sandbox.results();
        for task in ["train", "sweep"] {
            assert_eq!(results["summary"][task]["digests_agree"], true, "{family} {task}");
            let digest = |method: &str| rows(&results, task, method)[0]["extra"]["feature_digest"].clone();
            assert!(digest("eager").is_string(), "{family} {task}");
            assert_eq!(digest("eager"), digest("lazy"), "{family} {task}");
            assert_eq!(digest("eager"), digest("lazy-disk"), "{family} {task}");
        }
    }
}
