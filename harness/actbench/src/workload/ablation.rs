//! Which of the optimiser's rules a case goes without, so that the worth of each can be measured.

use std::fmt;

use actbench_activations::plan::{Rule, Rules};

/// What is switched off in one case, beside what the settings switch off in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ablation {
    /// One rule.
    Without(Rule),
    /// Every rule: the plan is done as it is written.
    WithoutAll,
}

impl Ablation {
    /// One for each rule of `rules`, then all of them at once.
    pub fn of(rules: Rules) -> Vec<Ablation> {
        let each = Rule::ALL.into_iter().filter(|rule| rules.has(*rule)).map(Ablation::Without);
        each.chain([Ablation::WithoutAll]).collect()
    }

    /// The name that `--no-opt` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Ablation::Without(rule) => rule.name(),
            Ablation::WithoutAll => "all",
        }
    }
}

impl fmt::Display for Ablation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_is_on_is_gone_without_once() {
        let names = |rules| Ablation::of(rules).into_iter().map(Ablation::name).collect::<Vec<_>>().join(" ");
        assert_eq!(names(Rules::all()), "depth packing mask pooling prefix layers batch all");
        assert_eq!(names(Rules::all().without(Rule::Prefix)), "depth packing mask pooling layers batch all");
        for ablation in Ablation::of(Rules::all()) {
            assert!(Rules::all_but(&[ablation.name()]).is_ok());
        }
    }
}
