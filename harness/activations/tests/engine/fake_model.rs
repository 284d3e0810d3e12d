//! A fake model whose activations are hashes of the tokens that a token attends to: a vector computed from the wrong
//! tokens, at the wrong position or at the wrong index of a batch has other bytes. It caches prefix tokens for the next
//! batch as the real model does, has its own pooling, and counts its work.

use std::sync::Mutex;

use actbench_activations::Result;
use actbench_activations::model::session::ComputedLayer;
use actbench_activations::model::{ActivationModel, LayerOutput, ModelSession, ModelStep, StepwiseSession, TokenBatch};
use actbench_activations::plan::{ActTensor, Axes, SequenceMask};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{DType, DeviceUsage, KernelError, PoolGroups, PoolMethod};
use bytes::Bytes;

/// Columns of the residual stream: not a power of two, so that wrong strides change bytes.
pub const HIDDEN: usize = 5;
/// Token ids are below this; few, so that random sequences share prefixes.
pub const VOCABULARY: u32 = 3;

pub struct FakeModel {
    pub n_layers: usize,
    pub dtype: DType,
    /// The run that fails, counted from 0.
    pub fails_at: Option<usize>,
    /// The most tokens of a batch that fit its memory; larger batches fail as on a device.
    pub memory_tokens: Option<usize>,
    /// The tokens of a batch that keep its device busy; none of a model in host memory.
    pub filled_batch_tokens: Option<usize>,
    /// Streams of batches.
    pub n_streams: usize,
    pub log: Mutex<ModelLog>,
}

/// The work that the model has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelLog {
    pub runs: usize,
    /// Own tokens of all batches.
    pub tokens: usize,
    /// Tokens of all batches that the last layer was computed for.
    pub last_layer_tokens: usize,
    /// The layers of the last run.
    pub layers: Vec<usize>,
    /// Bytes emitted.
    pub bytes: usize,
}

#[derive(Default)]
struct FakePrefixCache {
    /// Of each cached token, the tokens that it attends to.
    tokens: Vec<Vec<u32>>,
    last_layer: Vec<Vec<u32>>,
}

impl FakeModel {
    pub fn new(n_layers: usize, dtype: DType) -> Self {
        FakeModel {
            n_layers,
            dtype,
            fails_at: None,
            memory_tokens: None,
            filled_batch_tokens: None,
            n_streams: 1,
            log: Mutex::default(),
        }
    }

    /// A model whose run number `run` fails.
    pub fn failing_at(run: usize, n_layers: usize, dtype: DType) -> Self {
        FakeModel { fails_at: Some(run), ..FakeModel::new(n_layers, dtype) }
    }

    pub fn log(&self) -> ModelLog {
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
                let start = ((sample * layers.len() + layer) * s + position) * HIDDEN;
                values[start..start + HIDDEN].copy_from_slice(&vector(&sequence.ids[..=position], layers[layer]));
            }
        }
        let mask = SequenceMask::new(n, s, mask).unwrap();
        let bytes = Bytes::from(self.dtype.from_f32_slice(&values));
        ActTensor::new(Axes::BLSH, &[n, layers.len(), s, HIDDEN], self.dtype, layers, Some(mask), bytes).unwrap()
    }
}

/// The activation of a token that attends to `tokens`, at `layer`, before it is rounded to the model's dtype.
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

