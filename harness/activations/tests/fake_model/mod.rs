//! A model whose every activation names the tokens that its row may see, so that a row computed from the wrong
//! tokens, at the wrong position or in the wrong place of a batch shows in its bytes. It keeps rows for the next
//! batch as the real one does, pools on its own, and counts what it was asked for.
// Each test file uses some of it; and like any test, it panics where something is wrong.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::sync::Mutex;

use actbench_activations::Result;
use actbench_activations::model::{ActivationModel, LayerOutput, LayerSink, TokenBatch};
use actbench_activations::plan::{ActTensor, Axes, SequenceMask};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{DType, KernelError, PoolGroups, PoolMethod};
use bytes::Bytes;

/// Columns of the residual stream: no power of two, so that strides that are mixed up show.
pub const HIDDEN: usize = 5;
/// Token ids are below this; few, so that random sequences share prefixes.
pub const VOCABULARY: u32 = 3;

pub struct FakeModel {
    pub n_layers: usize,
    pub dtype: DType,
    /// Fails at this run, counted from 0.
    pub fails_at: Option<usize>,
    /// Rows of a batch that its memory has room for; larger batches are refused as a device does.
    pub memory_rows: Option<usize>,
    /// Walks that it takes side by side.
    pub n_lanes: usize,
    pub log: Mutex<Log>,
    kept: Mutex<Kept>,
}

/// What the model was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub runs: usize,
    /// Own rows of all batches.
    pub rows: usize,
    /// Rows of all batches that the deepest layer was computed for.
    pub deepest_rows: usize,
    /// The layers of the last run.
    pub layers: Vec<usize>,
    /// Bytes handed out.
    pub bytes: usize,
}

#[derive(Default)]
struct Kept {
    walk: u64,
    rows: Vec<Vec<u32>>,
    deepest: Vec<Vec<u32>>,
}

