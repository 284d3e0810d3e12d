//! Bit-identical features on a real forward pass: lazy, lazy through a file and eager give the same feature bytes, for any
//! model, batch size, order of samples, number of threads and choice of optimizer rules.

use std::sync::Arc;

use actbench_activations::eager;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::{
    AttentionSpec, DecoderSpec, ExpertsSpec, MlpSpec, NormKind, NormPlacement, QueryKeyNorm,
};
use actbench_activations::model::tensor_names::{Part, TensorNames};
use actbench_activations::model::weights::Weights;
use actbench_activations::plan::{Acts, Axis, Rule, Rules};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::presets::{LlamaConfig, LlamaShape, Preset, PresetConfig};
use actbench_kernels::{Activation, CpuBackend, DType, PoolMethod, RouteRule};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

const VOCABULARY: usize = 61;

/// A model of a golden's size: any number of heads and of blocks, widths that no vector register divides.
#[derive(Clone, Debug)]
struct RandomModel {
    shape: LlamaShape,
    dtype: DType,
    seed: u64,
    parts: RandomParts,
}

/// What families have besides the parts of a Llama, in any combination.
#[derive(Clone, Debug)]
struct RandomParts {
    norm: NormKind,
    placement: NormPlacement,
    query_key_norm: QueryKeyNorm,
    parallel_residual: bool,
    soft_cap: Option<f32>,
    /// Windows of even and of odd blocks.
    windows: [Option<usize>; 2],
    /// Whether even and odd blocks are rotated.
    rotated: [bool; 2],
    /// Rotated columns of a head, as pairs left out.
    unrotated_pairs: usize,
    mlp: MlpSpec,
    experts: Option<ExpertsSpec>,
    /// Whether even and odd blocks have experts.
    routed: [bool; 2],
    qkv_bias: bool,
    learned_positions: bool,
    embedding_scale: Option<f64>,
}

/// Names for every part that a block can have.
const ALL_PARTS: &[(Part, &str)] = &[
    (Part::AttentionNorm, "attention_norm"),
    (Part::Query, "query"),
    (Part::Key, "key"),
    (Part::Value, "value"),
    (Part::QueryNorm, "query_norm"),
    (Part::KeyNorm, "key_norm"),
    (Part::AttentionOutput, "attention_output"),
    (Part::AttentionOutputNorm, "attention_output_norm"),
    (Part::MlpNorm, "mlp_norm"),
    (Part::Gate, "gate"),
    (Part::Up, "up"),
    (Part::Down, "down"),
    (Part::MlpOutputNorm, "mlp_output_norm"),
    (Part::Router, "router"),
    (Part::ExpertGate, "experts.*.gate"),
    (Part::ExpertUp, "experts.*.up"),
    (Part::ExpertDown, "experts.*.down"),
];

impl RandomParts {
    /// Gives `spec`, a Llama's, these parts.
    fn apply(&self, spec: &mut DecoderSpec) {
        spec.names = TensorNames { parts: ALL_PARTS, positions: Some("positions.weight"), ..spec.names };
        // Outputs have RMSNorm in every family, and a parallel residual and experts have norms of inputs alone.
        let layer_norm = self.norm == NormKind::Layer;
        let inputs_alone = layer_norm || self.parallel_residual || self.experts.is_some();
        spec.norm.kind = self.norm;
        spec.norm_placement = if inputs_alone { NormPlacement::Inputs } else { self.placement };
        spec.experts = self.experts;
        spec.parallel_residual = self.parallel_residual;
        spec.attention = AttentionSpec {
            soft_cap: self.soft_cap,
            qkv_bias: self.qkv_bias,
            query_key_norm: if layer_norm { QueryKeyNorm::None } else { self.query_key_norm },
            ..spec.attention
        };
        spec.mlp = self.mlp;
        let rotated = spec.head_dim / 2 - self.unrotated_pairs.min(spec.head_dim / 2 - 1);
        spec.ropes[0].rotary_dim = 2 * rotated;
        for (index, layer) in spec.layers.iter_mut().enumerate() {
            layer.window = self.windows[index % 2];
            layer.rope = layer.rope.filter(|_| self.rotated[index % 2]);
            layer.experts = self.experts.is_some() && self.routed[index % 2];
        }
        spec.embedding.learned_positions = self.learned_positions.then_some(64);
        spec.embedding.scale = self.embedding_scale;
    }
}

