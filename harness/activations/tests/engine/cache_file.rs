//! Cache files: their contents for other readers, when they are reused, and that only complete files are accepted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fake_model::{FakeModel, HIDDEN, assert_same, three_sequences};
use actbench_activations::model::LAYER_NUMBERING;
use actbench_activations::plan::cache_file::CacheWriter;
use actbench_activations::plan::{ActTensor, Acts, Axes, Axis, Rule, Rules, SequenceMask};
use actbench_kernels::DType;
use proptest::prelude::*;
use safetensors::SafeTensors;

pub fn collect(dtype: DType, layers: &[usize]) -> Acts {
    Acts::collect(Arc::new(FakeModel::new(6, dtype)), Arc::new(three_sequences()), layers, 2).unwrap()
}

pub fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opens `path` and reads all of it.
pub fn read(path: &Path) -> actbench_activations::Result<ActTensor> {
    Acts::load(path)?.realize()
}

#[track_caller]
fn assert_refused(path: &Path, expected: &str) {
    let error = read(path).expect_err("expected an error");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(error.exit_code(), 2, "{error}");
}

#[test]
fn safetensors_reader_finds_one_tensor_per_layer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.safetensors");
    let plan = collect(DType::Bf16, &[4, 1]);
    plan.save(&path).unwrap();
    assert_eq!(entries(directory.path()), ["full.safetensors"]);

    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    assert_eq!(names, ["checksums", "layer.1", "layer.4", "mask"]);
    let full = plan.realize().unwrap();
    for id in [1, 4] {
        let layer = file.tensor(&format!("layer.{id}")).unwrap();
        assert_eq!((layer.dtype(), layer.shape()), (safetensors::Dtype::BF16, [3, 4, HIDDEN].as_slice()));
        assert_eq!(layer.data(), full.select_layer(id).unwrap().bytes());
    }
    let mask = file.tensor("mask").unwrap();
    assert_eq!((mask.dtype(), mask.shape()), (safetensors::Dtype::BOOL, [3, 4].as_slice()));
    assert_eq!(mask.data()[..4], [0, 1, 1, 0]);

    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let entry = |name: &str| metadata[name].as_str();
    assert_eq!((entry("axes"), entry("shape"), entry("dtype")), ("blsh", "[3,2,4,5]", "bf16"));
    assert_eq!((entry("layer_ids"), entry("format_version")), ("[4,1]", "2"));
    assert_eq!((entry("layer_numbering"), entry("samples")), (LAYER_NUMBERING, "false"));
    assert_eq!(entry("plan_fingerprint"), plan.fingerprint().unwrap().digest());

    let single = directory.path().join("single.safetensors");
    plan.select_layer(4).unwrap().mean_pool(Axis::Sequence).unwrap().save(&single).unwrap();
    let bytes = fs::read(&single).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("activations").unwrap().shape(), [3, HIDDEN]);
    assert!(file.tensor("mask").is_err());
}

#[test]
fn batch_order_does_not_change_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let bytes = |plan: Acts| {
        plan.save(&path).unwrap();
        fs::read(&path).unwrap()
    };
    let plan = || collect(DType::F16, &[0, 3, 2]).slice_batch(vec![2, 0, 1, 0, -1]).unwrap();
    let first = bytes(plan());
    assert_eq!(bytes(plan()), first);
    assert_eq!(bytes(plan().with_rules(Rules::none())), first);
    assert_eq!(bytes(plan().with_rules(Rules::all().without(Rule::Prefix))), first);
}

#[test]
fn file_is_reused_only_by_its_plan() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pooled.safetensors");
    let model = Arc::new(FakeModel::new(6, DType::Bf16));
    let full = Acts::collect(model.clone(), Arc::new(three_sequences()), &[1, 4], 2).unwrap();
    let plan = full.mean_pool(Axis::Sequence).unwrap();
    let copy = plan.cache(Some(&path)).unwrap();
    let runs = model.log().runs;
    assert!(runs > 0);
    let again = plan.cache(Some(&path)).unwrap();
    assert_same(&again.realize().unwrap(), &copy.realize().unwrap(), "reused");
    assert_eq!(model.log().runs, runs, "the model ran although the file exists");

    let other = full.max_pool(Axis::Sequence).unwrap().cast(DType::F32).unwrap();
    let error = other.cache(Some(&path)).unwrap_err();
    let message = error.to_string();
    for part in ["the dtype (file: bf16, plan: f32)", "the pooling (file: mean_pool(s), plan: max_pool(s) cast(f32))"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(message.contains("was written for other settings: "), "{message}");
    assert!(message.contains("delete it or use another path"), "{message}");
    assert_eq!(error.exit_code(), 2);
    // `save` replaces an existing file, `cache` does not.
    other.save(&path).unwrap();
    assert_same(&read(&path).unwrap(), &other.realize().unwrap(), "replaced");
    assert_same(&copy.realize().unwrap(), &plan.realize().unwrap(), "the old file, still mapped");
}

