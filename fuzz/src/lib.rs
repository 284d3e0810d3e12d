//! Functions that take arbitrary bytes as one kind of input file and use it as the commands do.
//!
//! A function may return for any reason. Findings are panics, aborts, sanitizer reports, inputs that take longer than the
//! fuzzer's time limit, and inputs that take more memory than its limit.
//!
//! Inputs are written to files, since the readers take paths and map files into memory. The files lie in one
//! directory per process below the system's temporary directory; `scripts/fuzz.sh` sets `TMPDIR` and removes it.

// A fuzzer without its directory must stop.
#[allow(clippy::expect_used)]
mod files;

use std::path::Path;

use actbench::crossover::cells_of;
use actbench::crossover::recommend::{SizeBounds, recommendations};
use actbench::gate_adapter::{history, suite::Suite};
use actbench::report::chart::charts;
use actbench::report::document::{Document, html, markdown, rows_csv, summary_csv};
use actbench::report::table;
use actbench::results::{NamedResults, ResultFile};
use actbench_activations::data::{self, ChatMessage, Dialogue, Role};
use actbench_activations::import::import_gguf;
use actbench_activations::plan::cache_file::{CacheFile, CacheWriter};
use actbench_activations::plan::{Axes, PlanFingerprint, Signature};
use actbench_activations::{CpuBackend, DType, MaskKind, OpenModel};
use pairgate::design::GateDesign;
use pairgate::journal::{GateJournal, JournalHeader};
use pairgate::report::ProgramIdentity;

use files::{Scratch, sections};

/// A GGUF file: its import, and the load of the result.
pub fn gguf(data: &[u8]) {
    let scratch = Scratch::get();
    let out = scratch.empty_directory("imported");
    if import_gguf(&scratch.write("model.gguf", data), &out, true, &mut |_, _| ()).is_ok() {
        open_and_load(&out);
    }
}

/// `model.safetensors` of a small model.
pub fn safetensors_header(data: &[u8]) {
    let scratch = Scratch::get();
    let directory = scratch.small_model("weights");
    scratch.write("weights/model.safetensors", data);
    open_and_load(&directory);
}

/// `adapter_config.json` and `adapter_model.safetensors` of an adapter for a small model, one section each.
pub fn adapter(data: &[u8]) {
    let scratch = Scratch::get();
    let model = scratch.small_model("adapted");
    let directory = scratch.empty_directory("adapter");
    for (name, content) in ["adapter_config.json", "adapter_model.safetensors"].into_iter().zip(sections(data)) {
        scratch.write(&format!("adapter/{name}"), content);
    }
    load(OpenModel::open_with_adapter(model.to_str(), Some(&directory), MaskKind::Assistant, true).ok());
}

/// `config.json`, `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` of a small model, one
/// section each.
pub fn model_config(data: &[u8]) {
    let scratch = Scratch::get();
    let directory = scratch.small_model("config");
    let names = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
    for (name, content) in names.into_iter().zip(sections(data)) {
        if !content.is_empty() {
            scratch.write(&format!("config/{name}"), content);
        }
    }
    if let Some(model) = open_and_load(&directory) {
        let _ = model.tokenizer.encode_all(&dialogues());
    }
    for name in names {
        let _ = std::fs::remove_file(directory.join(name));
    }
}

/// `tokenizer.json` of a small model, and the encoding of dialogues with it.
pub fn tokenizer(data: &[u8]) {
    let scratch = Scratch::get();
    let directory = scratch.small_model("tokenizer");
    scratch.write("tokenizer/tokenizer.json", data);
    if let Some(model) = open(&directory) {
        let _ = model.tokenizer.encode_all(&dialogues());
    }
}

/// `chat_template.jinja` of a small model, and the encoding of dialogues with it.
pub fn chat_template(data: &[u8]) {
    let scratch = Scratch::get();
    let directory = scratch.small_model("template");
    scratch.write("template/chat_template.jinja", data);
    if let Some(model) = open(&directory) {
        let _ = model.tokenizer.encode_all(&dialogues());
        let model = OpenModel { tokenizer: model.tokenizer.with_mask(MaskKind::Content), ..model };
        let _ = model.tokenizer.encode_all(&dialogues());
    }
}

/// Rows of a data file. The first byte chooses JSON Lines, CSV or Parquet.
pub fn data_rows(data: &[u8]) {
    let Some((format, data)) = data.split_first() else { return };
    let name = ["rows.jsonl", "rows.csv", "rows.parquet"][usize::from(*format) % 3];
    let path = Scratch::get().write(name, data);
    if let Some(path) = path.to_str() {
        let _ = data::load(path, None, 4);
    }
}