impl FakeModel {
    pub fn new(n_layers: usize, dtype: DType) -> Self {
        FakeModel {
            n_layers,
            dtype,
            fails_at: None,
            memory_rows: None,
            n_lanes: 1,
            log: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// A model that fails at its run number `run`.
    pub fn failing_at(run: usize, n_layers: usize, dtype: DType) -> Self {
        FakeModel { fails_at: Some(run), ..FakeModel::new(n_layers, dtype) }
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// All layers asked for of all samples, computed sample by sample from the definition.
    pub fn reference(&self, tokens: &TokenSet, layers: &[usize]) -> ActTensor {
        let (n, s) = (tokens.len(), tokens.max_len());
        let mut values = vec![0.0; n * layers.len() * s * HIDDEN];
        let mut mask = vec![false; n * s];
        for (sample, sequence) in tokens.sequences.iter().enumerate() {
            mask[sample * s..][..sequence.len()].copy_from_slice(&sequence.mask);
            for (position, layer) in (0..sequence.len()).flat_map(|p| (0..layers.len()).map(move |l| (p, l))) {
                let at = ((sample * layers.len() + layer) * s + position) * HIDDEN;
                values[at..at + HIDDEN].copy_from_slice(&vector(&sequence.ids[..=position], layers[layer]));
            }
        }
        let mask = SequenceMask::new(n, s, mask).unwrap();
        let bytes = Bytes::from(self.dtype.from_f32_slice(&values));
        ActTensor::new(Axes::BLSH, &[n, layers.len(), s, HIDDEN], self.dtype, layers, Some(mask), bytes).unwrap()
    }
}

/// The activation of a row that sees `tokens`, at `layer`, before it is rounded to the model's type.
fn vector(tokens: &[u32], layer: usize) -> [f32; HIDDEN] {
    std::array::from_fn(|column| {
        let words = tokens.iter().copied().chain([tokens.len() as u32, layer as u32, column as u32]);
        let hash = words.fold(0xcbf2_9ce4_8422_2325u64, |hash, word| {
            (hash ^ u64::from(word).wrapping_add(0x9e37_79b9)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
        });
        match hash % 41 {
            0 => -0.0,
            1 => 3.0e4,
            _ => ((hash >> 8) % 20_011) as f32 / 1711.0 - 5.5,
        }
    })
}

/// Pools by the definition, on its own: `f32`, position after position, one rounding.
fn pool(rows: &[Vec<f32>], groups: &PoolGroups, method: PoolMethod, dtype: DType) -> Vec<u8> {
    let mut out = Vec::new();
    for group in 0..groups.len() {
        let rows: Vec<&Vec<f32>> = groups.rows_of(group).iter().map(|row| &rows[*row as usize]).collect();
        for column in 0..HIDDEN {
            let column: Vec<f32> = rows.iter().map(|row| row[column]).collect();
            let sum = || column.iter().copied().reduce(|sum, value| sum + value).unwrap_or(0.0);
            out.push(match method {
                PoolMethod::Sum => sum(),
                PoolMethod::Mean => sum() / column.len().max(1) as f32,
                PoolMethod::Last => column.last().copied().unwrap_or(0.0),
                PoolMethod::Max => column.iter().copied().reduce(|a, b| if b > a { b } else { a }).unwrap_or(0.0),
            });
        }
    }
    dtype.from_f32_slice(&out)
}

impl ActivationModel for FakeModel {
    fn n_layers(&self) -> usize {
        self.n_layers
    }

    fn hidden_size(&self) -> usize {
        HIDDEN
    }

    fn vocab_size(&self) -> usize {
        VOCABULARY as usize
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn fingerprint(&self) -> &str {
        match self.dtype {
            DType::F32 => "fake-f32",
            DType::F16 => "fake-f16",
            DType::Bf16 => "fake-bf16",
        }
    }

    fn describe(&self) -> String {
        format!("fake, {} layers x {HIDDEN} in {}", self.n_layers, self.dtype)
    }

    fn lanes(&self) -> usize {
        self.n_lanes
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        100 * (n_blocks * batch.ids.len()) as u64
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let mut kept = self.kept.lock().unwrap();
        assert!(layers.is_sorted_by(|a, b| a < b) && layers.iter().all(|layer| *layer < self.n_layers));
        assert_eq!(batch.ids.len(), batch.positions.len());
        assert!(batch.ids.iter().all(|id| *id < VOCABULARY));
        if batch.n_carried > 0 {
            assert_eq!((kept.walk, kept.rows.len()), (batch.walk, batch.n_carried), "rows of another walk");
        }
        {
            let mut log = self.log.lock().unwrap();
            if self.fails_at == Some(log.runs) {
                return Err(actbench_activations::Error::Numeric("the model was told to fail".to_owned()));
            }
            if self.memory_rows.is_some_and(|rows| batch.ids.len() > rows) {
                let bytes = batch.ids.len() * HIDDEN;
                return Err(KernelError::OutOfMemory { op: "alloc", bytes, device: "fake".to_owned() }.into());
            }
            log.runs += 1;
            log.rows += batch.ids.len();
            log.deepest_rows += batch.deepest.as_ref().map_or(batch.ids.len(), |deepest| deepest.rows.len());
            log.layers = layers.to_vec();
        }

        let token_of = |row: usize| match row.checked_sub(batch.ids.len()) {
            None => batch.ids[row],
            Some(carried) => *kept.rows[carried].last().unwrap(),
        };
        let sees = |segments: &[AttentionSegment], n_rows: usize| -> Vec<Vec<u32>> {
            let mut rows = vec![None; n_rows];
            for segment in segments {
                let keys: Vec<u32> =
                    segment.keys.iter().flat_map(|&(first, len)| first..first + len).map(token_of).collect();
                for offset in 0..segment.len {
                    let row =
                        rows[segment.query_row + offset].replace(keys[..=segment.start_position + offset].to_vec());
                    assert!(row.is_none(), "a row in two segments");
                }
            }
            rows.into_iter().map(|row| row.expect("a row in no segment")).collect()
        };
        let mut all = sees(&batch.layout.segments, batch.ids.len());
        for (row, position) in all.iter().zip(&batch.positions) {
            assert_eq!(row.len(), *position as usize + 1);
        }
        all.extend(kept.rows.iter().cloned());
        let few = batch.deepest.as_ref().map(|deepest| {
            assert_eq!(deepest.n_carried, kept.deepest.len());
            let mut few = sees(&deepest.layout.segments, deepest.rows.len());
            few.extend(kept.deepest.iter().cloned());
            few
        });

        for layer in layers {
            let deepest = few.as_ref().filter(|_| Some(layer) == layers.last());
            let rows: Vec<Vec<f32>> = deepest
                .unwrap_or(&all)
                .iter()
                .map(|tokens| self.dtype.to_f32_vec(&self.dtype.from_f32_slice(&vector(tokens, *layer))))
                .collect();
            let bytes = match output {
                LayerOutput::Rows => self.dtype.from_f32_slice(&rows.concat()),
                LayerOutput::Pooled { groups, deepest_groups, method } => {
                    pool(&rows, deepest.and(deepest_groups).unwrap_or(groups), method, self.dtype)
                }
            };
            self.log.lock().unwrap().bytes += bytes.len();
            sink(*layer, &bytes)?;
        }
        kept.walk = batch.walk;
        kept.rows = batch.keep.iter().map(|row| all[*row as usize].clone()).collect();
        kept.deepest = match (&batch.deepest, few) {
            (Some(deepest), Some(few)) => deepest.keep.iter().map(|row| few[*row as usize].clone()).collect(),
            _ => Vec::new(),
        };
        Ok(())
    }
}

/// A token set from `(ids, mask)` pairs.
pub fn token_set(sequences: &[(&[u32], &[bool])]) -> TokenSet {
    let sequence = |(ids, mask): &(&[u32], &[bool])| TokenSequence { ids: ids.to_vec(), mask: mask.to_vec() };
    TokenSet { sequences: sequences.iter().map(sequence).collect() }
}

/// Three short sequences: two share a prefix, one has an empty mask.
pub fn three_sequences() -> TokenSet {
    token_set(&[
        (&[0, 1, 2, 1], &[false, true, true, false]),
        (&[2, 2], &[false, false]),
        (&[0, 1, 1], &[false, true, true]),
    ])
}

/// Signature, mask and bytes: everything of a tensor that must agree.
#[track_caller]
pub fn assert_same(got: &ActTensor, expected: &ActTensor, what: &str) {
    assert_eq!(got.signature(), expected.signature(), "{what}");
    assert_eq!(got.mask(), expected.mask(), "{what}");
    assert_eq!(got.bytes(), expected.bytes(), "{what}");
}
