//! The cost of a plan, counted from its batches before any of them runs.

use std::fmt;
use std::ops::Add;

use super::batches::ScheduledBatch;
use super::execute::SamplePositions;
use super::lazy_plan::Acts;
use super::rules::{Rule, Rules};
use super::sources::{ModelSource, PlanSource};
use crate::error::Result;
use crate::model::memory_model::LargestBatch;
use crate::units::{Bytes, Count, with_si_prefix};

/// The work of a model for a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCost {
    /// Samples that are run.
    pub samples: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens that the model computes: fewer than `tokens` if prefixes are shared, more if batches are padded.
    pub tokens_computed: u64,
    /// Of those, the tokens that the last block is computed for past their keys and values.
    pub last_layer_tokens: u64,
    /// Forward passes.
    pub batches: u64,
    /// Blocks that each token is computed through.
    pub blocks: u64,
    /// Floating-point operations of the GEMMs with weights and of attention, counted as in result files.
    pub flops: u64,
    /// Bytes that leave the device.
    pub bytes_out: u64,
    /// Batches that are computed at the same time in host memory, each by a thread of its own; with 1, and with 0 of a cost that
    /// was not counted, all threads share each batch.
    pub streams: u64,
    /// The maximum over its batches, each figure by itself.
    pub largest: LargestBatch,
}

impl PlanCost {
    /// The cost of `scale` times as many samples like these, in batches of the same sizes.
    #[must_use]
    pub fn scaled(self, scale: f64) -> PlanCost {
        let scaled = |count: u64| (count as f64 * scale).round() as u64;
        PlanCost {
            samples: scaled(self.samples),
            tokens: scaled(self.tokens),
            tokens_computed: scaled(self.tokens_computed),
            last_layer_tokens: scaled(self.last_layer_tokens),
            batches: scaled(self.batches),
            flops: scaled(self.flops),
            bytes_out: scaled(self.bytes_out),
            blocks: self.blocks,
            streams: self.streams,
            largest: self.largest,
        }
    }
}

impl Add for PlanCost {
    type Output = PlanCost;

    /// The cost of two plans on one model, one after the other.
    fn add(self, other: PlanCost) -> PlanCost {
        PlanCost {
            samples: self.samples + other.samples,
            tokens: self.tokens + other.tokens,
            tokens_computed: self.tokens_computed + other.tokens_computed,
            last_layer_tokens: self.last_layer_tokens + other.last_layer_tokens,
            batches: self.batches + other.batches,
            blocks: self.blocks.max(other.blocks),
            flops: self.flops + other.flops,
            bytes_out: self.bytes_out + other.bytes_out,
            streams: self.streams.max(other.streams),
            largest: self.largest.or(other.largest),
        }
    }
}

/// A plan's cost with and without each of its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCosts {
    /// With the plan's own rules.
    pub with_rules: PlanCost,
    /// Without one of them, for each.
    pub without: Vec<(Rule, PlanCost)>,
    /// Without any rule: the plan executed as it is written.
    pub without_all: PlanCost,
}

impl RuleCosts {
    /// The costs of `scale` times as many samples, as [`PlanCost::scaled`].
    #[must_use]
    pub fn scaled(self, scale: f64) -> RuleCosts {
        RuleCosts {
            with_rules: self.with_rules.scaled(scale),
            without: self.without.into_iter().map(|(rule, cost)| (rule, cost.scaled(scale))).collect(),
            without_all: self.without_all.scaled(scale),
        }
    }
}

/// A line of the table of [`RuleCosts`], as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCostRow {
    /// The rules.
    pub name: String,
    /// Tokens that are computed, batches, blocks, floating-point operations and bytes.
    pub figures: [String; 5],
    /// How many times the operations and the bytes of the plan with its own rules, where they differ.
    pub factors: [Option<String>; 2],
}

impl RuleCosts {
    /// The tokens and blocks that are computed, in two lines, and a third one if threads compute batches alone.
    pub fn summary(&self) -> String {
        let cost = &self.with_rules;
        let threads = match cost.streams {
            0 | 1 => String::new(),
            streams => format!("\nthreads: {streams} batches at a time, a thread each"),
        };
        format!(
            "{} samples with {} tokens: computes {} tokens in {} batches through {} blocks\n\
             last block: {} tokens computed in full, of the others only keys and values{threads}",
            Count(cost.samples),
            Count(cost.tokens),
            Count(cost.tokens_computed),
            Count(cost.batches),
            cost.blocks,
            Count(cost.last_layer_tokens)
        )
    }

