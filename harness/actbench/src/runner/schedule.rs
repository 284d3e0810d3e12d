//! The order of cases: blocks of all cases, each block shuffled.
//!
//! The speed of a machine drifts over minutes. All methods of a block are subject to the same drift, so ratios are taken
//! within blocks. The random order keeps a method from always running first (Laaber et al. 2019: random interleaving
//! finds small slowdowns that runs one after the other miss).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::case::{Ablation, Method, RunConfig, Task};
use crate::error::Result;
use actbench_activations::plan::Rules;

/// A position in the schedule: one case of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The task.
    pub task: Task,
    /// The extraction method.
    pub method: Method,
    /// The optimizer rules that the case disables to measure their effect; lazy methods only.
    pub ablation: Option<Ablation>,
    /// The block, from 0 on; none for a warm-up.
    pub block: Option<usize>,
}

impl Slot {
    /// The case, which is the same in every block.
    pub fn case(&self) -> (Task, Method, Option<Ablation>) {
        (self.task, self.method, self.ablation)
    }
}

/// The cases of a run, one block at a time.
pub struct Schedule {
    cases: Vec<Slot>,
    rng: ChaCha8Rng,
}

impl Schedule {
    /// A schedule of the cases of `config`.
    ///
    /// # Errors
    /// An unknown optimizer rule.
    pub fn new(config: &RunConfig) -> Result<Self> {
        let ablations = if config.ablate { Ablation::for_rules(Rules::all_but(&config.no_opt)?) } else { Vec::new() };
        let mut cases = Vec::new();
        for (&task, &method) in
            config.tasks.iter().flat_map(|task| config.methods.iter().map(move |method| (task, method)))
        {
            let lazy_ablations = ablations.iter().copied().filter(|_| method != Method::Eager).map(Some);
            cases.extend([None].into_iter().chain(lazy_ablations).map(|ablation| Slot {
                task,
                method,
                ablation,
                block: None,
            }));
        }
        Ok(Schedule { cases, rng: ChaCha8Rng::seed_from_u64(config.seed) })
    }

    /// Number of cases in a block.
    pub fn n_cases(&self) -> usize {
        self.cases.len()
    }

    /// The cases of the next block in random order; `block` is its number, none for a warm-up.
    pub fn block(&mut self, block: Option<usize>) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.cases.iter().map(|slot| Slot { block, ..*slot }).collect();
        slots.shuffle(&mut self.rng);
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::small_config;
    use actbench_activations::plan::Rule;

    fn config() -> RunConfig {
        RunConfig { methods: vec![Method::Eager, Method::Lazy, Method::LazyDisk], ..small_config() }
    }

    /// All slots of a run of a fixed number of blocks.
    fn schedule(config: &RunConfig) -> Result<Vec<Slot>> {
        let mut schedule = Schedule::new(config)?;
        let blocks = std::iter::repeat_n(None, config.warmup).chain((0..config.repetitions.unwrap()).map(Some));
        Ok(blocks.flat_map(|block| schedule.block(block)).collect())
    }

    #[test]
    fn blocks_hold_each_case_once_in_random_order() {
        let config = config();
        let slots = schedule(&config).unwrap();
        assert_eq!(slots, schedule(&config).unwrap(), "the order follows the seed");
        assert_eq!(slots.len(), 9 * 6);
        assert!(slots[..6].iter().all(|slot| slot.block.is_none()));
        let mut orders = std::collections::BTreeSet::new();
        for (index, block) in slots[6..].chunks(6).enumerate() {
            assert!(block.iter().all(|slot| slot.block == Some(index)));
            let order: Vec<_> = block.iter().map(|slot| (slot.task, slot.method)).collect();
            let mut sorted = order.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), 6);
            orders.insert(order);
        }
        assert!(orders.len() > 4, "orders repeat: {}", orders.len());
        assert_ne!(schedule(&RunConfig { seed: 1, ..config }).unwrap(), slots);
    }

    #[test]
    fn ablated_blocks_disable_each_enabled_rule_once() {
        let config = RunConfig { ablate: true, no_opt: vec!["mask".to_owned()], warmup: 0, ..config() };
        let slots = schedule(&config).unwrap();
        // For each task: eager once, and each of two lazy methods in full, without seven rules, and without all.
        assert_eq!(slots.len(), 8 * 2 * (1 + 2 * 9));
        let block = &slots[..38];
        assert!(block.iter().all(|slot| slot.block == Some(0)));
        let without = |ablation| block.iter().filter(|slot| slot.ablation == Some(ablation)).count();
        assert_eq!(without(Ablation::Without(Rule::Prefix)), 4);
        assert_eq!(without(Ablation::WithoutAll), 4);
        assert_eq!(without(Ablation::Without(Rule::Mask)), 0, "it is off in all of them");
        assert!(block.iter().all(|slot| slot.method != Method::Eager || slot.ablation.is_none()));
    }
}