/// A result file: the table, the report in every format, the crossover and the stored run made from it.
pub fn result_file(data: &[u8]) {
    let _ = history::parse(Path::new("results.json"), data);
    let Ok(results) = serde_json::from_slice::<ResultFile>(data) else { return };
    let _ = table::render(&results, Some(80));
    let files = ["a.json", "b.json"].map(|name| NamedResults {
        name: name.to_owned(),
        path: name.to_owned(),
        results: results.clone(),
    });
    let cells = cells_of(&files);
    let _ = recommendations(&cells, SizeBounds::default());
    let Ok(charts) = charts(&cells) else { return };
    let document = Document::new(&files, SizeBounds::default(), Vec::new());
    let _ = (markdown(&document, &charts), html(&document, &charts));
    let _ = (rows_csv(&files), summary_csv(&document.summary), summary_csv(&document.crossover));
}

/// A suite of the gate.
pub fn suite_file(data: &[u8]) {
    if let Ok(suite) = Suite::read(&Scratch::get().write("suite.toml", data)) {
        for case in &suite.cases {
            let _ = suite.arguments(case);
        }
    }
}

/// A matrix file.
pub fn matrix_file(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = actbench::commands::matrix_file::parse(text, "matrix.toml");
    }
}

/// A cache file and the partial file of a killed writer with its journal: both are read, and the latter is resumed.
pub fn cache_file(data: &[u8]) {
    let scratch = Scratch::get();
    if let Ok(file) = CacheFile::open(&scratch.write("finished.actcache", data)) {
        let signature = file.signature();
        let samples: Vec<usize> = (0..signature.n_samples.min(8)).collect();
        for layer in 0..signature.n_layers().min(8) {
            let _ = file.read(layer, &samples);
        }
        let _ = file.sample_table();
    }
    scratch.write(".resumed.partial", data);
    let mut fingerprint = PlanFingerprint::default();
    fingerprint.set("model", "fuzz");
    let resumed = scratch.path("resumed");
    if let Ok(writer) = CacheWriter::resume(&resumed, cache_signature(), fingerprint, None) {
        let all = (0..cache_signature().n_samples).all(|sample| writer.has(sample));
        if all && writer.finish().is_ok() {
            // Samples of a journal count as finished only if their bytes have the journal's digest.
            assert!(CacheFile::open(&resumed).is_ok(), "a resumed cache file is not a cache file");
        }
    }
}

/// The journal of a gate.
pub fn gate_journal(data: &[u8]) {
    let path = Scratch::get().write("journal.jsonl", data);
    let _ = GateJournal::resume(&path, &gate_header());
}

/// The header of the journals in the corpus of [`gate_journal`].
pub fn gate_header() -> JournalHeader {
    let identity = ProgramIdentity::default();
    JournalHeader::new("fuzz/1", &GateDesign::looks(1), (&identity, &identity), "m", serde_json::json!(["case"]))
}

/// The type of activations in the corpus of [`cache_file`]: 3 samples of 2 vectors of 4 numbers.
pub fn cache_signature() -> Signature {
    Signature {
        axes: Axes::BLH,
        n_samples: 3,
        layer_ids: [0, 1].into(),
        seq_len: 1,
        hidden_size: 4,
        dtype: DType::F32,
        has_mask: false,
    }
}

/// Dialogues with the shapes that templates distinguish.
fn dialogues() -> Vec<Dialogue> {
    let message = |(role, content): &(Role, &str)| ChatMessage::new(role.clone(), *content);
    let shapes: [&[(Role, &str)]; 4] = [
        &[(Role::User, "Hello there"), (Role::Assistant, "General <|im_end|> Kenobi")],
        &[(Role::System, "Be brief."), (Role::User, "2+2?"), (Role::Assistant, "4")],
        &[(Role::Assistant, "I begin"), (Role::User, " spaces "), (Role::Assistant, "end")],
        &[(Role::User, "a"), (Role::User, "ü→🦀"), (Role::Assistant, "x"), (Role::Assistant, "")],
    ];
    shapes.into_iter().map(|shape| Dialogue::new(shape.iter().map(message).collect(), true)).collect()
}

fn open(directory: &Path) -> Option<OpenModel> {
    OpenModel::open(directory.to_str(), MaskKind::Assistant, true).ok()
}

/// Opens the model and loads its first block.
fn open_and_load(directory: &Path) -> Option<OpenModel> {
    load(open(directory))
}

/// Loads the first block of the model.
fn load(model: Option<OpenModel>) -> Option<OpenModel> {
    let model = model?;
    if model.check(0).is_ok() {
        let backend = CpuBackend::new(1).ok()?;
        let _ = model.load_over(vec![backend], DType::Bf16, 0, 64, &mut |_, _| ());
    }
    Some(model)
}
