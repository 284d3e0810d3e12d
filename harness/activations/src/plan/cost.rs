//! What a plan will cost, counted from the batches that it would run, before any of them runs.

use std::fmt::{self, Write as _};
use std::ops::Add;

use indicatif::{BinaryBytes, HumanCount};

use super::batches::ScheduledBatch;
use super::execute::Places;
use super::lazy_plan::Acts;
use super::rules::{Rule, Rules};
use super::sources::{ModelSource, Source, SourceRequest};
use crate::error::Result;

/// What a model is asked to do for a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCost {
    /// Samples that are run.
    pub samples: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Rows that go through the model: fewer than tokens where prefixes are shared, more where rows are padded.
    pub rows: u64,
    /// Rows of the deepest block that need more there than their keys and values.
    pub deepest_rows: u64,
    /// Forward passes.
    pub batches: u64,
    /// Blocks that each row goes through.
    pub blocks: u64,
    /// Floating-point operations of the products with weights and of attention, as rows of a result file count them.
    pub flops: u64,
    /// Bytes that leave the device.
    pub bytes_out: u64,
    /// What the largest of its batches have, each figure by itself.
    pub largest: LargestBatch,
}

/// The most of each that any batch of a plan has: what its buffers grow to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargestBatch {
    /// Own rows.
    pub rows: u64,
    /// Rows carried over from the batch before.
    pub carried: u64,
    /// Rows kept for the batch after.
    pub kept: u64,
    /// Samples that end in it.
    pub samples: u64,
}

impl LargestBatch {
    /// The larger of each.
    #[must_use]
    pub fn or(self, other: LargestBatch) -> Self {
        LargestBatch {
            rows: self.rows.max(other.rows),
            carried: self.carried.max(other.carried),
            kept: self.kept.max(other.kept),
            samples: self.samples.max(other.samples),
        }
    }

    /// Of one batch.
    pub(crate) fn of(scheduled: &ScheduledBatch) -> Self {
        LargestBatch {
            rows: scheduled.batch.ids.len() as u64,
            carried: scheduled.batch.n_carried as u64,
            kept: scheduled.batch.keep.len() as u64,
            samples: scheduled.samples.len() as u64,
        }
    }
}

impl Add for PlanCost {
    type Output = PlanCost;

    /// Of two plans on one model, one after the other.
    fn add(self, other: PlanCost) -> PlanCost {
        PlanCost {
            samples: self.samples + other.samples,
            tokens: self.tokens + other.tokens,
            rows: self.rows + other.rows,
            deepest_rows: self.deepest_rows + other.deepest_rows,
            batches: self.batches + other.batches,
            blocks: self.blocks.max(other.blocks),
            flops: self.flops + other.flops,
            bytes_out: self.bytes_out + other.bytes_out,
            largest: self.largest.or(other.largest),
        }
    }
}

/// What each rule takes off a plan's cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCosts {
    /// With the plan's own rules.
    pub with_rules: PlanCost,
    /// The same plan without one of them, for each.
    pub without: Vec<(Rule, PlanCost)>,
    /// Without any rule: the plan done as it is written.
    pub without_all: PlanCost,
}

impl Add for RuleCosts {
    type Output = RuleCosts;

    /// Of two plans with the same rules on one model.
    fn add(self, other: RuleCosts) -> RuleCosts {
        let without = self.without.into_iter().zip(other.without);
        RuleCosts {
            with_rules: self.with_rules + other.with_rules,
            without: without.map(|((rule, a), (_, b))| (rule, a + b)).collect(),
            without_all: self.without_all + other.without_all,
        }
    }
}

impl fmt::Display for RuleCosts {
    /// What runs on which tokens through which blocks; then a line for the plan, one for it without each rule, and one
    /// for it without any, each with what it costs and how much more that is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = &self.with_rules;
        writeln!(
            f,
            "runs {} rows for the {} tokens of {} samples, in {} batches, through {} blocks;",
            HumanCount(cost.rows),
            HumanCount(cost.tokens),
            HumanCount(cost.samples),
            HumanCount(cost.batches),
            cost.blocks
        )?;
        writeln!(f, "in the deepest block, {} of them past their keys and values", HumanCount(cost.deepest_rows))?;
        write!(f, "{:<18}{:>12}{:>9}{:>8}{:>11}{:>14}", "", "rows", "batches", "blocks", "FLOPs", "bytes out")?;
        line(f, "with these rules", cost, None)?;
        for (rule, without) in &self.without {
            line(f, &format!("without {rule}"), without, Some(cost))?;
        }
        line(f, "without all", &self.without_all, Some(cost))
    }
}

