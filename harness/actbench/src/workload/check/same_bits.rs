//! Features by every method, batch size, set of rules and arrangement: the same bits on one device, and near those of the CPU.
//!
//! Arrangements over several devices are tried on two logical ones of the device that is checked.

use std::sync::Arc;

use actbench_fixtures::golden::compare;
use actbench_kernels::DType;

use super::goldens::tolerance;
use super::{Extent, Finding, Subject};
use crate::devices::choose::Arrangement;
use crate::error::{Error, Result};
use crate::workload::case::{CaseObserver, Method, RunConfig, Silent, Task};
use crate::workload::extract::{Extracted, Extraction};
use crate::workload::{extract_features, features, layers_of, load_model, load_model_at, score_probes};
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{ProgressSink, Rule, Rules};

/// How far the AUROC of probes may be from that on the CPU.
const MOST_AUROC_DIFFERENCE: f64 = 0.005;

/// A way to the features.
struct Way {
    method: Method,
    batch_size: usize,
    rules: Rules,
    told: String,
}

/// All ways; in a quick check those without the rules one by one.
fn ways(extent: Extent) -> Vec<Way> {
    let way = |method: Method, batch_size, rules, without: &str| Way {
        method,
        batch_size,
        rules,
        told: format!("{method}, batches of {batch_size}{without}"),
    };
    let mut ways = vec![
        way(Method::Eager, 1, Rules::all(), ""),
        way(Method::Eager, 5, Rules::all(), ""),
        way(Method::Lazy, 1, Rules::all(), ""),
        way(Method::Lazy, 5, Rules::all(), ""),
        way(Method::LazyDisk, 5, Rules::all(), ""),
        way(Method::Lazy, 5, Rules::none(), ", no rule"),
    ];
    if extent == Extent::QUICK {
        return ways;
    }
    ways.extend(Rule::ALL.map(|rule| way(Method::Lazy, 5, Rules::all().without(rule), &format!(", without {rule}"))));
    ways
}

pub(super) fn check(subject: &Subject, extent: Extent, found: &mut dyn FnMut(Finding)) -> Result<()> {
    let dtypes = if extent.all_dtypes { &[DType::F32, DType::F16, DType::Bf16][..] } else { &[DType::Bf16] };
    for dtype in dtypes {
        let config = RunConfig { dtype: *dtype, ..subject.config.clone() };
        // A device that is broken has failed, and the rest of the program has not.
        if let Err(error) = check_dtype(subject, &config, extent, found) {
            found(Finding::of(format!("features {dtype}"), Err(error.to_string())));
        }
    }
    Ok(())
}

fn check_dtype(subject: &Subject, config: &RunConfig, extent: Extent, found: &mut dyn FnMut(Finding)) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("actbench-check-").tempdir();
    let folder = folder.map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let prepared = &subject.prepared;
    let observer: Arc<dyn CaseObserver> = Arc::new(Silent);
    let sink: ProgressSink = Arc::new(|_| ());
    // All blocks: a plan without the rule `depth` runs them.
    let deepest = prepared.model.config.n_layers - 1;
    let layers = layers_of(config, Task::Sweep);
    let features_of = |model: &Arc<dyn ActivationModel>, way: &Way, number: usize| -> Result<Extracted> {
        let folder = folder.path().join(number.to_string());
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let how = Extraction {
            batch_size: way.batch_size,
            pool: config.pool,
            rules: way.rules,
            cache_folder: (way.method == Method::LazyDisk).then_some(folder.as_path()),
        };
        extract_features(Task::Sweep, way.method, model, prepared, &layers, how, &sink)
    };
    let model = load_model(prepared, config, deepest, &observer)?;
    let ways = ways(extent);
    let ours = features_of(&model, &ways[0], 0)?;
    let expected = features::digest(&ours.layers)?;
    let mut judge = |extracted: &Extracted, told: &str| -> Result<()> {
        let digest = features::digest(&extracted.layers)?;
        let same = match digest == expected {
            true => Ok("the same bits".to_owned()),
            false => Err(format!("digest {digest}, and {expected} by {}", ways[0].told)),
        };
        found(Finding::of(format!("features {} by {told}", config.dtype), same));
        Ok(())
    };
    for (number, way) in ways.iter().enumerate().skip(1) {
        judge(&features_of(&model, way, number)?, &way.told)?;
    }
    drop(model);
    let lazy = &ways[3];
    for (arrangement, told) in [(Arrangement::Split, "blocks on two devices"), (Arrangement::Replicas, "two replicas")]
    {
        let Some(placement) = subject.choice.placement.on_two(arrangement) else { continue };
        let model = load_model_at(&placement, prepared, config, deepest, &observer)?;
        judge(&features_of(&model, lazy, ways.len())?, &format!("{}, {told}", lazy.told))?;
    }
    let on_cpu = RunConfig { dtype: config.dtype, ..subject.on_cpu() };
    let model = load_model(prepared, &on_cpu, deepest, &observer)?;
    let theirs = features_of(&model, lazy, ways.len())?;
    drop(model);
    found(Finding::of(format!("features {} against the CPU", config.dtype), against(&ours, &theirs, config.dtype)?));
    if extent.probes {
        let auroc = |extracted: &Extracted| -> Result<f64> {
            Ok(score_probes(Task::Sweep, config, extracted, prepared, &sink)?.mean)
        };
        let (ours, theirs) = (auroc(&ours)?, auroc(&theirs)?);
        let near = (ours - theirs).abs() <= MOST_AUROC_DIFFERENCE;
        let told = format!("mean AUROC {ours:.4}, and {theirs:.4} on the CPU");
        found(Finding::of(format!("probes {}", config.dtype), if near { Ok(told) } else { Err(told) }));
    }
    Ok(())
}

/// The largest relative error of any layer of either side.
fn against(ours: &Extracted, theirs: &Extracted, dtype: DType) -> Result<std::result::Result<String, String>> {
    let mut worst = 0.0_f64;
    for (ours, theirs) in ours.layers.iter().zip(&theirs.layers) {
        for (ours, theirs) in [(ours.train()?, theirs.train()?), (ours.test()?, theirs.test()?)] {
            match compare(&theirs.to_f32_vec(), &ours.to_f32_vec(), tolerance(dtype)) {
                Ok(error) => worst = worst.max(error),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(Ok(format!("error {worst:.1e}")))
}
