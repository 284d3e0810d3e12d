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
pub const RULE: &str = "Of the modes with the fewest failures, the fastest. Modes within 5 % of its time count as equally fast; \
                        of these the simplest (eager, then lazy, then lazy-disk), unless another saves more than 5 % and more \
                        than 64 MiB of memory. Modes are compared only over cases that all of them ran.";

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

/// The method to use by [`RULE`], of methods that ran the same cases; none if there are none.
pub fn choose(needs: &[MethodNeeds]) -> Option<MethodNeeds> {
    let fastest = needs.iter().map(|it| it.seconds).fold(f64::INFINITY, f64::min);
    let mut fast: Vec<MethodNeeds> =
        needs.iter().copied().filter(|it| it.seconds <= fastest * (1.0 + EQUAL_TIME_FRACTION)).collect();
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
    pub fn against(&self, chosen: &MethodNeeds) -> String {
        let time = times_as_much(self.seconds / chosen.seconds, "time");
        let memory = match self.memory_mib.zip(chosen.memory_mib) {
            Some((own, chosen)) => format!(" and {}", times_as_much(own / chosen, "memory")),
            None => String::new(),
        };
        format!("{} needs {time}{memory}", self.method)
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
        choose(needs).map(|it| it.method)
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
    fn reasons_name_factors_beyond_two_percent() {
        let lazy = needs(Method::Lazy, 1.0, 100.0);
        assert_eq!(needs(Method::Eager, 2.5, 98.5).against(&lazy), "eager needs 2.50x the time and the same memory");
        assert_eq!(
            needs(Method::LazyDisk, 1.01, 50.0).against(&lazy),
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