fn any_parts() -> impl Strategy<Value = RandomParts> {
    let norms = (
        select(vec![NormKind::Rms, NormKind::RmsPlusOne, NormKind::Layer]),
        select(vec![NormPlacement::Inputs, NormPlacement::Outputs, NormPlacement::Both]),
        select(vec![QueryKeyNorm::None, QueryKeyNorm::PerHead, QueryKeyNorm::Whole]),
        prop::bool::weighted(0.2),
    );
    let window = || prop::option::of(1usize..=30);
    let attention = (prop::option::of(0.5f32..30.0), [window(), window()], [any::<bool>(), any::<bool>()], 0usize..4);
    let mlp = (any::<bool>(), select(Activation::ALL.to_vec()), any::<bool>())
        .prop_map(|(gated, activation, bias)| MlpSpec { gated, activation, bias });
    let rule = (1usize..=3, any::<bool>(), any::<bool>()).prop_map(|(top_k, renormalize, rounded)| RouteRule {
        top_k,
        renormalize,
        rounded,
    });
    let experts = (3usize..=7, 5usize..=40, rule).prop_map(|(n, intermediate_size, rule)| ExpertsSpec {
        n,
        intermediate_size,
        rule,
    });
    let experts = (prop::option::of(experts), [any::<bool>(), any::<bool>()]);
    let others = (any::<bool>(), any::<bool>(), prop::option::of(1.0f64..9.0));
    (norms, attention, mlp, others, experts).prop_map(|(norms, attention, mlp, others, experts)| RandomParts {
        norm: norms.0,
        placement: norms.1,
        query_key_norm: norms.2,
        parallel_residual: norms.3,
        soft_cap: attention.0,
        windows: attention.1,
        rotated: attention.2,
        unrotated_pairs: attention.3,
        mlp,
        experts: experts.0,
        routed: experts.1,
        qkv_bias: others.0,
        learned_positions: others.1,
        embedding_scale: others.2,
    })
}

impl RandomModel {
    /// Loads all blocks, so that the rule `depth` can be off.
    fn load(&self, threads: usize) -> Arc<Decoder<CpuBackend>> {
        let llama = LlamaConfig {
            shape: self.shape,
            max_position_embeddings: 64,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            bos_token_id: 1,
            eos_token_id: 2,
        };
        let preset = Preset { name: "random", published: &[], config: PresetConfig::Llama(llama) };
        let mut spec = DecoderSpec::parse(&preset.config_json(), preset.name).unwrap();
        self.parts.apply(&mut spec);
        let options = LoadOptions { dtype: self.dtype, n_blocks: self.shape.n_layers, max_positions: 64 };
        let weights = Arc::new(Weights::synthetic(&preset, &spec, self.seed));
        let backend = CpuBackend::new(threads).unwrap();
        Arc::new(Decoder::load(backend, spec, weights, &options, &mut |_, _| ()).unwrap())
    }
}

fn any_model() -> impl Strategy<Value = RandomModel> {
    let widths = (9usize..=64, 17usize..=90, 1usize..=4);
    let heads = (1usize..=4, 1usize..=4, (2usize..=16).prop_map(|half| 2 * half));
    let dtype = select(vec![DType::F32, DType::F16, DType::Bf16]);
    (widths, heads, dtype, any::<u64>(), any_parts()).prop_map(|(widths, heads, dtype, seed, parts)| RandomModel {
        parts,
        shape: LlamaShape {
            vocab_size: VOCABULARY,
            hidden_size: widths.0,
            intermediate_size: widths.1,
            n_layers: widths.2,
            n_heads: heads.0 * heads.1,
            n_kv_heads: heads.0,
            head_dim: heads.2,
            tie_word_embeddings: true,
        },
        dtype,
        seed,
    })
}

/// Sequences that share prefixes of every length, with any masks, empty ones included.
fn any_tokens() -> impl Strategy<Value = TokenSet> {
    let token = (0u32..VOCABULARY as u32, any::<bool>());
    let stems = prop::collection::vec(prop::collection::vec(token.clone(), 0..20), 1..4);
    let tails = prop::collection::vec((any::<Index>(), prop::collection::vec((0u32..3, any::<bool>()), 1..12)), 1..24);
    (stems, tails).prop_map(|(stems, tails)| {
        let sequence = |(stem, tail): (Index, Vec<(u32, bool)>)| {
            let (ids, mask) = stem.get(&stems).iter().copied().chain(tail).unzip();
            TokenSequence { ids, mask }
        };
        TokenSet { sequences: tails.into_iter().map(sequence).collect() }
    })
}

