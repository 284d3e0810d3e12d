//! The number of a model's parameters, from its configuration alone.

use super::spec::DecoderSpec;
use super::tensor_shapes::tensor_shapes;

impl DecoderSpec {
    /// The number of parameters: embedding, blocks, final norm and LM head. A tied LM head is counted once.
    pub fn n_parameters(&self) -> usize {
        tensor_shapes(self).values().map(|shape| shape.iter().product::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use actbench_fixtures::presets::{PRESETS, Preset, PresetConfig};

    use super::*;

    fn spec(preset: &Preset) -> DecoderSpec {
        DecoderSpec::parse(&preset.config_json(), preset.name).unwrap()
    }

    /// Parameters of the SigLIP tower of Gemma 3, 27 blocks of width 1152 over 4096 patches of 14 x 14 pixels.
    const GEMMA_3_VISION_TOWER: usize = 416_866_032;

    /// Parameters of the norm and the projection between the tower and a text part of width `hidden`.
    fn gemma_3_projector(hidden: usize) -> usize {
        1152 + 1152 * hidden
    }

    /// Family and number of parameters of each preset. Source: the model cards. GPT-2 is counted without its causal masks,
    /// which are buffers, and Qwen 3 of 0.6B and 1.7B without the LM head in their files, a copy of the tied embedding.
    fn published() -> BTreeMap<&'static str, (&'static str, usize)> {
        BTreeMap::from([
            // Not a published model: the sum over its tensors.
            ("tiny", ("llama", 3_935_424)),
            ("smollm2-135m", ("llama", 134_515_008)),
            ("smollm2-360m", ("llama", 361_821_120)),
            ("smollm2-1.7b", ("llama", 1_711_376_384)),
            ("tinyllama-1.1b", ("llama", 1_100_048_384)),
            ("llama-3.2-1b", ("llama", 1_235_814_400)),
            ("llama-3.2-3b", ("llama", 3_212_749_824)),
            ("llama-3.1-8b", ("llama", 8_030_261_248)),
            ("llama-3.1-70b", ("llama", 70_553_706_496)),
            ("gpt2", ("gpt2", 124_439_808)),
            ("gpt2-medium", ("gpt2", 354_823_168)),
            ("pythia-160m", ("gpt_neox", 162_322_944)),
            ("pythia-1.4b", ("gpt_neox", 1_414_647_808)),
            ("gemma-2b", ("gemma", 2_506_172_416)),
            ("gemma-2-2b", ("gemma2", 2_614_341_888)),
            ("gemma-2-9b", ("gemma2", 9_241_705_984)),
            ("gemma-3-1b", ("gemma3", 999_885_952)),
            // The cards count the vision tower, too.
            ("gemma-3-4b", ("gemma3", 4_300_079_472 - GEMMA_3_VISION_TOWER - gemma_3_projector(2560))),
            ("gemma-3-12b", ("gemma3", 12_187_325_040 - GEMMA_3_VISION_TOWER - gemma_3_projector(3840))),
            ("qwen2.5-0.5b", ("qwen2", 494_032_768)),
            ("qwen2.5-1.5b", ("qwen2", 1_543_714_304)),
            ("qwen2.5-7b", ("qwen2", 7_615_616_512)),
            ("qwen3-0.6b", ("qwen3", 596_049_920)),
            ("qwen3-1.7b", ("qwen3", 1_720_574_976)),
            ("qwen3-8b", ("qwen3", 8_190_735_360)),
            ("mistral-7b", ("mistral", 7_241_732_096)),
            ("mixtral-8x7b", ("mixtral", 46_702_792_704)),
            ("qwen3-30b-a3b", ("qwen3_moe", 30_532_122_624)),
            ("phi-3-mini", ("phi3", 3_821_079_552)),
            ("phi-4-mini", ("phi3", 3_836_021_760)),
            ("olmo-2-1b", ("olmo2", 1_484_916_736)),
            ("smollm3-3b", ("smollm3", 3_075_098_624)),
        ])
    }

    #[test]
    fn parameter_counts_equal_published_ones() {
        let counted = PRESETS.iter().map(|preset| {
            let spec = spec(preset);
            (preset.name, (spec.family, spec.n_parameters()))
        });
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), published());
    }

    #[test]
    fn presets_are_sorted_by_size() {
        assert!(PRESETS.is_sorted_by_key(|preset| spec(preset).n_parameters()));
    }

    #[test]
    fn tensors_of_llama_presets_are_those_of_their_shape() {
        let mut compared = 0;
        for preset in PRESETS {
            let PresetConfig::Llama(llama) = preset.config else { continue };
            let tensors = llama.shape.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape));
            assert_eq!(tensors.collect::<BTreeMap<_, _>>(), tensor_shapes(&spec(preset)), "{}", preset.name);
            compared += 1;
        }
        assert_eq!(compared, 9);
    }

    #[test]
    fn presets_have_the_parts_of_their_families() {
        let named = |name: &str| spec(Preset::find(name).unwrap());
        let windows = |name: &str| named(name).windows().into_iter().collect::<Vec<_>>();
        assert_eq!(windows("mistral-7b"), [None]);
        assert_eq!(windows("qwen2.5-7b"), [None]);
        assert_eq!(windows("phi-3-mini"), [Some(2047)]);
        assert_eq!(windows("gemma-2-9b"), [None, Some(4096)]);
        assert_eq!(windows("gemma-3-12b"), [None, Some(1024)]);
        let without_rope = named("smollm3-3b").layers.iter().filter(|layer| layer.rope.is_none()).count();
        assert_eq!(without_rope, 9);
        assert_eq!(named("gpt2").embedding.learned_positions, Some(1024));
        assert!(named("pythia-1.4b").parallel_residual);
        assert_eq!(named("gemma-2-2b").attention.soft_cap, Some(50.0));
        // The published numbers of active parameters, 12.9 and 3.3 billion, count the embedding and the LM head.
        let active = |name: &str| {
            let spec = named(name);
            let blocks: u64 = (0..spec.n_layers).map(|layer| spec.linear_flops(layer) / 2).sum();
            blocks + 2 * (spec.vocab_size * spec.hidden_size) as u64
        };
        assert_eq!((active("mixtral-8x7b") / 100_000_000, active("qwen3-30b-a3b") / 100_000_000), (128, 33));
    }
}
