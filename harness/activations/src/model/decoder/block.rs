//! The forward pass through one decoder block, as its spec describes it.

use actbench_kernels::{Backend, FoldedNorm, KernelError, QkvPart, QkvProjection, Rotation};

use super::rope_table::RopeTable;
use super::stage::PipelineStage;
use super::stream_squares::StreamSquares;
use super::weights::{DecoderBlock, FeedForward, Norm, Projection};
use super::workspace::Workspace;
use crate::model::spec::{DecoderSpec, ExpertsSpec, QueryKeyNorm};
use crate::model::{LastLayerTokens, TokenBatch};

mod experts;

type Done = std::result::Result<(), KernelError>;

impl<B: Backend> PipelineStage<B> {
    /// One decoder block: `stream += attention(stream)`, then `stream += mlp(stream)` or that of its experts, with norms of the inputs, of
    /// the outputs or of both. With a parallel residual the MLP reads the block's input, too.
    ///
    /// With `pruned`, keys and values are computed for all tokens and everything after them for the tokens left; the stream
    /// then holds those.
    pub(super) fn run_block(
        &self,
        layer: usize,
        batch: &TokenBatch,
        pruned: Option<&LastLayerTokens>,
        work: &mut Workspace<B>,
    ) -> Done {
        let pass = BlockPass {
            backend: &self.backend,
            spec: &self.spec,
            block: &self.blocks[layer - self.first],
            next: self.blocks.get(layer - self.first + 1),
            rope: self.spec.layers.get(layer).and_then(|layer| self.ropes.get(layer.rope?)),
            experts: self.spec.experts_of(layer),
        };
        pass.norm_input(&pass.block.attention_norm, &work.stream, &mut work.squares, &mut work.normed)?;
        let part = if pruned.is_some() { QkvPart::KeyValue } else { QkvPart::All };
        self.backend.resize(&mut work.key_value, batch.ids.len() + batch.n_cached)?;
        pass.project(part, &batch.positions, work)?;
        pass.cache_keys_and_values(layer - self.first, batch, work)?;
        let mut layout = &batch.layout;
        let mut positions = &batch.positions;
        let mut pruned_positions = Vec::new();
        if let Some(pruned) = pruned {
            layout = &pruned.layout;
            pruned_positions.extend(pruned.tokens.iter().map(|token| batch.positions[*token as usize]));
            positions = &pruned_positions;
            pass.prune(&pruned.tokens, work)?;
            pass.project(QkvPart::Query, positions, work)?;
        }
        if self.spec.parallel_residual {
            pass.norm_input(&pass.block.mlp_norm, &work.stream, &mut work.squares, &mut work.parallel_normed)?;
        }
        let (shape, scores) = (self.spec.attention_shape(), self.spec.score_rule(layer));
        self.backend.attention(&work.query, &work.key_value, layout, shape, scores, &mut work.attended)?;
        pass.add_attention(work)?;
        if !self.spec.parallel_residual {
            pass.norm_input(&pass.block.mlp_norm, &work.stream, &mut work.squares, &mut work.normed)?;
        }
        pass.add_feed_forward(positions.len(), work)
    }
}

/// A block with what its operations need.
struct BlockPass<'a, B: Backend> {
    backend: &'a B,
    spec: &'a DecoderSpec,
    block: &'a DecoderBlock<B>,
    /// The next block of the stage, whose norm may read the stream.
    next: Option<&'a DecoderBlock<B>>,
    /// The table that rotates queries and keys; none if they are not rotated.
    rope: Option<&'a RopeTable<B>>,
    /// The rule of the block's experts; none if it has an MLP.
    experts: Option<&'a ExpertsSpec>,
}

/// The input of a projection.
struct Input<'t, B: Backend> {
    x: &'t B::Tensor,
    /// Sums of squares of its rows, if a norm is folded into the projection.
    squares: Option<&'t B::Tensor>,
}

impl<'t, B: Backend> Input<'t, B> {
    /// One without a folded norm.
    fn of(x: &'t B::Tensor) -> Self {
        Input { x, squares: None }
    }
}

/// Where an addition to the stream leaves the sums of squares.
struct SquaresOut<'t, B: Backend> {
    of_stream: &'t mut Option<StreamSquares<B>>,
    /// Whether the next norm of the stream reads them.
    are_read: bool,
}

/// Whether a norm is folded into the projections that read it.
fn is_folded<B: Backend>(norm: &Option<Norm<B>>) -> bool {
    matches!(norm, Some(Norm::Folded))
}

