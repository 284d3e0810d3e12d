//! The cache file compared with a plain copy and plain reads of the same bytes, on the same disk and in the same run.
//!
//! Writes do the same work on both sides: write to a temporary name, `fsync`, rename, `fsync` of the directory; the
//! cache file from memory, the plain copy from the page cache. Reads do not: the plain side reads the same number of
//! bytes sequentially through a buffer of 1 MiB and discards them, while the cache file verifies digests and builds
//! the requested tensor. The read ratio is therefore the distance from a lower bound. The plain copy is a loop and
//! not [`std::fs::copy`], because some file systems implement the latter without copying data.
//!
//! Each measurement of the cache file is paired with one of the plain side, alternately before and after it, so that
//! other disk load affects both. The printed ratio is the median over the pairs without the warm-up. Writes are
//! measured twice: of activations in memory, and of a model's activations, which are journaled so that an interrupted
//! write can be resumed. The model replays stored activations. `ACTBENCH_BENCH_SAMPLES` sets the number of samples of
//! 64 KiB; the default of 4096 is 256 MiB. Files are created in the system's temporary directory (`TMPDIR`).

use std::cell::RefCell;
use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actbench_activations::plan::{Acts, Axis};
use actbench_benches::criterion::configured;
use actbench_benches::replay_model::ReplayModel;
use actbench_benches::{is_smoke_run, random_activations, skip_on_error};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const LAYERS: usize = 16;
const HIDDEN_SIZE: usize = 2048;
/// bf16.
const ELEMENT_BYTES: usize = 2;
/// Large enough that system calls are negligible, small enough for the L2 cache.
const BUFFER_BYTES: usize = 1 << 20;

type TimedWork<'a> = &'a dyn Fn() -> Result<(), Box<dyn Error>>;

fn n_samples() -> Result<usize, Box<dyn Error>> {
    match std::env::var("ACTBENCH_BENCH_SAMPLES") {
        Ok(text) => match text.parse() {
            Ok(samples) if samples >= 4 => Ok(samples),
            _ => Err(format!("ACTBENCH_BENCH_SAMPLES is '{text}': use a number of samples, at least 4").into()),
        },
        Err(_) => Ok(if is_smoke_run() { 64 } else { 4096 }),
    }
}

/// Copies `source` to `target` as crash-safely as the cache file: temporary name, `fsync`, rename, `fsync` of the
/// directory.
fn plain_copy(source: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let partial = target.with_extension("partial");
    let (mut reader, mut writer) = (File::open(source)?, File::create(&partial)?);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => writer.write_all(&buffer[..n])?,
        }
    }
    writer.sync_all()?;
    fs::rename(&partial, target)?;
    File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// Reads `bytes` bytes from offset `first`.
fn plain_read(path: &Path, first: u64, bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(first))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut remaining = bytes;
    while remaining > 0 {
        let chunk = remaining.min(BUFFER_BYTES);
        file.read_exact(&mut buffer[..chunk])?;
        black_box(&buffer);
        remaining -= chunk;
    }
    Ok(())
}

fn timed(step: TimedWork<'_>) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    step()?;
    Ok(start.elapsed())
}

/// Measures one group with both sides and returns a line with the ratio of their bandwidths.
///
/// # Errors
/// A failure of either side.
fn compare(
    criterion: &mut Criterion,
    name: &str,
    bytes: usize,
    ours: TimedWork<'_>,
    plain: TimedWork<'_>,
) -> Result<String, Box<dyn Error>> {
    ours()?;
    plain()?;
    let ratios = RefCell::new(Vec::new());
    let failure = RefCell::new(None);
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("plain", |bencher| {
        bencher.iter_custom(|n| {
            (0..n).map(|_| timed(plain).unwrap_or_else(|error| store_failure(&failure, error))).sum::<Duration>()
        });
    });
    group.bench_function("actbench", |bencher| {
        bencher.iter_custom(|n| {
            let pair = || -> Result<Duration, Box<dyn Error>> {
                let plain_first = ratios.borrow().len() % 2 == 0;
                let before = if plain_first { Some(timed(plain)?) } else { None };
                let time = timed(ours)?;
                let reference = before.map_or_else(|| timed(plain), Ok)?;
                ratios.borrow_mut().push(reference.as_secs_f64() / time.as_secs_f64());
                Ok(time)
            };
            (0..n).map(|_| pair().unwrap_or_else(|error| store_failure(&failure, error))).sum::<Duration>()
        });
    });
    group.finish();
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let mut ratios = ratios.take();
    // The first pair belongs to criterion's warm-up.
    ratios = ratios.split_off(ratios.len().min(1));
    ratios.sort_by(f64::total_cmp);
    match ratios[..] {
        // A filter on the command line excluded the group.
        [] => Ok(String::new()),
        _ => Ok(format!(
            "{name}: {:.2} of the plain bandwidth (median of {} pairs, {:.2} to {:.2})\n",
            ratios[ratios.len() / 2],
            ratios.len(),
            ratios[0],
            ratios[ratios.len() - 1]
        )),
    }
}

