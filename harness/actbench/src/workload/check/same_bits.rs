//! Features by every method, batch size, set of rules and arrangement: bit-identical on one device, and close to the CPU.
//!
//! Arrangements over several devices run on two logical devices of the checked one.

use std::sync::Arc;

use actbench_fixtures::golden::compare;
use actbench_kernels::DType;

use super::goldens::tolerance;
use super::{CheckResult, CheckScope, CheckTarget};
use crate::atomic_file::temporary_directory;
use crate::case::{CaseObserver, Method, NoopObserver, RunConfig, Task};
use crate::devices::choose::Arrangement;
use crate::error::{Error, Result};
use crate::workload::extract::{Extracted, Extraction};
use crate::workload::features;
use crate::workload::layers::layers_of;
use crate::workload::load::{load_model, load_model_at};
use crate::workload::run::{extract_features, score_probes};
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{ProgressSink, Rule, Rules};

/// Allowed difference of the mean AUROC from that of the CPU.
const MAX_AUROC_DIFFERENCE: f64 = 0.005;

/// A variant of the extraction.
struct Variant {
    method: Method,
    batch_size: usize,
    rules: Rules,
    name: String,
}

/// All variants; a quick check omits those that disable a single rule.
fn variants(scope: CheckScope) -> Vec<Variant> {
    let variant = |method: Method, batch_size, rules, without: &str| Variant {
        method,
        batch_size,
        rules,
        name: format!("{method}, batches of {batch_size}{without}"),
    };
    let mut variants = vec![
        variant(Method::Eager, 1, Rules::all(), ""),
        variant(Method::Eager, 5, Rules::all(), ""),
        variant(Method::Lazy, 1, Rules::all(), ""),
        variant(Method::Lazy, 5, Rules::all(), ""),
        variant(Method::LazyDisk, 5, Rules::all(), ""),
        variant(Method::Lazy, 5, Rules::none(), ", no rule"),
    ];
    if scope == CheckScope::QUICK {
        return variants;
    }
    variants.extend(
        Rule::ALL.map(|rule| variant(Method::Lazy, 5, Rules::all().without(rule), &format!(", without {rule}"))),
    );
    variants
}

pub(super) fn check(target: &CheckTarget, scope: CheckScope, record: &mut dyn FnMut(CheckResult)) -> Result<()> {
    let dtypes = if scope.all_dtypes { &[DType::F32, DType::F16, DType::Bf16][..] } else { &[DType::Bf16] };
    for dtype in dtypes {
        let config = RunConfig { dtype: *dtype, ..target.config.clone() };
        // A failure of the device fails this check; the other checks still run.
        if let Err(error) = check_dtype(target, &config, scope, record) {
            record(CheckResult::new(format!("features {dtype}"), Err(error.to_string())));
        }
    }
    Ok(())
}

fn check_dtype(
    target: &CheckTarget,
    config: &RunConfig,
    scope: CheckScope,
    record: &mut dyn FnMut(CheckResult),
) -> Result<()> {
    let root = temporary_directory("actbench-check-", None)?;
    let prepared = &target.prepared;
    let observer: Arc<dyn CaseObserver> = Arc::new(NoopObserver);
    let sink: ProgressSink = Arc::new(|_| ());
    // All blocks, because a plan without the rule `depth` runs them.
    let deepest = prepared.model.spec.n_layers - 1;
    let layers = layers_of(config, Task::Sweep);
    let extract = |model: &Arc<dyn ActivationModel>, variant: &Variant, number: usize| -> Result<Extracted> {
        let directory = root.path().join(number.to_string());
        std::fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let options = Extraction {
            batch_size: variant.batch_size,
            // Sizes of batches are what is varied.
            fill_batches: false,
            pool: config.pool,
            rules: variant.rules,
            cache_directory: (variant.method == Method::LazyDisk).then_some(directory.as_path()),
        };
        extract_features(Task::Sweep, variant.method, model, prepared, &layers, options, &sink)
    };
    let model = load_model(prepared, config, deepest, &observer)?;
    let variants = variants(scope);
    let ours = extract(&model, &variants[0], 0)?;
    let expected = features::digest(&ours.layers)?;
    let mut check_digest = |extracted: &Extracted, name: &str| -> Result<()> {
        let digest = features::digest(&extracted.layers)?;
        let result = if digest == expected {
            Ok("bit-identical".to_owned())
        } else {
            Err(format!("digest {digest}; by {} it is {expected}", variants[0].name))
        };
        record(CheckResult::new(format!("features {} by {name}", config.dtype), result));
        Ok(())
    };
    for (number, variant) in variants.iter().enumerate().skip(1) {
        check_digest(&extract(&model, variant, number)?, &variant.name)?;
    }
    drop(model);
    let lazy = &variants[3];
    for (arrangement, name) in [(Arrangement::Split, "blocks on two devices"), (Arrangement::Replicas, "two replicas")]
    {
        let Some(placement) = target.choice.placement.on_two(arrangement) else { continue };
        let model = load_model_at(&placement, prepared, config, deepest, &observer)?;
        check_digest(&extract(&model, lazy, variants.len())?, &format!("{}, {name}", lazy.name))?;
    }
    let on_cpu = RunConfig { dtype: config.dtype, ..target.on_cpu() };
    let model = load_model(prepared, &on_cpu, deepest, &observer)?;
    let theirs = extract(&model, lazy, variants.len())?;
    drop(model);
    record(CheckResult::new(
        format!("features {} compared with the CPU", config.dtype),
        compare_features(&ours, &theirs, config.dtype)?,
    ));
    if scope.probes {
        let auroc = |extracted: &Extracted| -> Result<f64> {
            Ok(score_probes(Task::Sweep, config, extracted, prepared, &sink)?.mean)
        };
        let (ours, theirs) = (auroc(&ours)?, auroc(&theirs)?);
        let is_close = (ours - theirs).abs() <= MAX_AUROC_DIFFERENCE;
        let detail = format!("mean AUROC {ours:.4}; on the CPU {theirs:.4}");
        record(CheckResult::new(format!("probes {}", config.dtype), if is_close { Ok(detail) } else { Err(detail) }));
    }
    Ok(())
}

/// The largest relative error of any layer of either side.
fn compare_features(ours: &Extracted, theirs: &Extracted, dtype: DType) -> Result<std::result::Result<String, String>> {
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