#[test]
fn file_of_other_samples_names_the_data_set() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pooled");
    let pooled = |plan: Acts| plan.mean_pool(Axis::Sequence).unwrap();
    pooled(collect(DType::Bf16, &[1, 4])).save(&path).unwrap();
    let refused = |plan: Acts| plan.cache(Some(&path)).unwrap_err().to_string();
    let message = refused(pooled(collect(DType::Bf16, &[1, 4]).slice_batch(1..).unwrap()));
    assert!(
        message.contains("the data set or its samples (file: ")
            && message.ends_with(" changed; delete it or use another path"),
        "{message}"
    );
    assert!(!message.contains("mask") && !message.contains("shape"), "{message}");
    assert!(message.split_whitespace().all(|word| word.len() < 64 || word.contains('/')), "{message}");
    let message = refused(pooled(collect(DType::Bf16, &[1])));
    assert!(message.contains("the layers (file: 1,4, plan: 1) changed"), "{message}");
}

#[test]
fn cache_of_a_cache_keeps_its_fingerprint() {
    let directory = tempfile::tempdir().unwrap();
    let full = collect(DType::Bf16, &[1, 4]);
    let cached = full.cache(Some(&directory.path().join("full"))).unwrap();
    let pooled = |plan: &Acts| plan.mean_pool(Axis::Sequence).unwrap().select_layer(4).unwrap();
    assert_eq!(pooled(&cached).fingerprint().unwrap(), pooled(&full).fingerprint().unwrap());
    let path = directory.path().join("pooled");
    pooled(&cached).cache(Some(&path)).unwrap();
    pooled(&full).cache(Some(&path)).unwrap();
    let sliced = pooled(&cached).slice_batch(1..).unwrap().fingerprint().unwrap();
    let differences = sliced.differences(&pooled(&cached).fingerprint().unwrap()).len();
    assert_eq!(differences, 3, "tokens, mask and shape");
}

#[test]
fn incomplete_or_foreign_file_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
    write(b"");
    assert_refused(&path, "not a cache file");
    write(b"label,statement\n1,Water is wet.\n");
    assert_refused(&path, "not a safetensors file");
    let foreign = safetensors::serialize(
        [("x", safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![2], &[1, 2]).unwrap())],
        None,
    );
    write(&foreign.unwrap());
    assert_refused(&path, "not an activation cache of actbench");
    assert_refused(directory.path(), "is not a file");
    let missing = directory.path().join("missing");
    assert_refused(&missing, "cannot open");

    collect(DType::F32, &[1, 4]).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in [7, 8, 100, 4095, 4096, 4097, whole.len() - 32, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert_refused(&path, if len < 8 { "not a cache file" } else { "truncated" });
    }
    let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
    fs::write(&path, longer).unwrap();
    assert_refused(&path, "too long");
    let text =
        String::from_utf8_lossy(&whole[8..4096]).replacen("\"format_version\":\"2\"", "\"format_version\":\"9\"", 1);
    fs::write(&path, [&whole[..8], text.as_bytes(), &whole[4096..]].concat()).unwrap();
    assert_refused(&path, "format version 9, but this version of actbench reads versions 1 and 2; delete it");
}