impl<B: Backend> BlockPass<'_, B> {
    /// `out = norm(x)`, or the sums of squares of `x` for a folded norm; nothing if the block has no such norm.
    fn norm_input(
        &self,
        norm: &Option<Norm<B>>,
        x: &B::Tensor,
        squares: &mut Option<StreamSquares<B>>,
        out: &mut B::Tensor,
    ) -> Done {
        let eps = self.spec.norm.eps;
        match norm {
            None => Ok(()),
            Some(Norm::Folded) => squares.as_mut().map_or(Ok(()), |squares| squares.update(self.backend, x)),
            Some(Norm::Rms(scale)) => self.backend.rms_norm(x, scale, eps, out),
            Some(Norm::Layer { scale, bias }) => self.backend.layer_norm(x, scale, bias, eps, out),
        }
    }

    /// The input of projections behind `norm`: its result, or the stream.
    fn input<'t>(
        norm: &Option<Norm<B>>,
        normed: &'t B::Tensor,
        stream: &'t B::Tensor,
        squares: &'t Option<StreamSquares<B>>,
    ) -> Input<'t, B> {
        match norm {
            None => Input::of(stream),
            Some(Norm::Folded) => Input { x: stream, squares: squares.as_ref().map(StreamSquares::sums) },
            Some(Norm::Rms(_) | Norm::Layer { .. }) => Input::of(normed),
        }
    }

    /// `out = x W^T + b`.
    fn linear(&self, input: Input<'_, B>, projection: &Projection<B>, out: &mut B::Tensor) -> Done {
        let Projection { weight, bias } = projection;
        match input.squares {
            None => self.backend.linear(input.x, weight, bias.as_ref(), out),
            Some(squares) => {
                let norm = FoldedNorm { squares, eps: self.spec.norm.eps };
                self.backend.linear_normed(input.x, norm, weight, bias.as_ref(), None, out)
            }
        }
    }

    /// Queries, keys and values of the tokens of the stream, or a part of them, normed and rotated. In a block without norms of
    /// queries and keys the projection rotates them.
    fn project(&self, part: QkvPart, positions: &[u32], work: &mut Workspace<B>) -> Done {
        let (block, shape) = (self.block, self.spec.attention_shape());
        let has_norms = block.query_norm.is_some() || block.key_norm.is_some();
        let rotation = self.rope.filter(|_| !has_norms).map(|rope| Rotation {
            rotary_dim: rope.rotary_dim,
            positions,
            cos: &rope.cos,
            sin: &rope.sin,
        });
        let input = Self::input(&block.attention_norm, &work.normed, &work.stream, &work.squares);
        let norm = input.squares.map(|squares| FoldedNorm { squares, eps: self.spec.norm.eps });
        let Projection { weight, bias } = &block.qkv;
        let projection = QkvProjection { shape, part, rotation };
        let (query, key_value) = (&mut work.query, &mut work.key_value);
        self.backend.project_qkv(input.x, norm, weight, bias.as_ref(), &projection, query, key_value)?;
        if has_norms && part.has_query() {
            self.norm_and_rotate(query, shape.n_heads, &block.query_norm, positions)?;
        }
        if has_norms && part.has_key_value() {
            self.norm_and_rotate(key_value, shape.n_kv_heads, &block.key_norm, positions)?;
        }
        Ok(())
    }

    /// Norms and rotates the first `n_heads` heads of queries or keys.
    fn norm_and_rotate(&self, x: &mut B::Tensor, n_heads: usize, norm: &Option<B::Vector>, positions: &[u32]) -> Done {
        if let Some(scale) = norm {
            // A norm of the whole projection is one of a single head of its width.
            let heads = if self.spec.attention.query_key_norm == QueryKeyNorm::Whole { 1 } else { n_heads };
            self.backend.rms_norm_heads(x, heads, scale, self.spec.norm.eps)?;
        }
        let Some(rope) = self.rope else { return Ok(()) };
        self.backend.rope(x, n_heads, self.spec.head_dim, rope.rotary_dim, positions, &rope.cos, &rope.sin)
    }

    /// Puts keys and values of the cached tokens behind those of the own ones; keeps those of the next batch's prefix.
    fn cache_keys_and_values(&self, index: usize, batch: &TokenBatch, work: &mut Workspace<B>) -> Done {
        let (backend, own) = (self.backend, batch.ids.len());
        let kept = &mut work.prefix_cache.key_values[index];
        backend.copy_rows(kept, 0, batch.n_cached, &mut work.key_value, own)?;
        backend.resize(kept, batch.keep.len())?;
        backend.gather_rows(&work.key_value, &batch.keep, kept)
    }

    /// Keeps `tokens` of the stream and of its norm alone.
    fn prune(&self, tokens: &[u32], work: &mut Workspace<B>) -> Done {
        let has_norm = self.block.attention_norm.is_some() && !is_folded(&self.block.attention_norm);
        if let Some(squares) = &mut work.squares {
            squares.prune(self.backend, tokens)?;
        }
        for tensor in [Some(&mut work.stream), has_norm.then_some(&mut work.normed)].into_iter().flatten() {
            self.backend.resize(&mut work.pruned, tokens.len())?;
            self.backend.gather_rows(tensor, tokens, &mut work.pruned)?;
            std::mem::swap(tensor, &mut work.pruned);
        }
        if !has_norm {
            self.backend.resize(&mut work.normed, tokens.len())?;
        }
        for tensor in [&mut work.query, &mut work.attended, &mut work.gated] {
            self.backend.resize(tensor, tokens.len())?;
        }
        if self.spec.parallel_residual {
            self.backend.resize(&mut work.parallel_normed, tokens.len())?;
        }
        Ok(())
    }

    /// Adds the output of attention to the stream. Overwrites `normed` if the output is normed.
    fn add_attention(&self, work: &mut Workspace<B>) -> Done {
        let (block, norm) = (self.block, &self.block.attention_output_norm);
        let squares = SquaresOut { of_stream: &mut work.squares, are_read: is_folded(&block.mlp_norm) };
        self.add(&work.attended, &block.attention_output, norm, &mut work.normed, &mut work.stream, squares)
    }

    /// Adds the output of the MLP or of the experts for `n_rows` rows: of the block's input with a parallel residual, otherwise of the
    /// stream, normed where inputs are.
    fn add_feed_forward(&self, n_rows: usize, work: &mut Workspace<B>) -> Done {
        let input = match &self.block.mlp_norm {
            _ if self.spec.parallel_residual => Input::of(&work.parallel_normed),
            norm => Self::input(norm, &work.normed, &work.stream, &work.squares),
        };
        match (&self.block.feed_forward, self.experts, &mut work.experts) {
            (FeedForward::Experts(experts), Some(spec), Some(buffers)) => {
                let outputs = self.run_experts(spec, experts, n_rows, input.x, buffers)?;
                work.squares.iter_mut().for_each(StreamSquares::invalidate);
                self.add_experts(&outputs, &buffers.slots, &mut work.stream)
            }
            (FeedForward::Mlp(mlp), ..) => {
                self.activate(&mlp.input, input, &mut work.gated)?;
                let are_read = self.next.is_some_and(|next| is_folded(&next.attention_norm));
                let squares = SquaresOut { of_stream: &mut work.squares, are_read };
                let norm = &self.block.mlp_output_norm;
                self.add(&work.gated, &mlp.down, norm, &mut work.normed, &mut work.stream, squares)
            }
            (FeedForward::Experts(_), ..) => {
                Err(KernelError::shape("experts", "a block with experts has no rule for them"))
            }
        }
    }

    /// An MLP up to its activation.
    fn activate(&self, projection: &Projection<B>, input: Input<'_, B>, out: &mut B::Tensor) -> Done {
        let (mlp, Projection { weight, bias }) = (&self.spec.mlp, projection);
        match input.squares {
            Some(squares) => {
                let norm = FoldedNorm { squares, eps: self.spec.norm.eps };
                self.backend.linear_normed(input.x, norm, weight, bias.as_ref(), Some(mlp.activation), out)
            }
            None if mlp.gated => self.backend.linear_gated(input.x, weight, bias.as_ref(), mlp.activation, out),
            None => self.backend.linear_activated(input.x, weight, bias.as_ref(), mlp.activation, out),
        }
    }

    /// `stream += x W^T + b`, or `stream += norm(x W^T + b)` through `scratch`.
    fn add(
        &self,
        x: &B::Tensor,
        projection: &Projection<B>,
        norm: &Option<B::Vector>,
        scratch: &mut B::Tensor,
        stream: &mut B::Tensor,
        squares: SquaresOut<'_, B>,
    ) -> Done {
        let SquaresOut { of_stream, are_read } = squares;
        let Projection { weight, bias } = projection;
        let Some(scale) = norm else {
            return match of_stream {
                Some(squares) if are_read => squares
                    .written_by(|sums| self.backend.linear_residual_squares(x, weight, bias.as_ref(), stream, sums)),
                squares => {
                    squares.iter_mut().for_each(StreamSquares::invalidate);
                    self.backend.linear_residual(x, weight, bias.as_ref(), stream)
                }
            };
        };
        of_stream.iter_mut().for_each(StreamSquares::invalidate);
        self.linear(Input::of(x), projection, scratch)?;
        self.backend.rms_norm_residual(scratch, scale, self.spec.norm.eps, stream)
    }
}
