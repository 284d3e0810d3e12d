//! The tensors of a checkpoint and their shapes, as a configuration asks for them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::part_view::PartView;
use super::spec::{DecoderSpec, NormKind, QueryKeyNorm};
use super::tensor_names::Part;

/// Takes the name and the shape of a tensor.
pub(super) type VisitTensor<'a, E> = dyn FnMut(&str, &[usize]) -> Result<(), E> + 'a;

/// The shape of a part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartShape {
    /// A projection.
    Projection {
        /// Columns of its output.
        outputs: usize,
        /// Columns of its input.
        inputs: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// A norm of so many elements.
    Norm {
        /// Elements.
        width: usize,
        /// Whether it has a bias.
        bias: bool,
    },
}

/// The shape of `part` in block `layer` of `spec`; none if the block has no such part.
pub(super) fn part_shape(spec: &DecoderSpec, layer: usize, part: Part) -> Option<PartShape> {
    let hidden = spec.hidden_size;
    let experts = spec.experts_of(layer);
    let dense = || experts.is_none().then_some(spec.intermediate_size);
    let expert = || experts.map(|experts| experts.intermediate_size);
    let (query, kv) = (spec.query_width(), spec.kv_width());
    let (attention, mlp) = (&spec.attention, &spec.mlp);
    let projection = |outputs, inputs, bias| Some(PartShape::Projection { outputs, inputs, bias });
    let norm = |present: bool| {
        let bias = spec.norm.kind == NormKind::Layer;
        present.then_some(PartShape::Norm { width: hidden, bias })
    };
    let head_norm = |whole: usize| match attention.query_key_norm {
        QueryKeyNorm::None => None,
        QueryKeyNorm::PerHead => Some(PartShape::Norm { width: spec.head_dim, bias: false }),
        QueryKeyNorm::Whole => Some(PartShape::Norm { width: whole, bias: false }),
    };
    match part {
        Part::AttentionNorm | Part::MlpNorm => norm(spec.norm_placement.has_inputs()),
        Part::AttentionOutputNorm | Part::MlpOutputNorm => norm(spec.norm_placement.has_outputs()),
        Part::Query => projection(query, hidden, attention.qkv_bias),
        Part::Key | Part::Value => projection(kv, hidden, attention.qkv_bias),
        Part::QueryNorm => head_norm(query),
        Part::KeyNorm => head_norm(kv),
        Part::AttentionOutput => projection(hidden, query, attention.output_bias),
        Part::Gate | Part::ExpertGate if !mlp.gated => None,
        Part::Gate | Part::Up => projection(dense()?, hidden, mlp.bias),
        Part::Down => projection(hidden, dense()?, mlp.bias),
        Part::Router => projection(experts?.n, hidden, false),
        Part::ExpertGate | Part::ExpertUp => projection(expert()?, hidden, mlp.bias),
        Part::ExpertDown => projection(hidden, expert()?, mlp.bias),
    }
}

/// Where the projection `part` of block `layer` is in the tensor of its module.
pub(super) fn part_view(spec: &DecoderSpec, layer: usize, part: Part) -> PartView {
    let sharing: Vec<Part> = spec.names.sharing(part).collect();
    let outputs = |part: &Part| match part_shape(spec, layer, *part) {
        Some(PartShape::Projection { outputs, .. }) => outputs,
        Some(PartShape::Norm { .. }) | None => 0,
    };
    PartView {
        widths: sharing.iter().map(outputs).collect(),
        index: sharing.iter().position(|shared| *shared == part).unwrap_or_default(),
        stacking: spec.names.stacking,
        n_heads: spec.n_kv_heads,
        transposed: spec.names.transposed,
    }
}

/// The extents of the stored weight of a projection: `outputs` are those of all parts that share it.
pub(super) fn stored_shape(spec: &DecoderSpec, outputs: usize, inputs: usize) -> [usize; 2] {
    if spec.names.transposed { [inputs, outputs] } else { [outputs, inputs] }
}

/// Calls `visit(name, shape)` for each tensor of the embedding and the first `n_blocks` blocks.
pub(super) fn for_each_tensor<E>(
    spec: &DecoderSpec,
    embedding: &str,
    n_blocks: usize,
    visit: &mut VisitTensor<'_, E>,
) -> Result<(), E> {
    visit(embedding, &[spec.vocab_size, spec.hidden_size])?;
    if let Some((name, rows)) = spec.names.positions.zip(spec.embedding.learned_positions) {
        visit(name, &[rows, spec.hidden_size])?;
    }
    for layer in 0..n_blocks {
        for (part, _) in spec.names.parts {
            let Some(shape) = part_shape(spec, layer, *part) else { continue };
            let experts = spec.experts_of(layer).filter(|_| part.is_of_expert());
            for expert in 0..experts.map_or(1, |experts| experts.n) {
                let Some(module) = spec.names.expert_module(layer, expert, *part) else { continue };
                match shape {
                    PartShape::Norm { width, bias } => {
                        visit(&format!("{module}.weight"), &[width])?;
                        if bias {
                            visit(&format!("{module}.bias"), &[width])?;
                        }
                    }
                    PartShape::Projection { inputs, bias, .. } => {
                        let view = part_view(spec, layer, *part);
                        // Parts that share a tensor are visited once.
                        if view.index > 0 {
                            continue;
                        }
                        visit(&format!("{module}.weight"), &stored_shape(spec, view.total(), inputs))?;
                        if bias {
                            visit(&format!("{module}.bias"), &[view.total()])?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// The tensors of the embedding and of all blocks, by name: those that activations depend on.
pub(super) fn computed_tensors(spec: &DecoderSpec) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        shapes.insert(name.to_owned(), shape.to_vec());
        Ok::<(), Infallible>(())
    };
    let Ok(()) = for_each_tensor(spec, spec.names.embedding, spec.n_layers, &mut add);
    shapes
}

/// All tensors of a checkpoint, by name: a tied LM head has none of its own.
pub fn tensor_shapes(spec: &DecoderSpec) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = computed_tensors(spec);
    let norm = spec.names.final_norm;
    shapes.insert(format!("{norm}.weight"), vec![spec.hidden_size]);
    if spec.norm.kind == NormKind::Layer {
        shapes.insert(format!("{norm}.bias"), vec![spec.hidden_size]);
    }
    if !spec.tie_word_embeddings {
        shapes.insert(spec.names.head.to_owned(), vec![spec.vocab_size, spec.hidden_size]);
    }
    shapes
}
