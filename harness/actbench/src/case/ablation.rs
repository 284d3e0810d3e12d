//! The optimizer rules that a case disables, so that the effect of each rule can be measured.

use std::fmt;

use actbench_activations::plan::{Rule, Rules};

/// The rules disabled in one case, in addition to those that the settings disable in all cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ablation {
    /// One rule.
    Without(Rule),
    /// Every rule: the plan runs unoptimized.
    WithoutAll,
}

impl Ablation {
    /// An ablation for each rule of `rules`, then the one without any rule.
    pub fn for_rules(rules: Rules) -> Vec<Ablation> {
        let each = Rule::ALL.into_iter().filter(|rule| rules.has(*rule)).map(Ablation::Without);
        each.chain([Ablation::WithoutAll]).collect()
    }

    /// The name of the ablation, as `--no-opt` takes it.
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
    fn every_enabled_rule_is_ablated_once() {
        let names = |rules| Ablation::for_rules(rules).into_iter().map(Ablation::name).collect::<Vec<_>>().join(" ");
        assert_eq!(names(Rules::all()), "depth packing mask tail pooling prefix layers batch all");
        assert_eq!(names(Rules::all().without(Rule::Prefix)), "depth packing mask tail pooling layers batch all");
        for ablation in Ablation::for_rules(Rules::all()) {
            assert!(Rules::all_but(&[ablation.name()]).is_ok());
        }
    }
}