/// Pools by the definition: `f32`, position after position, one rounding.
fn pool(vectors: &[Vec<f32>], groups: &PoolGroups, method: PoolMethod, dtype: DType) -> Vec<u8> {
    let mut out = Vec::new();
    for group in 0..groups.len() {
        let members: Vec<&Vec<f32>> = groups.rows_of(group).iter().map(|index| &vectors[*index as usize]).collect();
        for column in 0..HIDDEN {
            let column: Vec<f32> = members.iter().map(|vector| vector[column]).collect();
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

    fn streams(&self) -> usize {
        self.n_streams
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        Ok(self.filled_batch_tokens)
    }

    fn reserve(&self, _tokens: usize) -> Result<()> {
        Ok(())
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        Ok(None)
    }

    fn reset_device_usage(&self) -> Result<()> {
        Ok(())
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        let (layers, mut cache) = (layers.to_vec(), FakePrefixCache::default());
        Ok(Box::new(StepwiseSession::new(self.n_streams, move |step: &ModelStep| self.run(step, &layers, &mut cache))))
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        100 * (n_blocks * batch.ids.len()) as u64
    }
}

impl FakeModel {
    fn run(&self, step: &ModelStep, layers: &[usize], cache: &mut FakePrefixCache) -> Result<Vec<ComputedLayer>> {
        let batch = &step.batch;
        assert!(layers.is_sorted_by(|a, b| a < b) && layers.iter().all(|layer| *layer < self.n_layers));
        assert_eq!(batch.ids.len(), batch.positions.len());
        assert!(batch.ids.iter().all(|id| *id < VOCABULARY));
        if batch.n_cached > 0 {
            assert_eq!(cache.tokens.len(), batch.n_cached, "cache of another session");
        }
        {
            let mut log = self.log.lock().unwrap();
            if self.fails_at == Some(log.runs) {
                return Err(actbench_activations::Error::Numeric("the fake model fails by request".to_owned()));
            }
            if self.memory_tokens.is_some_and(|max| batch.ids.len() > max) {
                let bytes = batch.ids.len() * HIDDEN;
                return Err(KernelError::OutOfMemory { op: "alloc", bytes, device: "fake".to_owned() }.into());
            }
            log.runs += 1;
            log.tokens += batch.ids.len();
            log.last_layer_tokens += batch.last_layer.as_ref().map_or(batch.ids.len(), |left| left.tokens.len());
            log.layers = layers.to_vec();
        }

        let token_id = |index: usize| match index.checked_sub(batch.ids.len()) {
            None => batch.ids[index],
            Some(cached) => *cache.tokens[cached].last().unwrap(),
        };
        let attended = |segments: &[AttentionSegment], n_queries: usize| -> Vec<Vec<u32>> {
            let mut attended = vec![None; n_queries];
            for segment in segments {
                let keys: Vec<u32> =
                    segment.keys.iter().flat_map(|&(first, len)| first..first + len).map(token_id).collect();
                for offset in 0..segment.len {
                    let tokens = keys[..=segment.start_position + offset].to_vec();
                    let before = attended[segment.query_row + offset].replace(tokens);
                    assert!(before.is_none(), "a query in two segments");
                }
            }
            attended.into_iter().map(|tokens| tokens.expect("a query in no segment")).collect()
        };
        let mut all = attended(&batch.layout.segments, batch.ids.len());
        for (tokens, position) in all.iter().zip(&batch.positions) {
            assert_eq!(tokens.len(), *position as usize + 1);
        }
        all.extend(cache.tokens.iter().cloned());
        let pruned = batch.last_layer.as_ref().map(|left| {
            assert_eq!(left.n_cached, cache.last_layer.len());
            let mut pruned = attended(&left.layout.segments, left.tokens.len());
            pruned.extend(cache.last_layer.iter().cloned());
            pruned
        });

        let mut computed = Vec::new();
        for layer in layers {
            let left = pruned.as_ref().filter(|_| Some(layer) == layers.last());
            let vectors: Vec<Vec<f32>> = left
                .unwrap_or(&all)
                .iter()
                .map(|tokens| self.dtype.to_f32_vec(&self.dtype.from_f32_slice(&vector(tokens, *layer))))
                .collect();
            let bytes = match step.output.as_layer_output() {
                LayerOutput::Tokens => self.dtype.from_f32_slice(&vectors.concat()),
                LayerOutput::Pooled { groups, last_layer_groups, method } => {
                    pool(&vectors, left.and(last_layer_groups).unwrap_or(groups), method, self.dtype)
                }
            };
            self.log.lock().unwrap().bytes += bytes.len();
            computed.push((*layer, bytes));
        }
        cache.tokens = batch.keep.iter().map(|index| all[*index as usize].clone()).collect();
        cache.last_layer = match (&batch.last_layer, pruned) {
            (Some(left), Some(pruned)) => left.keep.iter().map(|index| pruned[*index as usize].clone()).collect(),
            _ => Vec::new(),
        };
        Ok(computed)
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

/// Asserts that signature, mask and bytes agree.
#[track_caller]
pub fn assert_same(got: &ActTensor, expected: &ActTensor, what: &str) {
    assert_eq!(got.signature(), expected.signature(), "{what}");
    assert_eq!(got.mask(), expected.mask(), "{what}");
    assert_eq!(got.bytes(), expected.bytes(), "{what}");
}