    /// A line for the plan, one without each rule, and one without any rule.
    pub fn rows(&self) -> Vec<RuleCostRow> {
        let row = |name: String, cost: &PlanCost| {
            let factor = |without: u64, with: u64| {
                (without != with && with > 0).then(|| format!("{:.2}x", without as f64 / with as f64))
            };
            let base = &self.with_rules;
            RuleCostRow {
                name,
                figures: [
                    Count(cost.tokens_computed).to_string(),
                    Count(cost.batches).to_string(),
                    cost.blocks.to_string(),
                    with_si_prefix(cost.flops),
                    Bytes(cost.bytes_out).to_string(),
                ],
                factors: [factor(cost.flops, base.flops), factor(cost.bytes_out, base.bytes_out)],
            }
        };
        let without = self.without.iter().map(|(rule, cost)| row(format!("without {rule}"), cost));
        let own = std::iter::once(row("with these rules".to_owned(), &self.with_rules));
        own.chain(without).chain([row("without all".to_owned(), &self.without_all)]).collect()
    }
}

impl fmt::Display for RuleCosts {
    /// The summary, then the table of [`RuleCosts::rows`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        write!(f, "{:<18}{:>12}{:>9}{:>8}{:>11}{:>14}", "", "tokens", "batches", "blocks", "FLOPs", "bytes out")?;
        for (index, RuleCostRow { name, figures, factors }) in self.rows().into_iter().enumerate() {
            let [tokens, batches, blocks, flops, bytes] = figures;
            write!(f, "\n{name:<18}{tokens:>12}{batches:>9}{blocks:>8}{flops:>11}{bytes:>14}")?;
            let named = factors.into_iter().zip(["FLOPs", "bytes"]);
            let texts: Vec<String> =
                named.filter_map(|(factor, what)| Some(format!("{} the {what}", factor?))).collect();
            match (index, texts.is_empty()) {
                (0, _) => {}
                (_, true) => f.write_str("  no difference")?,
                (_, false) => write!(f, "  {}", texts.join(", "))?,
            }
        }
        Ok(())
    }
}

impl Acts {
    /// The work of the model for this plan; none if no model runs.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn cost(&self) -> Result<Option<PlanCost>> {
        match self.source() {
            PlanSource::Model(source) => self.cost_on(source).map(Some),
            PlanSource::Tensor(_) | PlanSource::CacheFile(_) => Ok(None),
        }
    }

    /// [`Acts::cost`] with and without each of the plan's rules.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn rule_costs(&self) -> Result<Option<RuleCosts>> {
        let PlanSource::Model(source) = self.source() else { return Ok(None) };
        let own = Rule::ALL.into_iter().filter(|rule| self.rules().has(*rule));
        let without = own
            .map(|rule| Ok((rule, self.with_rules(self.rules().without(rule)).cost_on(source)?)))
            .collect::<Result<_>>()?;
        let without_all = self.with_rules(Rules::none()).cost_on(source)?;
        Ok(Some(RuleCosts { with_rules: self.cost_on(source)?, without, without_all }))
    }

    /// The first `n` batches of the model, in order, each with the prefixes cached from the one before; none if no model
    /// runs.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn first_batches(&self, n: usize) -> Result<Vec<ScheduledBatch>> {
        let PlanSource::Model(source) = self.source() else { return Ok(Vec::new()) };
        let plan = self.optimized()?;
        let samples: Vec<usize> = (0..source.signature().n_samples).collect();
        let request = plan.request(&samples);
        Ok(source.batches(&request)?.take(n).collect())
    }

    fn cost_on(&self, source: &ModelSource) -> Result<PlanCost> {
        let plan = self.optimized()?;
        let samples = if plan.all_samples {
            (0..source.signature().n_samples).collect()
        } else {
            SamplePositions::of(&plan.samples).distinct
        };
        let request = plan.request(&samples);
        let layers = source.run_layers(&request);
        let blocks = layers.last().map_or(0, |deepest| deepest + 1);
        let (model, vector_bytes) = (source.model(), source.signature().vector_bytes());
        let mut cost = PlanCost {
            samples: samples.len() as u64,
            tokens: source.n_tokens(&samples) as u64,
            blocks: blocks as u64,
            ..PlanCost::default()
        };
        let streams = source.stream_batches(&request)?;
        cost.streams = streams.len() as u64;
        for scheduled in streams.into_iter().flatten() {
            let n_tokens = scheduled.batch.ids.len();
            let last_layer = scheduled.batch.last_layer.as_ref();
            cost.tokens_computed += n_tokens as u64;
            cost.last_layer_tokens += last_layer.map_or(n_tokens, |left| left.tokens.len()) as u64;
            cost.batches += 1;
            cost.largest = cost.largest.or(LargestBatch::of(&scheduled.batch, scheduled.samples.len()));
            cost.flops += model.flops(&scheduled.batch, blocks);
            let n_vectors = match plan.pool {
                Some(_) => scheduled.samples.len(),
                None => n_tokens + scheduled.batch.n_cached,
            };
            cost.bytes_out += (n_vectors * layers.len() * vector_bytes) as u64;
        }
        Ok(cost)
    }
}
