//! The table of samples of a cache file, and files of the format version before it.

use std::fs;
use std::path::Path;

use crate::cache_file::{collect, entries, read};
use crate::fake_model::assert_same;
use actbench_activations::plan::Axis;
use actbench_activations::plan::cache_file::{CacheFile, CacheWriter, SampleTable};
use actbench_kernels::DType;
use safetensors::SafeTensors;

/// A table of the samples of [`collect`].
fn table() -> SampleTable {
    SampleTable {
        rows: vec![7, 2, 1 << 33],
        labels: vec![1, 0, 1],
        is_train: vec![1, 1, 0],
        settings: r#"{"mask":"content","seed":"0"}"#.to_owned(),
    }
}

#[test]
fn table_of_samples_is_written_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    // With axis s, so that a mask follows the table.
    let plan = collect(DType::Bf16, &[1, 4]);
    assert_same(
        &plan.cache_with_table(&path, &table()).unwrap().realize().unwrap(),
        &plan.realize().unwrap(),
        "values",
    );
    assert_eq!(CacheFile::open(&path).unwrap().sample_table().unwrap(), Some(table()));
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rows = file.tensor("rows").unwrap();
    assert_eq!((rows.dtype(), rows.shape()), (safetensors::Dtype::I64, [3].as_slice()));
    assert_eq!(rows.data()[..16], [7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        (file.tensor("labels").unwrap().data(), file.tensor("is_train").unwrap().data()),
        (&[1, 0, 1][..], &[1, 1, 0][..])
    );
    for name in ["rows", "labels", "is_train"] {
        let mut damaged = bytes.clone();
        let offset = file.tensor(name).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
        damaged[offset] ^= 1;
        fs::write(&path, damaged).unwrap();
        let error = CacheFile::open(&path).unwrap().sample_table().unwrap_err().to_string();
        assert!(error.contains(&format!("is damaged: {name} of samples 0 to 2")), "{error}");
    }
}

#[test]
fn file_with_another_table_is_refused_by_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let plan = collect(DType::F32, &[1]).mean_pool(Axis::Sequence).unwrap();
    plan.cache_with_table(&path, &table()).unwrap();
    plan.cache_with_table(&path, &table()).unwrap();
    let other = SampleTable { labels: vec![1, 1, 1], ..table() };
    let error = plan.cache_with_table(&path, &other).unwrap_err();
    assert!(error.to_string().contains("the same tokens as the data set, but other labels; delete it"), "{error}");
    assert_eq!(error.exit_code(), 2);
    let short = SampleTable { rows: vec![1], ..table() };
    let error = plan.save_with_table(&path, Some(&short)).unwrap_err();
    assert!(error.to_string().contains("rows has 1 entries for 3 samples"), "{error}");
    assert_eq!(entries(directory.path()), ["file"]);
}

#[test]
fn resumed_file_has_the_table_of_the_second_writer() {
    let directory = tempfile::tempdir().unwrap();
    let (path, killed) = (directory.path().join("file"), directory.path().join("killed"));
    let plan = collect(DType::F32, &[1]);
    let tensor = plan.realize().unwrap();
    let writer = |table: &SampleTable| {
        CacheWriter::resume(&path, tensor.signature().clone(), plan.fingerprint().unwrap(), Some(table)).unwrap()
    };
    let mut first = writer(&SampleTable { labels: vec![0, 0, 0], ..table() });
    first.put(&[(0, 0), (1, 1)], &tensor).unwrap();
    fs::copy(directory.path().join(".file.partial"), &killed).unwrap();
    drop(first);
    fs::rename(&killed, directory.path().join(".file.partial")).unwrap();
    let mut second = writer(&table());
    assert!(second.has(0) && second.has(1) && !second.has(2));
    second.put(&[(2, 2)], &tensor).unwrap();
    second.finish().unwrap();
    assert_eq!(CacheFile::open(&path).unwrap().sample_table().unwrap(), Some(table()));
    let uninterrupted = directory.path().join("uninterrupted");
    plan.save_with_table(&uninterrupted, Some(&table())).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&uninterrupted).unwrap());
}

/// `actbench cache --samples 6 --sweep-layers 1 --dtype fp32` at commit b9b19d0, before the table of samples.
#[test]
fn file_of_version_1_is_read_and_has_no_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cache_version_1.safetensors");
    let file = CacheFile::open(&path).unwrap();
    assert_eq!(file.sample_table().unwrap(), None);
    assert_eq!(file.signature().to_string(), "blh [6, 1, 192] f32");
    let values = read(&path).unwrap().to_f32_vec();
    assert!(values.iter().all(|value| value.is_finite()) && values.iter().any(|value| *value != 0.0));
    let directory = tempfile::tempdir().unwrap();
    let changed = directory.path().join("file");
    // A header of version 2 without its entries is not one that the writer makes.
    let bytes = fs::read(&path).unwrap();
    let text =
        String::from_utf8_lossy(&bytes[8..4096]).replacen("\"format_version\":\"1\"", "\"format_version\":\"2\"", 1);
    fs::write(&changed, [&bytes[..8], text.as_bytes(), &bytes[4096..]].concat()).unwrap();
    let error = read(&changed).unwrap_err().to_string();
    assert!(error.contains("is damaged: its header") && error.contains("delete it"), "{error}");
}
