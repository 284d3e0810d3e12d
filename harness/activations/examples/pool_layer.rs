//! Writes the mean-pooled activations of one layer for some dialogues to a safetensors file.
//!
//! `cargo run -p actbench-activations --example pool_layer -- [FILE]`, by default `pooled.safetensors` in the temporary
//! directory. Needs no download: model and dialogues are embedded.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use actbench_activations::{Acts, Axis, CpuBackend, DType, MaskKind, OpenModel, data};
use safetensors::tensor::{Dtype, TensorView};

const LAYER: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("pooled.safetensors"), PathBuf::from);
    let dialogues = data::load("embedded", None, 32)?.dialogues;
    let opened = OpenModel::open(None, MaskKind::Assistant, true)?;
    let tokens = opened.tokenizer.encode_all(&dialogues)?;
    let backend = CpuBackend::new(std::thread::available_parallelism()?.get())?;
    let model = opened.load_over(vec![backend], DType::Bf16, LAYER, tokens.max_len(), &mut |_, _| ())?;

    // Nothing is computed before `realize`, which runs the model only up to LAYER and pools on the device.
    let plan = Acts::collect(Arc::new(model), Arc::new(tokens), &[LAYER], 8)?;
    let pooled = plan.select_layer(LAYER)?.mean_pool(Axis::Sequence)?.realize()?;

    let view = TensorView::new(Dtype::BF16, pooled.shape(), pooled.bytes())?;
    safetensors::serialize_to_file([("activations", view)], None, &file)?;
    println!("{}: activations {:?}, bf16, mean over the assistant's tokens", file.display(), pooled.shape());
    Ok(())
}
