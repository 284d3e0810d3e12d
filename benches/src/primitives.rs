//! The gated primitives, each as one unit of work. Criterion measures their time (`benches/primitives.rs`), Callgrind
//! counts their instructions (`benches/instructions.rs`) under the same names, as a cross-check.
//!
//! They run on one thread and with fixed seeds, so that instruction counts are reproducible.

use std::error::Error;
use std::hint::black_box;

use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::plan::{Acts, Axis};
use actbench_kernels::{DType, PoolMethod};

use crate::{embedded_tokens, random_activations};

/// Runs the work once.
pub type PrimitiveWork = Box<dyn FnMut() -> Result<(), Box<dyn Error>>>;

/// Work, and the result of its preparation or of its last run.
pub type PreparedWork = (PrimitiveWork, Result<(), Box<dyn Error>>);

/// A primitive of activation extraction.
pub struct Primitive {
    /// The name, the same for time and instructions.
    pub name: &'static str,
    /// Creates the inputs, which is not measured.
    pub prepare: fn() -> Result<PrimitiveWork, Box<dyn Error>>,
}

/// All primitives.
pub const PRIMITIVES: [Primitive; 5] = [
    Primitive { name: "pooling", prepare: pooling },
    Primitive { name: "transforms", prepare: transforms },
    Primitive { name: "cache-read", prepare: cache_read },
    Primitive { name: "prefix-tree", prepare: prefix_tree },
    Primitive { name: "planner", prepare: planner },
];

/// The work of the primitive `name`, which runs on the caller's thread only.
///
/// # Errors
/// An unknown name, or an error while creating the inputs.
pub fn prepare(name: &str) -> Result<PrimitiveWork, Box<dyn Error>> {
    // Callgrind counts only the thread that entered the benchmark, and several threads would run the work in a random
    // order. Therefore the global pool is the caller's thread. It exists already on a second call.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
    let primitive = PRIMITIVES.iter().find(|primitive| primitive.name == name);
    (primitive.ok_or_else(|| format!("no primitive {name}"))?.prepare)()
}

/// Runs prepared work once and returns it, so that nothing is dropped inside the measurement. Never inlined: Callgrind
/// toggles counting at the entry of a benchmark function, and a closure in that function would stop it.
#[inline(never)]
pub fn once((mut work, prepared): PreparedWork) -> PreparedWork {
    let result = prepared.and_then(|()| black_box(&mut work)());
    (work, result)
}

/// All four methods over the layers of 128 samples of 8 layers of 512, as the host pools.
fn pooling() -> Result<PrimitiveWork, Box<dyn Error>> {
    let tensor = random_activations(1, 128, 8, 512)?;
    Ok(Box::new(move || {
        for method in PoolMethod::ALL {
            black_box(black_box(&tensor).pool(method, Axis::Layer)?);
        }
        Ok(())
    }))
}

/// A selection of layers, two slices and a cast on 128 samples of 8 layers of 512.
fn transforms() -> Result<PrimitiveWork, Box<dyn Error>> {
    let tensor = random_activations(1, 128, 8, 512)?;
    Ok(Box::new(move || {
        let rows: Vec<i64> = (0..32).rev().step_by(2).collect();
        let chosen = black_box(&tensor).select_layers(&[3, 1, 5, 7])?.slice_batch(..64)?;
        black_box(chosen.cast(DType::F32)?.slice_batch(rows)?);
        Ok(())
    }))
}

/// Half of the samples of one layer from a cache file of 128 samples of 8 layers of 512.
fn cache_read() -> Result<PrimitiveWork, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("activations");
    Acts::from_tensor(random_activations(1, 128, 8, 512)?).save(&path)?;
    Ok(Box::new(move || {
        // The closure owns the directory, so that it exists as long as the work.
        let path = directory.path().join("activations");
        black_box(Acts::load(&path)?.select_layer(5)?.slice_batch(..64)?.realize()?);
        Ok(())
    }))
}

/// The tree of the prefixes that 400 dialogues share.
fn prefix_tree() -> Result<PrimitiveWork, Box<dyn Error>> {
    let tokens = embedded_tokens(400)?;
    let samples: Vec<usize> = (0..tokens.len()).collect();
    Ok(Box::new(move || {
        let shared = SharedPrefixes::of(black_box(&tokens), &samples);
        black_box(shared.masked_tokens(&tokens));
        Ok(())
    }))
}

/// A plan of five operations on 1024 samples built, optimized and explained.
fn planner() -> Result<PrimitiveWork, Box<dyn Error>> {
    let source = Acts::from_tensor(random_activations(1, 1024, 8, 2)?);
    Ok(Box::new(move || {
        let rows: Vec<i64> = (0..512).rev().step_by(4).collect();
        let plan = black_box(&source).select_layers(&[3, 1, 5, 7])?.slice_batch(..512)?.cast(DType::F32)?;
        let plan = plan.slice_batch(rows)?.select_layer(5)?;
        black_box(plan.optimized()?);
        black_box(plan.explain()?);
        Ok(())
    }))
}
