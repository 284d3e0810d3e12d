//! The cache file against a plain copy and plain reads of the same bytes, on the same disk and in the same run.
//!
//! Writing is like for like: bytes to a temporary name, `fsync`, rename, `fsync` of the folder, ours from memory and the
//! plain copy from the page cache. Reading is not: the plain side reads the same number of bytes in a row through a
//! buffer of 1 MiB and keeps nothing, ours checks digests and builds the tensor that was asked for. A read ratio is the
//! distance from a lower bound. The plain copy is a loop and not [`std::fs::copy`], which some file systems answer
//! without copying a byte.
//!
//! Each measurement of ours is taken next to one of the plain side, before it and after it in turn, so that other users of
//! the disk hit both alike; the ratio is the median of theirs, warm-up left out. Writing is measured twice: of activations
//! in memory, and of a model's, whose write is journalled so that it can be gone on with after a crash; that
//! model computes nothing. `ACTBENCH_BENCH_SAMPLES` sets how many samples of 64 KiB there are; the default is
//! 4096, which is 256 MiB. Files are made in the system's temporary folder (`TMPDIR`).

use std::cell::RefCell;
use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actbench_activations::plan::{Acts, Axis};
use actbench_benches::handing_model::HandingModel;
use actbench_benches::{is_smoke_run, random_activations, skip_on_error};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const LAYERS: usize = 16;
const HIDDEN_SIZE: usize = 2048;
/// bf16.
const ELEMENT_BYTES: usize = 2;
/// Large enough that system calls cost nothing, small enough to stay in the processor's cache.
const BUFFER_BYTES: usize = 1 << 20;

type Step<'a> = &'a dyn Fn() -> Result<(), Box<dyn Error>>;

fn n_samples() -> Result<usize, Box<dyn Error>> {
    match std::env::var("ACTBENCH_BENCH_SAMPLES") {
        Ok(text) => match text.parse() {
            Ok(samples) if samples >= 4 => Ok(samples),
            _ => Err(format!("ACTBENCH_BENCH_SAMPLES is '{text}': use a number of samples, at least 4").into()),
        },
        Err(_) => Ok(if is_smoke_run() { 64 } else { 4096 }),
    }
}

/// `from` to `to` with what the cache file does for a crash: a temporary name, `fsync`, rename, `fsync` of the folder.
fn plain_copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let partial = to.with_extension("partial");
    let (mut reader, mut writer) = (File::open(from)?, File::create(&partial)?);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => writer.write_all(&buffer[..n])?,
        }
    }
    writer.sync_all()?;
    fs::rename(&partial, to)?;
    File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// Reads these many bytes from `first` on.
fn plain_read(path: &Path, first: u64, bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(first))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 {
        let wanted = left.min(BUFFER_BYTES);
        file.read_exact(&mut buffer[..wanted])?;
        black_box(&buffer);
        left -= wanted;
    }
    Ok(())
}

fn timed(step: Step<'_>) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    step()?;
    Ok(start.elapsed())
}

/// One group: both sides under criterion, and the line with the ratio of their bandwidths.
///
/// # Errors
/// When a side fails the first time; a later failure is told and counts as a duration of one nanosecond.
fn compare(
    criterion: &mut Criterion,
    name: &str,
    bytes: usize,
    ours: Step<'_>,
    plain: Step<'_>,
) -> Result<String, Box<dyn Error>> {
    ours()?;
    plain()?;
    let ratios = RefCell::new(Vec::new());
    let failure = RefCell::new(None);
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("plain", |bencher| {
        bencher.iter_custom(|n| {
            (0..n).map(|_| timed(plain).unwrap_or_else(|error| failed(&failure, error))).sum::<Duration>()
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
            (0..n).map(|_| pair().unwrap_or_else(|error| failed(&failure, error))).sum::<Duration>()
        });
    });
    group.finish();
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let mut ratios = ratios.take();
    // The first is of criterion's warm-up.
    ratios = ratios.split_off(ratios.len().min(1));
    ratios.sort_by(f64::total_cmp);
    match ratios[..] {
        // A filter on the command line left it out.
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

/// Keeps the error for when criterion is done; it takes no zeros.
fn failed(failure: &RefCell<Option<Box<dyn Error>>>, error: Box<dyn Error>) -> Duration {
    failure.borrow_mut().get_or_insert(error);
    Duration::from_nanos(1)
}

fn caching(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let n_samples = n_samples()?;
    let folder = tempfile::tempdir()?;
    let (cache, saved, copy) = (folder.path().join("cache"), folder.path().join("saved"), folder.path().join("copy"));
    let activations = random_activations(1, n_samples, LAYERS, HIDDEN_SIZE)?;
    let model = HandingModel::new(&activations)?;
    let (tokens, layers) = (Arc::new(model.tokens()), (0..LAYERS).collect::<Vec<_>>());
    let computed = Acts::collect(Arc::new(model), tokens, &layers, 8)?.mean_pool(Axis::Sequence)?;
    let plan = Acts::from_tensor(activations);
    plan.save(&cache)?;
    let bytes = fs::metadata(&cache)?.len() as usize;
    let block = n_samples * HIDDEN_SIZE * ELEMENT_BYTES;
    let subset = n_samples / 4;
    let strided: Vec<i64> = (0..n_samples as i64).step_by(4).collect();
    // Where the fourth part of each layer's rows begins; the header's kilobytes do not matter here.
    let pieces: Vec<u64> = (0..LAYERS).map(|layer| (layer * block + block / 2) as u64).collect();

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
            &|| plain_read(&cache, pieces[6], block),
        )?,
    ];
    let plain_subset = || pieces.iter().try_for_each(|first| plain_read(&cache, *first, block / 4));
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
    // A smoke run's sizes say nothing about bandwidth.
    if !is_smoke_run() {
        write!(io::stdout(), "\n{} samples, {} MiB\n{}", n_samples, bytes >> 20, lines.concat())?;
    }
    Ok(())
}

fn all(criterion: &mut Criterion) {
    skip_on_error(caching(criterion));
}

/// Writing 256 MiB takes up to a second, twice in a pair: ten samples, the fewest that criterion takes, of one
/// iteration each, and the first warm-up is enough, as the file is in the page cache already.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
