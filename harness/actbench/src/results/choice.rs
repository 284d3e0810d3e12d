//! The rule by which a method is chosen, from predictions (`plan`) and from measurements (`run`, `recommend`, `report`).

use super::interval::is_same;
use crate::case::Method;

/// Times within this fraction of the fastest count as equally fast.
pub const EQUAL_TIME_FRACTION: f64 = 0.05;

/// A method is preferred for its memory only if it saves more than this fraction of another's memory,
pub const MEMORY_FRACTION: f64 = 0.05;

/// and more than this many MiB: a smaller difference decides nothing about what fits on a machine.
pub const MEMORY_MIB: f64 = 64.0;

/// The rule in words; a test compares its figures with the constants.
pub const RULE: &str = "The fastest of the modes that completed and never ran out of memory, over the repetitions that they share. \
                        Modes within 5 % of its time, or for which the interval of the ratio of the times contains 1, count as \
                        equally fast; of these the simplest (eager, then lazy, then lazy-disk), unless another saves more than \
                        5 % and more than 64 MiB of memory. Modes are compared only over cases that all of them ran.";

/// How the counted repetitions of a method ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepetitionCounts {
    /// All of them.
    pub n: usize,
    /// Those that completed.
    pub n_ok: usize,
    /// Those that ran out of memory, or were predicted to.
    pub n_oom: usize,
}

impl RepetitionCounts {
    /// Whether the method is out: it never completed, or it ran out of memory. A repetition that failed otherwise, by a signal or
    /// at a time limit, is more often an accident of the machine than a property of the method, and times of the others stay
    /// valid. Memory is a property of the method: where it did not suffice once, the next run may fail as well.
    pub fn is_out(self) -> bool {
        self.n > 0 && (self.n_ok == 0 || self.n_oom > 0)
    }

    /// `eager failed in 1 of 6 repetitions`; none if all completed.
    pub fn failures(self, method: Method) -> Option<String> {
        let RepetitionCounts { n, n_ok, n_oom } = self;
        match n - n_ok {
            0 => None,
            failed if failed == n => Some(format!("{method} never completed")),
            failed if failed == n_oom => Some(format!("{method} ran out of memory in {failed} of {n} repetitions")),
            failed if n_oom > 0 => {
                Some(format!("{method} failed in {failed} of {n} repetitions, {n_oom} of them out of memory"))
            }
            failed => Some(format!("{method} failed in {failed} of {n} repetitions")),
        }
    }
}

impl std::iter::Sum for RepetitionCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(RepetitionCounts::default(), |sum, it| RepetitionCounts {
            n: sum.n + it.n,
            n_ok: sum.n_ok + it.n_ok,
            n_oom: sum.n_oom + it.n_oom,
        })
    }
}

/// The methods to choose from, given the counts of each in every compared case: those that are out in the fewest cases, and of
/// these the ones that never completed in the fewest.
pub fn candidates(counts: &[(Method, Vec<RepetitionCounts>)]) -> Vec<Method> {
    let out = |cases: &[RepetitionCounts]| {
        let number = |is: fn(&RepetitionCounts) -> bool| cases.iter().filter(|it| is(it)).count();
        (number(|it| it.is_out()), number(|it| it.n > 0 && it.n_ok == 0))
    };
    let fewest = counts.iter().map(|(_, cases)| out(cases)).min();
    counts.iter().filter(|(_, cases)| Some(out(cases)) == fewest).map(|(method, _)| *method).collect()
}

/// The time and memory that a method needs for the compared cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MethodNeeds {
    /// The method.
    pub method: Method,
    /// Seconds.
    pub seconds: f64,
    /// Peak memory in MiB, if it is known.
    pub memory_mib: Option<f64>,
}

/// Pairs of methods whose times showed no difference: the interval of their ratio contains 1. Predictions have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndecidedTimes(pub Vec<(Method, Method)>);

impl UndecidedTimes {
    /// Whether the two methods are one of the pairs, in either order.
    fn has(&self, one: Method, other: Method) -> bool {
        self.0.contains(&(one, other)) || self.0.contains(&(other, one))
    }
}

