//! The primitives that are gated, each as one unit of work: timed by criterion (`benches/primitives.rs`) and counted in
//! instructions (`benches/instructions.rs`) under the same name, so that one is a witness of the other.
//!
//! On one thread and from fixed seeds: what is counted must be the same every time.

use std::error::Error;
use std::hint::black_box;

use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::plan::{Acts, Axis};
use actbench_kernels::{DType, PoolMethod};

use crate::{embedded_tokens, random_activations};

/// Does the work once.
pub type Work = Box<dyn FnMut() -> Result<(), Box<dyn Error>>>;

/// Work, and whether it could be prepared or was done.
pub type Prepared = (Work, Result<(), Box<dyn Error>>);

/// Something that activations are made of.
pub struct Primitive {
    /// Its name, the same for time and instructions.
    pub name: &'static str,
    /// Makes the inputs, which is not measured.
    pub prepare: fn() -> Result<Work, Box<dyn Error>>,
}

/// All of them.
pub const PRIMITIVES: [Primitive; 5] = [
    Primitive { name: "pooling", prepare: pooling },
    Primitive { name: "transforms", prepare: transforms },
    Primitive { name: "cache-read", prepare: cache_read },
    Primitive { name: "prefix-tree", prepare: prefix_tree },
    Primitive { name: "planner", prepare: planner },
];

/// The work of the primitive `name`, on the caller's thread alone.
///
/// # Errors
/// There is none of that name, or its inputs cannot be made.
pub fn prepare(name: &str) -> Result<Work, Box<dyn Error>> {
    // What runs in threads of a pool runs in the caller's own instead: Callgrind counts in the thread that entered the
    // benchmark, and with several the order of work is another each time. A second call finds it done.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
    let primitive = PRIMITIVES.iter().find(|primitive| primitive.name == name);
    (primitive.ok_or_else(|| format!("no primitive {name}"))?.prepare)()
}

/// Does the work once, if it could be prepared, and gives it back, so that nothing is dropped meanwhile. A function of its
/// own, never inlined: Callgrind begins and stops to count where a benchmark's function is entered, and a closure in that
/// one would stop it.
#[inline(never)]
pub fn once((mut work, prepared): Prepared) -> Prepared {
    let result = prepared.and_then(|()| black_box(&mut work)());
    (work, result)
}

/// All four methods over the layers of 128 samples of 8 layers of 512, as the host pools.
fn pooling() -> Result<Work, Box<dyn Error>> {
    let tensor = random_activations(1, 128, 8, 512)?;
    Ok(Box::new(move || {
        for method in PoolMethod::ALL {
            black_box(black_box(&tensor).pool(method, Axis::Layer)?);
        }
        Ok(())
    }))
}

/// A selection of layers, two slices and a cast on 128 samples of 8 layers of 512.
fn transforms() -> Result<Work, Box<dyn Error>> {
    let tensor = random_activations(1, 128, 8, 512)?;
    Ok(Box::new(move || {
        let rows: Vec<i64> = (0..32).rev().step_by(2).collect();
        let chosen = black_box(&tensor).select_layers(&[3, 1, 5, 7])?.slice_batch(..64)?;
        black_box(chosen.cast(DType::F32)?.slice_batch(rows)?);
        Ok(())
    }))
}

/// Half of the samples of one layer from a cache file of 128 samples of 8 layers of 512.
fn cache_read() -> Result<Work, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("activations");
    Acts::from_tensor(random_activations(1, 128, 8, 512)?).save(&path)?;
    Ok(Box::new(move || {
        // The folder lives as long as the work does.
        let path = folder.path().join("activations");
        black_box(Acts::load(&path)?.select_layer(5)?.slice_batch(..64)?.realize()?);
        Ok(())
    }))
}

/// The tree of the prefixes that 400 dialogues share.
fn prefix_tree() -> Result<Work, Box<dyn Error>> {
    let tokens = embedded_tokens(400)?;
    let samples: Vec<usize> = (0..tokens.len()).collect();
    Ok(Box::new(move || {
        let shared = SharedPrefixes::of(black_box(&tokens), &samples);
        black_box(shared.masked_rows(&tokens));
        Ok(())
    }))
}

/// A plan of five operations on 1024 samples built, optimised and explained.
fn planner() -> Result<Work, Box<dyn Error>> {
    let source = Acts::from_tensor(random_activations(1, 1024, 8, 2)?);
    Ok(Box::new(move || {
        let rows: Vec<i64> = (0..512).rev().step_by(4).collect();
        let plan = black_box(&source).select_layers(&[3, 1, 5, 7])?.slice_batch(..512)?.cast(DType::F32)?;
        let plan = plan.slice_batch(rows)?.select_layer(5)?;
        black_box(plan.optimised()?);
        black_box(plan.explain()?);
        Ok(())
    }))
}
