//! In which order cases run: blocks of all cases, each block shuffled.
//!
//! A machine drifts over minutes. Within a block all methods meet the same drift, so ratios are taken inside blocks;
//! a random order inside each keeps one method from always coming first (Laaber et al. 2019: random interleaving
//! finds small slowdowns that runs one after the other miss).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::workload::ablation::Ablation;
use crate::workload::case::{Method, RunConfig, Task};
use actbench_activations::plan::Rules;

/// A place in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What is done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// Which rules it goes without to show their worth, if any; lazy methods alone.
    pub ablation: Option<Ablation>,
    /// The block, from 0 on; none for a warm-up, which is not counted.
    pub block: Option<usize>,
}

impl Slot {
    /// What is run, whichever the block.
    pub fn case(&self) -> (Task, Method, Option<Ablation>) {
        (self.task, self.method, self.ablation)
    }
}

/// The cases of a run, handed out a block at a time.
pub struct Schedule {
    cases: Vec<Slot>,
    rng: ChaCha8Rng,
}

impl Schedule {
    /// Of the cases of `config`.
    ///
    /// # Errors
    /// A rule that does not exist.
    pub fn of(config: &RunConfig) -> Result<Self> {
        let ablations = match config.ablate {
            true => Ablation::of(Rules::all_but(&config.no_opt)?),
            false => Vec::new(),
        };
        let mut cases = Vec::new();
        for (&task, &method) in config.tasks.iter().flat_map(|task| config.methods.iter().map(move |it| (task, it))) {
            let of_lazy = ablations.iter().copied().filter(|_| method != Method::Eager).map(Some);
            cases.extend([None].into_iter().chain(of_lazy).map(|ablation| Slot {
                task,
                method,
                ablation,
                block: None,
            }));
        }
        Ok(Schedule { cases, rng: ChaCha8Rng::seed_from_u64(config.seed) })
    }

    /// Cases of a block.
    pub fn n_cases(&self) -> usize {
        self.cases.len()
    }

    /// The next block's cases in an order of its own; `block` is its number, none for a warm-up.
    pub fn block(&mut self, block: Option<usize>) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.cases.iter().map(|slot| Slot { block, ..*slot }).collect();
        slots.shuffle(&mut self.rng);
        slots
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use actbench_kernels::{DType, PoolMethod};

    use super::*;
    use crate::workload::case::{DeviceMap, ProbeSolver};
    use actbench_activations::plan::Rule;
    use actbench_activations::text::MaskKind;

    pub(crate) fn config() -> RunConfig {
        RunConfig {
            tasks: vec![Task::Train, Task::Sweep],
            methods: vec![Method::Eager, Method::Lazy, Method::LazyDisk],
            model: None,
            dataset: None,
            samples: 20,
            train_frac: 0.8,
            seed: 0,
            batch_size: 4,
            pool: PoolMethod::Mean,
            mask: MaskKind::Assistant,
            layer: None,
            sweep_layers: None,
            sweep_cs: vec![1.0],
            train_c: 1.0,
            train_max_iter: 10,
            sweep_max_iter: 10,
            solver: ProbeSolver::Newton,
            dtype: DType::Bf16,
            device_map: DeviceMap::Auto,
            lazy_cache_disk: false,
            threads: None,
            memory_limit: Default::default(),
            data_dir: None,
            no_opt: Vec::new(),
            ablate: false,
            repetitions: Some(8),
            budget_s: None,
            warmup: 1,
        }
    }

    /// All slots of a run of a fixed number of blocks.
    fn schedule(config: &RunConfig) -> Result<Vec<Slot>> {
        let mut schedule = Schedule::of(config)?;
        let blocks = std::iter::repeat_n(None, config.warmup).chain((0..config.repetitions.unwrap()).map(Some));
        Ok(blocks.flat_map(|block| schedule.block(block)).collect())
    }

    #[test]
    fn every_block_holds_every_case_once_in_an_order_of_its_own() {
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
    fn lazy_methods_go_without_each_rule_that_is_on_in_every_block() {
        let config = RunConfig { ablate: true, no_opt: vec!["mask".to_owned()], warmup: 0, ..config() };
        let slots = schedule(&config).unwrap();
        // For each task: eager once, and each of two lazy methods in full, without six rules, and without all.
        assert_eq!(slots.len(), 8 * 2 * (1 + 2 * 8));
        let block = &slots[..34];
        assert!(block.iter().all(|slot| slot.block == Some(0)));
        let without = |ablation| block.iter().filter(|slot| slot.ablation == Some(ablation)).count();
        assert_eq!(without(Ablation::Without(Rule::Prefix)), 4);
        assert_eq!(without(Ablation::WithoutAll), 4);
        assert_eq!(without(Ablation::Without(Rule::Mask)), 0, "it is off in all of them");
        assert!(block.iter().all(|slot| slot.method != Method::Eager || slot.ablation.is_none()));
    }
}