/// One line of the table; `base` is what the factors behind it are of.
fn line(f: &mut fmt::Formatter<'_>, name: &str, cost: &PlanCost, base: Option<&PlanCost>) -> fmt::Result {
    write!(
        f,
        "\n{name:<18}{:>12}{:>9}{:>8}{:>11}{:>14}",
        HumanCount(cost.rows).to_string(),
        HumanCount(cost.batches).to_string(),
        cost.blocks,
        with_prefix(cost.flops),
        BinaryBytes(cost.bytes_out).to_string()
    )?;
    let Some(base) = base else { return Ok(()) };
    let factors = [("FLOPs", cost.flops, base.flops), ("bytes", cost.bytes_out, base.bytes_out)];
    let mut told = String::new();
    for (what, without, with) in factors.into_iter().filter(|(_, without, with)| without != with && *with > 0) {
        let separator = if told.is_empty() { "  " } else { ", " };
        write!(told, "{separator}{:.2}x the {what}", without as f64 / with as f64)?;
    }
    f.write_str(if told.is_empty() { "  no more" } else { &told })
}

/// With two decimals and an SI prefix: `2.85 T`.
fn with_prefix(value: u64) -> String {
    let prefixes = ["", " k", " M", " G", " T", " P", " E"];
    let exponent = (value.max(1).ilog10() / 3) as usize;
    match exponent {
        0 => value.to_string(),
        _ => format!("{:.2}{}", value as f64 / 1000f64.powi(exponent as i32), prefixes[exponent]),
    }
}

impl Acts {
    /// What the model will be asked to do for this plan; none where no model runs.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn cost(&self) -> Result<Option<PlanCost>> {
        match self.source() {
            Source::Model(source) => self.cost_on(source).map(Some),
            Source::Tensor(_) | Source::CacheFile(_) => Ok(None),
        }
    }

    /// The same with and without each of the plan's rules.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn rule_costs(&self) -> Result<Option<RuleCosts>> {
        let Source::Model(source) = self.source() else { return Ok(None) };
        let own = Rule::ALL.into_iter().filter(|rule| self.rules().has(*rule));
        let without = own
            .map(|rule| Ok((rule, self.with_rules(self.rules().without(rule)).cost_on(source)?)))
            .collect::<Result<_>>()?;
        let without_all = self.with_rules(Rules::none()).cost_on(source)?;
        Ok(Some(RuleCosts { with_rules: self.cost_on(source)?, without, without_all }))
    }

    /// The first `n` batches that the model would be run on, in their order, each as it stands on the one before; none
    /// where no model runs.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn first_batches(&self, n: usize) -> Result<Vec<ScheduledBatch>> {
        let Source::Model(source) = self.source() else { return Ok(Vec::new()) };
        let plan = self.optimised()?;
        let samples: Vec<usize> = (0..source.signature().n_samples).collect();
        let request = SourceRequest { samples: &samples, layers: &plan.layers, pool: plan.pool, rules: plan.rules };
        Ok(source.batches(&request)?.take(n).collect())
    }

    fn cost_on(&self, source: &ModelSource) -> Result<PlanCost> {
        let plan = self.optimised()?;
        let samples = match plan.all_samples {
            true => (0..source.signature().n_samples).collect(),
            false => Places::of(&plan.samples).distinct,
        };
        let request = SourceRequest { samples: &samples, layers: &plan.layers, pool: plan.pool, rules: plan.rules };
        let layers = source.run_layers(&request);
        let blocks = layers.last().map_or(0, |deepest| deepest + 1);
        let (model, vector_bytes) = (source.model(), source.signature().vector_bytes());
        let mut cost = PlanCost {
            samples: samples.len() as u64,
            tokens: source.n_tokens(&samples) as u64,
            blocks: blocks as u64,
            ..PlanCost::default()
        };
        for scheduled in source.batches(&request)? {
            let rows = scheduled.batch.ids.len();
            cost.rows += rows as u64;
            cost.deepest_rows += scheduled.batch.deepest.as_ref().map_or(rows, |deepest| deepest.rows.len()) as u64;
            cost.batches += 1;
            cost.largest = cost.largest.or(LargestBatch::of(&scheduled));
            cost.flops += model.flops(&scheduled.batch, blocks);
            let handed_out = match plan.pool {
                Some(_) => scheduled.samples.len(),
                None => rows + scheduled.batch.n_carried,
            };
            cost.bytes_out += (handed_out * layers.len() * vector_bytes) as u64;
        }
        Ok(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_with_a_prefix() {
        let told = [0, 999, 1000, 12_345, 2_850_000_000_000, u64::MAX].map(with_prefix);
        assert_eq!(told, ["0", "999", "1.00 k", "12.35 k", "2.85 T", "18.45 E"]);
    }
}
