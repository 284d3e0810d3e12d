//! The optimizer's rules, each with a switch, so that the effect of each can be measured.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// One optimization. No rule changes a bit of any result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Run no block past the deepest layer that is needed.
    Depth,
    /// Pack batches: the tokens of all samples one after the other, without padding.
    Packing,
    /// Prune the last block: tokens that are not pooled are computed up to their keys and values.
    Mask,
    /// Cut samples that are pooled after their last pooled token: attention is causal, so nothing needs the rest.
    Tail,
    /// Pool on the device, before outputs are copied to the host.
    Pooling,
    /// Compute token prefixes that samples share once. Needs `packing`.
    Prefix,
    /// Ask the source for selected layers only.
    Layers,
    /// Ask the source for selected samples only.
    Batch,
}

impl Rule {
    /// All rules, in the order users see them.
    pub const ALL: [Rule; 8] =
        [Rule::Depth, Rule::Packing, Rule::Mask, Rule::Tail, Rule::Pooling, Rule::Prefix, Rule::Layers, Rule::Batch];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Depth => "depth",
            Rule::Packing => "packing",
            Rule::Mask => "mask",
            Rule::Tail => "tail",
            Rule::Pooling => "pooling",
            Rule::Prefix => "prefix",
            Rule::Layers => "layers",
            Rule::Batch => "batch",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Rule::ALL.into_iter().find(|rule| rule.name() == text).ok_or_else(|| {
            Error::usage(format!(
                "unknown optimizer rule '{text}': use depth, packing, mask, tail, pooling, prefix, layers, batch or all"
            ))
        })
    }
}

/// Which rules are on; by default all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    enabled: [bool; Rule::ALL.len()],
}

impl Rules {
    /// Every rule.
    pub const fn all() -> Self {
        Rules { enabled: [true; Rule::ALL.len()] }
    }

    /// No rule: the plan is executed as it is written.
    pub const fn none() -> Self {
        Rules { enabled: [false; Rule::ALL.len()] }
    }

    /// Whether `rule` is on.
    pub const fn has(self, rule: Rule) -> bool {
        self.enabled[rule as usize]
    }

    /// These rules without `rule`.
    pub const fn without(mut self, rule: Rule) -> Self {
        self.enabled[rule as usize] = false;
        self
    }

    /// All rules but the named ones; `all` names every one.
    ///
    /// # Errors
    /// An unknown name.
    pub fn all_but<S: AsRef<str>>(names: &[S]) -> Result<Self> {
        names.iter().try_fold(Rules::all(), |rules, name| match name.as_ref() {
            "all" => Ok(Rules::none()),
            name => Ok(rules.without(name.parse()?)),
        })
    }
}

impl Default for Rules {
    fn default() -> Self {
        Rules::all()
    }
}

impl fmt::Display for Rules {
    /// `depth, packing`; `none` without any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enabled: Vec<&str> = Rule::ALL.into_iter().filter(|rule| self.has(*rule)).map(Rule::name).collect();
        f.write_str(if enabled.is_empty() { "none" } else { "" })?;
        f.write_str(&enabled.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_rules_are_switched_off() {
        let rules = Rules::all_but(&["prefix", "mask"]).unwrap();
        assert!(!rules.has(Rule::Prefix) && !rules.has(Rule::Mask) && rules.has(Rule::Depth));
        assert_eq!(rules.to_string(), "depth, packing, tail, pooling, layers, batch");
        assert_eq!(Rules::all_but(&["prefix", "all"]).unwrap(), Rules::none());
        assert_eq!(Rules::none().to_string(), "none");
        assert!(Rules::all_but(&["speed"]).unwrap_err().to_string().contains("speed"));
        for rule in Rule::ALL {
            assert_eq!(rule.name().parse::<Rule>().unwrap(), rule);
        }
    }
}
