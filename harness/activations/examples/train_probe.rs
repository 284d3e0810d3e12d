//! Trains a logistic probe on the mean-pooled activations of one layer and prints its AUROC on held-out dialogues.
//!
//! `cargo run -p actbench-activations --example train_probe`. Needs no download: model and dialogues are embedded.

use std::error::Error;
use std::sync::Arc;

use actbench_activations::probe::SplitFeatures;
use actbench_activations::{Acts, Axis, CpuBackend, DType, MaskKind, OpenModel, data};
use ndarray::{ArrayView2, s};

const LAYER: usize = 4;
const SAMPLES: usize = 200;
/// The rows before this one train the probe, the others test it.
const FIRST_TEST_ROW: usize = 160;

fn main() -> Result<(), Box<dyn Error>> {
    let dataset = data::load("embedded", None, SAMPLES)?;
    let labels: Vec<u8> = dataset.labels().into_iter().map(u8::from).collect();
    let opened = OpenModel::open(None, MaskKind::Assistant, true)?;
    let tokens = opened.tokenizer.encode_all(&dataset.dialogues)?;
    let backend = CpuBackend::new(std::thread::available_parallelism()?.get())?;
    let model = opened.load_over(vec![backend], DType::Bf16, LAYER, tokens.max_len(), &mut |_, _| ())?;
    let plan = Acts::collect(Arc::new(model), Arc::new(tokens), &[LAYER], 8)?;
    let pooled = plan.select_layer(LAYER)?.mean_pool(Axis::Sequence)?.realize()?.to_f32_vec();

    let features = ArrayView2::from_shape((SAMPLES, opened.spec.hidden_size), &pooled)?;
    let (train, test) = (features.slice(s![..FIRST_TEST_ROW, ..]), features.slice(s![FIRST_TEST_ROW.., ..]));
    let (train_labels, test_labels) = labels.split_at(FIRST_TEST_ROW);
    let outcome = SplitFeatures::standardized(train, train_labels, test, test_labels)?.score(1.0, 100)?;
    println!("layer {LAYER}: AUROC {:.3} on {} dialogues", outcome.auroc, outcome.n_test);
    Ok(())
}
