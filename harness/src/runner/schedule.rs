//! In which order cases run: blocks of all cases, each block shuffled.
//!
//! A machine drifts over minutes. Within a block all methods meet the same drift, so ratios are taken inside blocks;
//! a random order inside each keeps one method from always coming first (Laaber et al. 2019: random interleaving
//! finds small slowdowns that runs one after the other miss).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::workload::case::{Method, RunConfig, Task};

/// A place in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What is done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// The block, from 0 on; none for a warm-up, which is not counted.
    pub block: Option<usize>,
}

/// All slots of a run, in order: warm-up blocks, then counted blocks.
pub fn schedule(config: &RunConfig) -> Vec<Slot> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let blocks = std::iter::repeat_n(None, config.warmup).chain((0..config.repetitions).map(Some));
    blocks
        .flat_map(|block| {
            let mut slots: Vec<Slot> = config
                .tasks
                .iter()
                .flat_map(|&task| config.methods.iter().map(move |&method| Slot { task, method, block }))
                .collect();
            slots.shuffle(&mut rng);
            slots
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use actbench_kernels::{DType, PoolMethod};

    use super::*;
    use crate::text::MaskKind;
    use crate::workload::case::{DeviceMap, ProbeSolver};

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
            data_dir: None,
            no_opt: Vec::new(),
            repetitions: 8,
            warmup: 1,
        }
    }

    #[test]
    fn every_block_holds_every_case_once_in_an_order_of_its_own() {
        let config = config();
        let slots = schedule(&config);
        assert_eq!(slots, schedule(&config), "the order follows the seed");
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
        assert_ne!(schedule(&RunConfig { seed: 1, ..config }), slots);
    }
}
