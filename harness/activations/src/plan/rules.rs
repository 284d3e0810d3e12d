//! The optimiser's rules, each with a switch, so that the worth of each can be measured.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// One thing the optimiser does. None of them changes a bit of any result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// No block past the deepest layer that is needed.
    Depth,
    /// No padding rows: the rows of all samples stand one after the other.
    Packing,
    /// In the deepest block, no work past the keys and values for tokens nobody pools.
    Mask,
    /// Pooling where the rows are, before anything is copied.
    Pooling,
    /// Rows of a token prefix that samples share are computed once. Needs `packing`.
    Prefix,
    /// Layers that are not selected are never asked for.
    Layers,
    /// Samples that are not selected are never asked for.
    Batch,
}

impl Rule {
    /// All rules, in the order users see them.
    pub const ALL: [Rule; 7] =
        [Rule::Depth, Rule::Packing, Rule::Mask, Rule::Pooling, Rule::Prefix, Rule::Layers, Rule::Batch];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Depth => "depth",
            Rule::Packing => "packing",
            Rule::Mask => "mask",
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
                "unknown optimiser rule '{text}': use depth, packing, mask, pooling, prefix, layers, batch or all"
            ))
        })
    }
}

/// Which rules are on. All are, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    on: [bool; Rule::ALL.len()],
}

impl Rules {
    /// Every rule.
    pub const fn all() -> Self {
        Rules { on: [true; Rule::ALL.len()] }
    }

    /// No rule: the plan is done as it is written.
    pub const fn none() -> Self {
        Rules { on: [false; Rule::ALL.len()] }
    }

    /// Whether `rule` is on.
    pub const fn has(self, rule: Rule) -> bool {
        self.on[rule as usize]
    }

    /// The same rules without `rule`.
    pub const fn without(mut self, rule: Rule) -> Self {
        self.on[rule as usize] = false;
        self
    }

    /// All rules but the named ones; `all` names every one.
    ///
    /// # Errors
    /// A name that is no rule's.
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
        let on: Vec<&str> = Rule::ALL.into_iter().filter(|rule| self.has(*rule)).map(Rule::name).collect();
        f.write_str(if on.is_empty() { "none" } else { "" })?;
        f.write_str(&on.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_switch_rules_off() {
        let rules = Rules::all_but(&["prefix", "mask"]).unwrap();
        assert!(!rules.has(Rule::Prefix) && !rules.has(Rule::Mask) && rules.has(Rule::Depth));
        assert_eq!(rules.to_string(), "depth, packing, pooling, layers, batch");
        assert_eq!(Rules::all_but(&["prefix", "all"]).unwrap(), Rules::none());
        assert_eq!(Rules::none().to_string(), "none");
        assert!(Rules::all_but(&["speed"]).unwrap_err().to_string().contains("speed"));
        for rule in Rule::ALL {
            assert_eq!(rule.name().parse::<Rule>().unwrap(), rule);
        }
    }
}