/// Stores the error until criterion has finished. The duration is not zero, which criterion cannot handle.
fn store_failure(failure: &RefCell<Option<Box<dyn Error>>>, error: Box<dyn Error>) -> Duration {
    failure.borrow_mut().get_or_insert(error);
    Duration::from_nanos(1)
}

fn caching(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let n_samples = n_samples()?;
    let directory = tempfile::tempdir()?;
    let (cache, saved, copy) =
        (directory.path().join("cache"), directory.path().join("saved"), directory.path().join("copy"));
    let activations = random_activations(1, n_samples, LAYERS, HIDDEN_SIZE)?;
    let model = ReplayModel::new(&activations)?;
    let (tokens, layers) = (Arc::new(model.tokens()), (0..LAYERS).collect::<Vec<_>>());
    let computed = Acts::collect(Arc::new(model), tokens, &layers, 8)?.mean_pool(Axis::Sequence)?;
    let plan = Acts::from_tensor(activations);
    plan.save(&cache)?;
    let bytes = fs::metadata(&cache)?.len() as usize;
    let block = n_samples * HIDDEN_SIZE * ELEMENT_BYTES;
    let subset = n_samples / 4;
    let strided: Vec<i64> = (0..n_samples as i64).step_by(4).collect();
    // Offsets of a quarter of each layer's rows; the few kilobytes of the header are negligible.
    let offsets: Vec<u64> = (0..LAYERS).map(|layer| (layer * block + block / 2) as u64).collect();

    let mut lines = vec![
        compare(criterion, "cache-write", bytes, &|| Ok(plan.save(&saved)?), &|| plain_copy(&cache, &copy))?,
        compare(criterion, "cache-write-journalled", bytes, &|| Ok(computed.save(&saved)?), &|| {
            plain_copy(&cache, &copy)
        })?,
        compare(
            criterion,
            "cache-read-all",
            bytes,
            &|| {
                Acts::load(&cache)?
                    .iter_layers()?
                    .try_for_each(|layer| layer.map(|layer| drop(black_box(layer))))
                    .map_err(Into::into)
            },
            &|| plain_read(&cache, 0, bytes),
        )?,
        compare(
            criterion,
            "cache-select-layer",
            block,
            &|| Acts::load(&cache)?.select_layer(7)?.realize().map(|layer| drop(black_box(layer))).map_err(Into::into),
            &|| plain_read(&cache, offsets[6], block),
        )?,
    ];
    let plain_subset = || offsets.iter().try_for_each(|first| plain_read(&cache, *first, block / 4));
    let range = n_samples as i64 / 2..n_samples as i64 / 2 + subset as i64;
    lines.push(compare(
        criterion,
        "cache-select-range",
        subset * LAYERS * HIDDEN_SIZE * ELEMENT_BYTES,
        &|| {
            Acts::load(&cache)?
                .slice_batch(range.clone())?
                .realize()
                .map(|part| drop(black_box(part)))
                .map_err(Into::into)
        },
        &plain_subset,
    )?);
    lines.push(compare(
        criterion,
        "cache-select-indices",
        strided.len() * LAYERS * HIDDEN_SIZE * ELEMENT_BYTES,
        &|| {
            Acts::load(&cache)?
                .slice_batch(strided.clone())?
                .realize()
                .map(|part| drop(black_box(part)))
                .map_err(Into::into)
        },
        &plain_subset,
    )?);
    // The sizes of a smoke run are too small for a bandwidth.
    if !is_smoke_run() {
        write!(io::stdout(), "\n{} samples, {} MiB\n{}", n_samples, bytes >> 20, lines.concat())?;
    }
    Ok(())
}

fn all(criterion: &mut Criterion) {
    skip_on_error(caching(criterion));
}

/// A pair of writes of 256 MiB takes up to two seconds, so a sample is one iteration. A short warm-up suffices,
/// because the file is already in the page cache.
fn settings() -> Criterion {
    configured(Criterion::default(), 100, 1000)
}

criterion_group! {
    name = benches;
    config = settings();
    targets = all
}
criterion_main!(benches);