/// The method to use by [`RULE`], of methods that ran the same cases; none if there are none. A method is out of the fastest if
/// any other is faster by a difference that is shown, so that no choice rests on a ratio that the next run may reverse.
pub fn choose(needs: &[MethodNeeds], undecided: &UndecidedTimes) -> Option<MethodNeeds> {
    let is_slower = |it: &MethodNeeds, than: &MethodNeeds| {
        it.seconds > than.seconds * (1.0 + EQUAL_TIME_FRACTION) && !undecided.has(it.method, than.method)
    };
    let mut fast: Vec<MethodNeeds> =
        needs.iter().copied().filter(|it| !needs.iter().any(|other| is_slower(it, other))).collect();
    // From the simplest method to the one with the most parts.
    fast.sort_by_key(|it| it.method);
    let least = fast.iter().filter_map(|it| it.memory_mib).reduce(f64::min);
    let is_frugal = |it: &MethodNeeds| match (it.memory_mib, least) {
        (Some(own), Some(least)) => !saves_memory(least, own),
        _ => true,
    };
    fast.iter().copied().find(is_frugal)
}

/// Whether `less` MiB instead of `more` is a saving that a choice may rest on.
fn saves_memory(less: f64, more: f64) -> bool {
    more > less * (1.0 + MEMORY_FRACTION) && more - less > MEMORY_MIB
}

impl MethodNeeds {
    /// `eager needs 2.31x the time and the same memory`, compared with the `chosen` method.
    pub fn against(&self, chosen: &MethodNeeds, undecided: &UndecidedTimes) -> String {
        let time = times_as_much(self.seconds / chosen.seconds, "time");
        let memory = self.memory_mib.zip(chosen.memory_mib).map(|(own, chosen)| times_as_much(own / chosen, "memory"));
        match (undecided.has(self.method, chosen.method), memory) {
            (false, Some(memory)) => format!("{} needs {time} and {memory}", self.method),
            (false, None) => format!("{} needs {time}", self.method),
            (true, Some(memory)) => format!("{} showed no difference in time and needs {memory}", self.method),
            (true, None) => format!("{} showed no difference in time", self.method),
        }
    }
}

fn times_as_much(ratio: f64, quantity: &str) -> String {
    if is_same(ratio) { format!("the same {quantity}") } else { format!("{ratio:.2}x the {quantity}") }
}

