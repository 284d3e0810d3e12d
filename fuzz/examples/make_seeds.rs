//! Writes the seeds that only the program's own writers can make: `cargo run --example make_seeds` in `fuzz/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use actbench_activations::DType;
use actbench_activations::plan::cache_file::CacheWriter;
use actbench_activations::plan::{ActTensor, Axes, PlanFingerprint};
use actbench_fuzz::{cache_signature, gate_header};
use pairgate::journal::GateJournal;
use pairgate::pair::{GatePair, GateStage};
use pairgate::source::{ObservationResult, Side};

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    cache_files(&corpus.join("cache_file"))?;
    gate_journal(&corpus.join("gate_journal"))
}

fn cache_files(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let mut fingerprint = PlanFingerprint::default();
    fingerprint.set("model", "fuzz");
    let path = directory.join("finished");
    let mut writer = CacheWriter::resume(&path, cache_signature(), fingerprint.clone(), None)?;
    writer.put(&[(0, 0), (1, 1)], &samples(2)?)?;
    // As a killed writer leaves it: two of three samples and a journal.
    fs::copy(directory.join(".finished.partial"), directory.join("partial"))?;
    writer.put(&[(2, 0)], &samples(1)?)?;
    writer.finish()?;
    Ok(())
}

/// Activations of `n` samples of the signature of the corpus.
fn samples(n: usize) -> Result<ActTensor, Box<dyn Error>> {
    Ok(ActTensor::from_f32(Axes::BLH, &[n, 2, 4], DType::F32, [0, 1], None, &vec![1.0; n * 8])?)
}

fn gate_journal(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let mut journal = GateJournal::begin(&directory.join("pair"), &gate_header())?;
    let failed = || ObservationResult::Failed("x".to_owned());
    let pair = |index| GatePair {
        stage: GateStage::Screen,
        case: "case".to_owned(),
        index,
        first: Side::Head,
        base: failed(),
        head: failed(),
    };
    journal.append(&pair(0))?;
    journal.append(&pair(1))?;
    Ok(())
}
