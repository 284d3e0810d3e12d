//! What a plan will cost, for people, before it runs.

use std::fmt::Write as _;

use super::plan::Acts;
use super::rules::Rules;
use super::sources::{ModelSource, Source, SourceRequest};
use crate::acts::execute::Places;
use crate::error::Result;

/// What a model is asked to do for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    rows: u64,
    batches: u64,
    blocks: u64,
    /// Products with weights and those of attention.
    flops: u64,
    /// Bytes that leave the device.
    handed_out: u64,
}

impl Acts {
    /// The plan as written, its normal form, its optimised form, and, where a model runs, what that costs with this
    /// plan's rules and with none: rows and blocks, FLOPs of the products with weights and of attention, and
    /// bytes that leave the device.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn explain(&self) -> Result<String> {
        let mut text = String::new();
        let indented = |text: &str| text.replace('\n', "\n  ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "plan: {self}");
        let _ = writeln!(text, "normal form:\n  {}", indented(&self.logical()?.to_string()));
        let _ = writeln!(text, "optimised:\n  {}", indented(&self.optimised()?.to_string()));
        let _ = write!(text, "result: {} bytes", self.signature().n_bytes());
        if let Source::Model(source) = self.source() {
            let cost = |plan: &Acts| plan.cost(source);
            let (with, without) = (cost(self)?, cost(&self.with_rules(Rules::none()))?);
            let _ = write!(text, "\n{:<16}{:>18}{:>18}", "cost", "these rules", "no rules");
            for (name, of) in COLUMNS {
                let _ = write!(text, "\n{name:<16}{:>18}{:>18}", of(&with), of(&without));
            }
        }
        Ok(text)
    }

    fn cost(&self, source: &ModelSource) -> Result<Cost> {
        let plan = self.optimised()?;
        let samples = match plan.all_samples {
            true => (0..source.signature().n_samples).collect(),
            false => Places::of(&plan.samples).distinct,
        };
        let request = SourceRequest { samples: &samples, layers: &plan.layers, pool: plan.pool, rules: plan.rules };
        let layers = source.run_layers(&request);
        let blocks = layers.last().map_or(0, |deepest| deepest + 1);
        let (model, vector_bytes) = (source.model(), source.signature().vector_bytes());
        let mut cost = Cost { rows: 0, batches: 0, blocks: blocks as u64, flops: 0, handed_out: 0 };
        for scheduled in source.batches(&request)? {
            let rows = scheduled.batch.ids.len();
            cost.rows += rows as u64;
            cost.batches += 1;
            cost.flops += model.flops(&scheduled.batch, blocks);
            let handed_out = match plan.pool {
                Some(_) => scheduled.samples.len(),
                None => rows + scheduled.batch.n_carried,
            };
            cost.handed_out += (handed_out * layers.len() * vector_bytes) as u64;
        }
        Ok(cost)
    }
}

type Column = (&'static str, fn(&Cost) -> u64);

const COLUMNS: [Column; 5] = [
    ("rows", |cost| cost.rows),
    ("batches", |cost| cost.batches),
    ("blocks", |cost| cost.blocks),
    ("flops", |cost| cost.flops),
    ("bytes handed out", |cost| cost.handed_out),
];