#[test]
fn impossible_header_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    collect(DType::F32, &[1]).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&whole[8..4096]).into_owned();
    let max = usize::MAX.to_string();
    let changes = [
        ("[3,1,4,5]", format!("[{max},1,4,5]")),
        ("[3,1,4,5]", format!("[{max},1,0,5]")),
        ("[3,1,4,5]", "[3,1,4,0]".to_owned()),
        ("[3,1,4,5]", "[3,1,4]".to_owned()),
        ("[3,1,4,5]", "[3,7,4,5]".to_owned()),
        ("\"layer_ids\":\"[1]\"", "\"layer_ids\":\"[-1]\"".to_owned()),
        ("\"layer_ids\":\"[1]\"", "\"layer_ids\":\"[2]\"".to_owned()),
        ("\"axes\":\"blsh\"", "\"axes\":\"bslh\"".to_owned()),
        ("\"dtype\":\"f32\"", "\"dtype\":\"f16\"".to_owned()),
        ("\"mask\":\"true\"", "\"mask\":\"false\"".to_owned()),
        ("\"fingerprint_parts\"", "\"fingerprint_crumbs\"".to_owned()),
    ];
    for (from, to) in changes {
        let changed = text.replacen(from, &to, 1);
        assert_ne!(changed, text, "{from} is not in the header");
        let length = (changed.len() as u64).to_le_bytes();
        fs::write(&path, [&length, changed.as_bytes(), &whole[4096..]].concat()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("delete it"), "{to}");
    }
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, lying).unwrap();
    assert_refused(&path, "not a safetensors file");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn flipped_bit_is_always_detected(position in any::<prop::sample::Index>(), bit in 0..8, pooled in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut plan = collect(DType::Bf16, &[1, 4]);
        if pooled {
            plan = plan.sum_pool(Axis::Sequence).unwrap();
        }
        plan.save(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let position = position.index(bytes.len());
        bytes[position] ^= 1u8 << bit;
        fs::write(&path, bytes).unwrap();
        let error = read(&path).expect_err("a flipped bit was not detected");
        prop_assert!(error.to_string().starts_with(path.to_str().unwrap()), "{}", error);
    }
}

/// `[12, 3, 40000]` in f32: 160,000 bytes a sample and layer, so a chunk of 1 MiB has six samples and a layer two chunks.
fn large() -> ActTensor {
    let values: Vec<f32> = (0..12 * 3 * 40_000).map(|index| (index % 7919) as f32).collect();
    ActTensor::from_f32(Axes::BLH, &[12, 3, 40_000], DType::F32, [2, 5, 7], None, &values).unwrap()
}

#[test]
fn selection_reads_only_its_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    Acts::from_tensor(large()).save(&path).unwrap();
    // Damages the last sample of layer 5; only its chunk must be refused.
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header + 2 * 12 * 160_000 - 1] ^= 1;
    fs::write(&path, bytes).unwrap();

    let plan = Acts::load(&path).unwrap();
    for layer in [2, 7] {
        assert_same(
            &plan.select_layer(layer).unwrap().realize().unwrap(),
            &large().select_layer(layer).unwrap(),
            "other layers",
        );
    }
    let first = plan.select_layers(&[5]).unwrap().slice_batch(vec![5, 0, 3]).unwrap();
    let expected = large().select_layers(&[5]).unwrap().slice_batch(vec![5, 0, 3]).unwrap();
    assert_same(&first.realize().unwrap(), &expected, "other samples");
    let error = plan.select_layer(5).unwrap().slice_batch(6..7).unwrap().realize().unwrap_err().to_string();
    assert!(error.contains("layer.5 of samples 6 to 11 (chunk 3, bytes"), "{error}");
    let error = plan.iter_layers().unwrap().nth(1).unwrap().unwrap_err();
    assert!(error.to_string().starts_with(path.to_str().unwrap()) && error.exit_code() == 2, "{error}");
}

#[test]
fn chunks_round_trip_in_any_write_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    let tensor = large();
    let fingerprint = Acts::from_tensor(tensor.clone()).fingerprint().unwrap();
    let mut writer = CacheWriter::create(&path, tensor.signature().clone(), fingerprint, None).unwrap();
    for positions in [[3, 11, 4], [0, 1, 2], [10, 9, 8], [7, 5, 6]] {
        let part = tensor.slice_batch(positions.map(|position| position as i64).to_vec()).unwrap();
        let pairs: Vec<(usize, usize)> = positions.into_iter().zip(0..).collect();
        writer.put(&pairs, &part).unwrap();
    }
    writer.finish().unwrap();
    assert_same(&read(&path).unwrap(), &tensor, "scattered");
    let scattered = fs::read(&path).unwrap();
    Acts::from_tensor(tensor).save(&path).unwrap();
    assert!(fs::read(&path).unwrap() == scattered, "the order of writing changes the file");
}

