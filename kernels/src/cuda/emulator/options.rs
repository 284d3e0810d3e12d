//! The choices that the programming model leaves open: the order of threads and the time of asynchronous copies.

/// The order in which the threads of a block take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadOrder {
    /// By index.
    Forward,
    /// By falling index.
    Reverse,
    /// A random order for each block.
    Random,
}

/// The time of an asynchronous copy, between its issue and the wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyTime {
    /// At its issue.
    Early,
    /// At the wait.
    Late,
    /// Random for each copy.
    Mixed,
}

/// The mode of the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmulatorOptions {
    /// The order of threads.
    pub order: ThreadOrder,
    /// The time of copies.
    pub copies: CopyTime,
    /// The seed of random choices.
    pub seed: u64,
}

impl EmulatorOptions {
    /// Every order with every time of copies.
    pub fn matrix() -> Vec<EmulatorOptions> {
        let mut all = Vec::new();
        for order in [ThreadOrder::Forward, ThreadOrder::Reverse, ThreadOrder::Random] {
            for copies in [CopyTime::Early, CopyTime::Late, CopyTime::Mixed] {
                all.push(EmulatorOptions { order, copies, seed: 1 });
            }
        }
        all
    }
}