/// Settings of an extraction that must not change a bit of its features.
#[derive(Clone, Debug)]
struct ExtractionSettings {
    lazy_batch: usize,
    eager_batch: usize,
    threads: usize,
    off: Vec<Rule>,
    /// Sort keys of the samples, for their order.
    order: Vec<u32>,
    on_disk: bool,
    /// Select layers before the pool, or after.
    select_first: bool,
}

fn any_settings() -> impl Strategy<Value = ExtractionSettings> {
    let sizes = (1usize..=64, 1usize..=64, 1usize..=4);
    let off = subsequence(Rule::ALL.to_vec(), 0..=Rule::ALL.len());
    let order = prop::collection::vec(any::<u32>(), 24);
    (sizes, off, order, any::<bool>(), any::<bool>()).prop_map(|(sizes, off, order, on_disk, select_first)| {
        ExtractionSettings {
            lazy_batch: sizes.0,
            eager_batch: sizes.1,
            threads: sizes.2,
            off,
            order,
            on_disk,
            select_first,
        }
    })
}

/// The bytes of all features at each of `layers`, in the order of `tokens`: eager with batches of one sample.
fn reference(model: &Decoder<CpuBackend>, tokens: &TokenSet, layers: &[usize], method: PoolMethod) -> Vec<Vec<u8>> {
    let full = eager::extract_full(model, tokens, layers, 1, None).unwrap().tensor;
    layers.iter().map(|layer| full.pool_layer(*layer, method).unwrap().bytes().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn lazy_cached_and_eager_features_are_bit_identical(
        case in any_model(), tokens in any_tokens(), method in select(PoolMethod::ALL.to_vec()), settings in any_settings(),
        layers in subsequence(vec![0usize, 1, 2, 3], 1..=4).prop_shuffle(),
    ) {
        let mut layers: Vec<usize> = layers.into_iter().filter(|layer| *layer < case.shape.n_layers).collect();
        if layers.is_empty() {
            layers.push(case.shape.n_layers - 1);
        }
        let tokens = Arc::new(tokens);
        let expected = reference(&case.load(1), &tokens, &layers, method);
        let row_bytes = case.shape.hidden_size * case.dtype.size();
        let row = |bytes: &[u8], sample: usize| bytes[sample * row_bytes..(sample + 1) * row_bytes].to_vec();
        prop_assert!(expected.iter().all(|layer| layer.len() == tokens.len() * row_bytes));

        // The same samples in another order, by a plan and by eager extraction.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|sample| settings.order[*sample]);
        let sequences = order.iter().map(|sample| tokens.sequences[*sample].clone()).collect();
        let shuffled = Arc::new(TokenSet { sequences });
        let model = case.load(settings.threads);
        let rules = settings.off.iter().copied().fold(Rules::all(), Rules::without);
        let plan = Acts::collect(model.clone(), shuffled.clone(), &layers, settings.lazy_batch).unwrap().with_rules(rules);
        let (kept, directory) = (&layers[..layers.len().div_ceil(2)], tempfile::tempdir().unwrap());
        let path = settings.on_disk.then(|| directory.path().join("pooled.safetensors"));
        let plan = if settings.select_first { plan.select_layers(kept).unwrap() } else { plan };
        let plan = plan.pool(method, Axis::Sequence).unwrap();
        let cached = plan.cache(path.as_deref()).unwrap();
        let original_order: Vec<i64> = (0..tokens.len())
            .map(|sample| order.iter().position(|other| *other == sample).unwrap() as i64)
            .collect();
        let whole = eager::extract_full(model.as_ref(), &shuffled, &layers, settings.eager_batch, None).unwrap().tensor;
        for (index, layer) in kept.iter().enumerate() {
            let lazy = cached.select_layer(*layer).unwrap().slice_batch(original_order.clone()).unwrap().realize().unwrap();
            let pooled = whole.pool_layer(*layer, method).unwrap();
            let streamed = eager::extract_layer_pooled(
                model.as_ref(), &shuffled, *layer, settings.eager_batch, method, None,
            ).unwrap().tensor;
            for (sample, position) in original_order.iter().enumerate() {
                let expected = row(&expected[index], sample);
                prop_assert!(row(lazy.bytes(), sample) == expected, "lazy, layer {}, sample {}", layer, sample);
                for eager in [&pooled, &streamed] {
                    prop_assert!(row(eager.bytes(), *position as usize) == expected, "eager, layer {}, sample {}", layer, sample);
                }
            }
        }
        let stats = plan.stats();
        prop_assert!(!rules.has(Rule::Packing) || stats.tokens_computed <= stats.tokens_total);
    }
}