/// `lazy-disk was not tried`: the methods that are not in `tried`; none if all are.
pub fn not_tried(tried: impl Fn(Method) -> bool) -> Option<String> {
    let missing = [Method::Eager, Method::Lazy, Method::LazyDisk].into_iter().filter(|method| !tried(*method));
    let names: Vec<String> = missing.map(|method| method.to_string()).collect();
    let verb = if names.len() == 1 { "was" } else { "were" };
    (!names.is_empty()).then(|| format!("{} {verb} not tried", names.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(method: Method, seconds: f64, memory_mib: f64) -> MethodNeeds {
        MethodNeeds { method, seconds, memory_mib: Some(memory_mib) }
    }

    fn chosen(needs: &[MethodNeeds]) -> Option<Method> {
        choose(needs, &UndecidedTimes::default()).map(|it| it.method)
    }

    #[test]
    fn time_without_shown_difference_decides_nothing() {
        use Method::{Eager, Lazy, LazyDisk};
        let choose = |needs: &[MethodNeeds], undecided: &[(Method, Method)]| {
            choose(needs, &UndecidedTimes(undecided.to_vec())).map(|it| it.method)
        };
        let two = [needs(Eager, 1.1, 500.0), needs(Lazy, 1.0, 500.0)];
        assert_eq!([choose(&two, &[]), choose(&two, &[(Eager, Lazy)])], [Some(Lazy), Some(Eager)]);
        let with_memory = [needs(Eager, 1.0, 900.0), needs(Lazy, 1.3, 500.0)];
        assert_eq!(choose(&with_memory, &[(Eager, Lazy)]), Some(Lazy), "equal times, less memory");
        // Eager and lazy-disk are undecided, but lazy is shown to be faster than eager.
        let three = [needs(Eager, 1.3, 500.0), needs(Lazy, 1.1, 500.0), needs(LazyDisk, 1.0, 500.0)];
        assert_eq!(choose(&three, &[(Eager, LazyDisk), (Lazy, LazyDisk)]), Some(Lazy));
        let undecided = UndecidedTimes(vec![(Eager, Lazy)]);
        assert_eq!(two[1].against(&two[0], &undecided), "lazy showed no difference in time and needs the same memory");
        let unknown = MethodNeeds { memory_mib: None, ..two[1] };
        assert_eq!(unknown.against(&two[0], &undecided), "lazy showed no difference in time");
    }

    #[test]
    fn small_memory_advantage_moves_no_choice() {
        use Method::{Eager, Lazy, LazyDisk};
        // One percent, and five percent and more of little: lazy stays.
        for disk in [194.0, 196.0, 135.0] {
            assert_eq!(chosen(&[needs(LazyDisk, 1.0, disk), needs(Lazy, 1.0, 196.0)]), Some(Lazy), "{disk}");
        }
        assert_eq!(chosen(&[needs(Lazy, 1.0, 2000.0), needs(LazyDisk, 1.0, 1930.0)]), Some(Lazy), "less than 5 %");
        assert_eq!(chosen(&[needs(Lazy, 1.0, 2000.0), needs(LazyDisk, 1.04, 1800.0)]), Some(LazyDisk));
        assert_eq!(chosen(&[needs(Lazy, 1.0, 2000.0), needs(LazyDisk, 1.06, 1000.0)]), Some(Lazy), "slower by 6 %");
        assert_eq!(chosen(&[needs(Lazy, 0.99, 100.0), needs(Eager, 1.0, 150.0)]), Some(Eager), "eager is the simplest");
        let unknown = MethodNeeds { memory_mib: None, ..needs(Lazy, 2.0, 0.0) };
        assert_eq!(chosen(&[unknown, needs(LazyDisk, 2.0, 1.0)]), Some(Lazy));
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn method_is_out_by_memory_or_without_completion() {
        let counts = |n_ok, n_oom| RepetitionCounts { n: 6, n_ok, n_oom };
        assert_eq!([counts(6, 0), counts(5, 0), counts(1, 0)].map(RepetitionCounts::is_out), [false; 3]);
        assert_eq!([counts(0, 0), counts(5, 1), counts(0, 6)].map(RepetitionCounts::is_out), [true; 3]);
        assert!(!RepetitionCounts::default().is_out(), "not tried");
        let failures = |n_ok, n_oom| counts(n_ok, n_oom).failures(Method::Eager);
        assert_eq!(failures(6, 0), None);
        assert_eq!(failures(5, 0).as_deref(), Some("eager failed in 1 of 6 repetitions"));
        assert_eq!(failures(5, 1).as_deref(), Some("eager ran out of memory in 1 of 6 repetitions"));
        assert_eq!(failures(3, 1).as_deref(), Some("eager failed in 3 of 6 repetitions, 1 of them out of memory"));
        assert_eq!(failures(0, 2).as_deref(), Some("eager never completed"));
    }

    #[test]
    fn candidates_are_out_in_the_fewest_cases() {
        use Method::{Eager, Lazy, LazyDisk};
        let (whole, one_failed, out) = (
            RepetitionCounts { n: 6, n_ok: 6, n_oom: 0 },
            RepetitionCounts { n: 6, n_ok: 5, n_oom: 0 },
            RepetitionCounts { n: 6, n_ok: 5, n_oom: 1 },
        );
        let found = |eager: &[RepetitionCounts], lazy: &[RepetitionCounts]| {
            candidates(&[(Eager, eager.to_vec()), (Lazy, lazy.to_vec())])
        };
        assert_eq!(found(&[one_failed, whole], &[whole, whole]), [Eager, Lazy]);
        assert_eq!(found(&[whole, out], &[whole, one_failed]), [Lazy]);
        assert_eq!(found(&[out], &[out]), [Eager, Lazy], "one has to be chosen");
        let never = RepetitionCounts { n: 6, n_ok: 0, n_oom: 6 };
        assert_eq!(found(&[never], &[out]), [Lazy], "better than a method that never completed");
        assert_eq!(candidates(&[(LazyDisk, vec![whole])]), [LazyDisk]);
        assert_eq!(candidates(&[]), []);
    }

    #[test]
    fn reasons_name_factors_beyond_two_percent() {
        let lazy = needs(Method::Lazy, 1.0, 100.0);
        let decided = UndecidedTimes::default();
        assert_eq!(
            needs(Method::Eager, 2.5, 98.5).against(&lazy, &decided),
            "eager needs 2.50x the time and the same memory"
        );
        assert_eq!(
            needs(Method::LazyDisk, 1.01, 50.0).against(&lazy, &decided),
            "lazy-disk needs the same time and 0.50x the memory"
        );
        assert_eq!(not_tried(|method| method != Method::LazyDisk).as_deref(), Some("lazy-disk was not tried"));
        assert_eq!(not_tried(|_| true), None);
    }

    #[test]
    fn rule_in_words_has_the_thresholds() {
        assert!(RULE.contains(&format!("within {:.0} % of its time", 100.0 * EQUAL_TIME_FRACTION)));
        assert!(
            RULE.contains(&format!("more than {:.0} % and more than {MEMORY_MIB:.0} MiB", 100.0 * MEMORY_FRACTION))
        );
    }
}
