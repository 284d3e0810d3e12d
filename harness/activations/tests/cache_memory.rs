//! Memory of cache files: a writer holds one batch, and selecting a layer touches the pages of that layer alone.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use actbench_activations::plan::cache_file::CacheWriter;
use actbench_activations::plan::{ActTensor, Acts, Axes, PlanFingerprint, Signature};
use actbench_kernels::DType;

const LAYERS: [usize; 4] = [3, 0, 8, 5];
/// 256 KiB a sample and layer, 1 MiB a sample.
const HIDDEN: usize = 64 << 10;
const LAYER_BYTES_OF_SAMPLE: usize = HIDDEN * 4;
const MIB: usize = 1 << 20;
/// Variables of the child process: its file and its number of samples.
const CHILD_FILE: &str = "CACHE_MEMORY_CHILD_FILE";
const CHILD_SAMPLES: &str = "CACHE_MEMORY_CHILD_SAMPLES";

/// Writes `n_samples` MiB, four samples at a time, every other batch out of order.
fn write(path: &Path, n_samples: usize) {
    let batch = |first: usize| {
        let values: Vec<f32> = (0..4 * LAYERS.len() * HIDDEN).map(|index| (first + index % 8191) as f32).collect();
        ActTensor::from_f32(Axes::BLH, &[4, LAYERS.len(), HIDDEN], DType::F32, LAYERS, None, &values).unwrap()
    };
    let signature = Signature { n_samples, ..batch(0).signature().clone() };
    let mut writer = CacheWriter::resume(path, signature, PlanFingerprint::default(), None).unwrap();
    for first in (0..n_samples).step_by(4) {
        let mut pairs: Vec<(usize, usize)> = (first..first + 4).zip(0..).collect();
        if first % 8 == 0 {
            pairs = pairs.iter().map(|(position, _)| *position).zip([2, 0, 3, 1]).collect();
        }
        writer.put(&pairs, &batch(first)).unwrap();
    }
    writer.finish().unwrap();
}

/// A value of `/proc/self/status` or of a line of `/proc/self/smaps`, in bytes.
fn kilobytes(line: &str, name: &str) -> Option<usize> {
    let number = line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?;
    number.trim().parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Writes a file and prints the peak resident bytes of this process.
fn write_as_child(file: &str, n_samples: &str) {
    write(Path::new(file), n_samples.parse().unwrap());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| kilobytes(line, "VmHWM")).unwrap();
    println!("peak={peak}=");
}

/// Peak resident bytes of a process that writes `n_samples` MiB: this binary once more, with one test and two variables.
fn peak_of_writing(n_samples: usize) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_memory_does_not_grow_with_samples", "--nocapture", "--test-threads", "1"])
        .env(CHILD_FILE, &path)
        .env(CHILD_SAMPLES, n_samples.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::metadata(&path).unwrap().len() as usize >= n_samples * MIB);
    text.split('=').nth(1).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

/// Starts itself as a child process, alone in it, so that the peak is the writer's.
#[test]
fn writer_memory_does_not_grow_with_samples() {
    if let (Ok(file), Ok(n_samples)) = (std::env::var(CHILD_FILE), std::env::var(CHILD_SAMPLES)) {
        return write_as_child(&file, &n_samples);
    }
    let (small, large) = (peak_of_writing(16), peak_of_writing(256));
    eprintln!("peak resident {} MiB for 16 MiB, {} MiB for 256 MiB", small / MIB, large / MIB);
    assert!(large <= small + 8 * MIB, "{small} bytes for 16 MiB grew to {large} for 256 MiB");
}

/// Resident bytes of this process's mapping of `path`.
fn resident_of_mapping(path: &Path) -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let name = path.to_str().unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.ends_with(name)).skip(1);
    lines.find_map(|line| kilobytes(line, "Rss")).expect("the file is not mapped")
}

#[test]
fn selecting_a_layer_touches_its_pages_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("file");
    let n_samples = 32;
    write(&path, n_samples);
    let layer_bytes = n_samples * LAYER_BYTES_OF_SAMPLE;
    // The kernel maps up to 64 KiB around a page that it has in memory already, at each end of what is read, and
    // the header and the table of checksums are read on opening.
    let around = MIB / 2;

    let plan = Acts::load(&path).unwrap();
    let opened = resident_of_mapping(&path);
    assert!(opened <= around, "opening touched {opened} bytes");
    let layer = plan.select_layer(8).unwrap().realize().unwrap();
    let selected = resident_of_mapping(&path);
    eprintln!("{opened} bytes resident after opening, {selected} with one layer of {layer_bytes} of {}", LAYERS.len());
    assert!(layer_bytes <= selected, "the layer is not read through the mapping: {selected} bytes");
    assert!(selected <= layer_bytes + around, "one layer of {layer_bytes} bytes touched {selected}");
    drop(layer);

    let samples = plan.select_layer(0).unwrap().slice_batch(8..16).unwrap().realize().unwrap();
    let selected = resident_of_mapping(&path);
    assert!(selected <= samples.bytes().len() + 2 * around, "8 samples touched {selected} bytes");
}
