//! Which modules of a model an adapter was trained for, by the rules of PEFT.
//!
//! From `check_target_module_exists`, `_maybe_include_all_linear_layers` and `get_pattern_key` of PEFT. Patterns are compiled
//! with ASCII classes, which suffice for names of modules.

use regex::bytes::{Regex, RegexBuilder};

/// A list of names, or a regular expression.
#[derive(Clone, Debug)]
pub(super) enum ModuleSelector {
    /// A module is selected if it has one of these names, or ends with one of them after a dot.
    Names(Vec<String>),
    /// A module is selected if its whole name matches.
    Pattern(Regex),
}

/// The keys `target_modules`, `exclude_modules`, `layers_to_transform` and `layers_pattern`.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetModules {
    /// The selected modules; none if the configuration does not decide.
    pub(super) selected: Option<ModuleSelector>,
    /// Modules that are not adapted although they are selected.
    pub(super) excluded: Option<ModuleSelector>,
    /// The blocks whose modules are adapted; none for all.
    pub(super) layers: Option<Vec<usize>>,
    /// The names before the number of a block, as patterns; empty for any name.
    pub(super) layer_patterns: Vec<String>,
}

impl ModuleSelector {
    fn matches(&self, module: &str) -> bool {
        match self {
            ModuleSelector::Names(names) => names.iter().any(|name| ends_with_name(module, name)),
            ModuleSelector::Pattern(pattern) => pattern.is_match(module.as_bytes()),
        }
    }

    /// Whether `module` is in the list by its whole name.
    fn has_whole(&self, module: &str) -> bool {
        matches!(self, ModuleSelector::Names(names) if names.iter().any(|name| name == module))
    }
}

impl TargetModules {
    /// Whether `module` (`model.layers.0.mlp.up_proj`) is adapted; none if the configuration does not decide.
    pub(super) fn selects(&self, module: &str) -> Option<bool> {
        let selected = self.selected.as_ref()?;
        if self.excluded.as_ref().is_some_and(|excluded| excluded.matches(module)) {
            return Some(false);
        }
        if !selected.matches(module) {
            return Some(false);
        }
        // PEFT applies the restriction to blocks only to names that are parts.
        let is_restricted = matches!(selected, ModuleSelector::Names(_)) && !selected.has_whole(module);
        Some(match &self.layers {
            Some(layers) if is_restricted => self.block_of(module).is_some_and(|block| layers.contains(&block)),
            _ => true,
        })
    }

    /// The number that PEFT takes for the block of `module`: the first one. Older versions took none where the block's list is not
    /// inside of another module; their adapters have no tensors of such blocks.
    fn block_of(&self, module: &str) -> Option<usize> {
        let any = [r"[^.]*".to_owned()];
        let patterns = if self.layer_patterns.is_empty() { &any[..] } else { &self.layer_patterns[..] };
        let number = patterns.iter().find_map(|pattern| {
            let found = compile(&format!(r"^(?:.*?\.)?{pattern}\.(?P<block>\d+)\."))?.captures(module.as_bytes())?;
            String::from_utf8(found.name("block")?.as_bytes().to_vec()).ok()
        })?;
        number.parse().ok()
    }
}

/// A regular expression that a whole name must match; none if it is not one, or uses look-around, which Python alone has.
pub(super) fn whole_name(pattern: &str) -> Option<Regex> {
    compile(&format!("^(?:{pattern})$"))
}

/// The expression for a key of `rank_pattern` or `alpha_pattern`: the end of a module's name, after a dot.
pub(super) fn end_of_name(pattern: &str) -> Option<Regex> {
    compile(&format!(r"^(?:.*\.)?(?:{pattern})$"))
}

fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).unicode(false).build().ok()
}

/// Whether `module` is `name`, or ends with it after a dot.
fn ends_with_name(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: &str = "model.layers.3.mlp.up_proj";

    fn names(names: &[&str]) -> Option<ModuleSelector> {
        Some(ModuleSelector::Names(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn names_match_ends_after_a_dot() {
        let targets = TargetModules { selected: names(&["up_proj"]), ..TargetModules::default() };
        assert_eq!(targets.selects(UP), Some(true));
        assert_eq!(targets.selects("up_proj"), Some(true));
        assert_eq!(targets.selects("model.layers.3.mlp.group_proj"), Some(false));
        assert_eq!(targets.selects("model.layers.3.mlp.xup_proj"), Some(false));
        assert_eq!(TargetModules::default().selects(UP), None);
    }

    #[test]
    fn pattern_matches_whole_names() {
        let pattern = |text: &str| Some(ModuleSelector::Pattern(whole_name(text).unwrap()));
        let of = |text: &str| TargetModules { selected: pattern(text), ..TargetModules::default() }.selects(UP);
        assert_eq!(of(r".*\.\d+\.mlp\.(up|down)_proj"), Some(true));
        assert_eq!(of(r"mlp\.up_proj"), Some(false));
        assert_eq!(of(r"model|model\.layers\.[\d]{1,}\.mlp\.up_proj"), Some(true));
        assert!(whole_name("(?!x).*").is_none(), "look-around is not supported");
    }

    #[test]
    fn excluded_modules_and_other_blocks_are_not_targets() {
        let targets = TargetModules {
            selected: names(&["up_proj", "model.layers.5.mlp.down_proj"]),
            excluded: names(&["4.mlp.up_proj"]),
            layers: Some(vec![3, 4]),
            layer_patterns: Vec::new(),
        };
        assert_eq!(targets.selects(UP), Some(true));
        assert_eq!(targets.selects("model.layers.2.mlp.up_proj"), Some(false));
        assert_eq!(targets.selects("model.layers.4.mlp.up_proj"), Some(false));
        assert_eq!(targets.selects("model.layers.5.mlp.down_proj"), Some(true), "a whole name is not restricted");
        let other = TargetModules { layer_patterns: vec!["blocks".to_owned()], ..targets.clone() };
        assert_eq!(other.selects(UP), Some(false));
        let same = TargetModules { layer_patterns: vec!["layers".to_owned()], ..targets };
        assert_eq!(same.selects(UP), Some(true));
        assert_eq!(same.selects("layers.3.mlp.up_proj"), Some(true), "a model without head has no prefix");
    }

    #[test]
    fn key_of_a_pattern_matches_the_end_of_a_name() {
        let matches = |pattern: &str, module: &str| end_of_name(pattern).unwrap().is_match(module.as_bytes());
        assert!(matches("up_proj", UP) && matches("up_proj", "up_proj") && matches(r"[0-3]\.mlp\..*", UP));
        assert!(!matches("p_proj", UP) && !matches("mlp", UP));
    }
}