#[test]
fn writer_refuses_foreign_samples_and_second_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let tensor = collect(DType::F32, &[1]).realize().unwrap();
    let create = || {
        let fingerprint = Acts::from_tensor(tensor.clone()).fingerprint().unwrap();
        CacheWriter::create(&path, tensor.signature().clone(), fingerprint, None)
    };
    let mut writer = create().unwrap();
    assert!(writer.put(&[(0, 0)], &tensor.cast(DType::F16).unwrap()).is_err());
    assert!(writer.put(&[(3, 0)], &tensor).is_err());
    assert!(writer.put(&[(0, 3)], &tensor).is_err());
    writer.put(&[(0, 0), (1, 1)], &tensor).unwrap();
    let second = create().err().expect("two writers at once").to_string();
    assert!(second.contains("another process is writing"), "{second}");
    assert!(writer.finish().unwrap_err().to_string().contains("sample 2 was never computed"));
    assert_eq!(entries(directory.path()), [""; 0]);
    assert!(CacheWriter::create(Path::new("/"), tensor.signature().clone(), Default::default(), None).is_err());
}

#[test]
fn failed_write_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let old = collect(DType::F32, &[1]);
    old.save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let failing = Arc::new(FakeModel::failing_at(1, 6, DType::F32));
    let plan = Acts::collect(failing, Arc::new(three_sequences()), &[2], 1).unwrap();
    let error = plan.with_rules(Rules::all().without(Rule::Packing)).save(&path).unwrap_err();
    assert!(error.to_string().contains("fails by request"), "{error}");
    assert_eq!(entries(directory.path()), ["file"]);
    assert_eq!(fs::read(&path).unwrap(), before);

    let nowhere: PathBuf = directory.path().join("no directory").join("file");
    let error = old.save(&nowhere).unwrap_err().to_string();
    assert!(error.contains("cannot create") && error.contains("no directory"), "{error}");
}

#[test]
fn interrupted_write_keeps_its_finished_samples() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let model = Arc::new(FakeModel::new(6, DType::F32));
    let plan = Acts::collect(model.clone(), Arc::new(three_sequences()), &[2], 1).unwrap();
    let plan = plan.with_rules(Rules::all().without(Rule::Packing));
    let error = plan.with_interrupt(|| true).save(&path).unwrap_err();
    assert_eq!(error.exit_code(), 130, "{error}");
    assert_eq!(entries(directory.path()), [".file.partial"]);
    let first = model.log().runs;
    plan.save(&path).unwrap();
    let both = model.log().runs;
    assert_eq!(entries(directory.path()), ["file"]);
    let resumed = fs::read(&path).unwrap();
    plan.save(&path).unwrap();
    assert!(fs::read(&path).unwrap() == resumed, "the file of an interrupted write differs");
    assert_eq!(both, model.log().runs - both, "{first} runs of the interrupted write were repeated");
}

#[test]
fn interrupted_copy_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let copied = Acts::from_tensor(collect(DType::F32, &[1]).realize().unwrap());
    assert!(copied.with_interrupt(|| true).save(directory.path().join("file")).is_err());
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[test]
fn foreign_partial_file_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(directory.path().join(".file.partial"), vec![0xAB; 100_000]).unwrap();
    assert!(Acts::load(&path).is_err(), "a partial file was accepted");
    let plan = collect(DType::F32, &[1]);
    assert_same(&plan.cache(Some(&path)).unwrap().realize().unwrap(), &plan.realize().unwrap(), "overwritten");
    assert_eq!(entries(directory.path()), ["file"]);
}

#[test]
fn empty_and_unmasked_activations_round_trip() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let empty = collect(DType::Bf16, &[1, 4]).slice_batch(..0).unwrap();
    empty.save(&path).unwrap();
    assert_same(&read(&path).unwrap(), &empty.realize().unwrap(), "no samples");
    let values = [f32::NAN, f32::INFINITY, -0.0, 1e-40];
    let unmasked = ActTensor::from_f32(Axes::BSH, &[2, 1, 2], DType::F32, [], None, &values).unwrap();
    Acts::from_tensor(unmasked.clone()).save(&path).unwrap();
    assert_same(&read(&path).unwrap(), &unmasked, "no mask, no layers");
    let mask = SequenceMask::new(2, 1, vec![true, false]).unwrap();
    let masked = ActTensor::from_f32(Axes::BSH, &[2, 1, 2], DType::F32, [9], Some(mask), &values).unwrap();
    Acts::from_tensor(masked.clone()).save(&path).unwrap();
    assert_same(&read(&path).unwrap(), &masked, "a mask and one layer");
}
