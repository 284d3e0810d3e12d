//! The rotary settings of a `config.json`, in every spelling that transformers reads.
//!
//! The precedence is that of `modeling_rope_utils` in transformers 5.24: `rope_scaling` replaces `rope_parameters`, the `rope_theta`
//! inside replaces the one outside, `rope_type` replaces `type`, and the outer `original_max_position_embeddings` replaces the inner
//! one. `scripts/make_rope_goldens.py` records its results for many spellings of a Llama.

use serde_json::{Map, Value};

use super::entries::{Entries, positive};
use crate::model::rope_spec::{RopeScaling, RopeSpec};
use crate::python_json::{describe, is_nested, is_truthy, number};

/// Keys of a rope dictionary that every type knows.
const COMMON_KEYS: [&str; 4] = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// Positions a model was first trained on.
const ORIGINAL: &str = "original_max_position_embeddings";

/// What a family reads in its own way.
pub(super) struct RopeRules {
    /// The key of the base outside the rope dictionary.
    pub(super) theta_key: &'static str,
    /// The base where no key gives one.
    pub(super) theta: f64,
    /// The key of the fraction of a head that is rotated, outside the rope dictionary, and its default; none in families that rotate
    /// whole heads.
    pub(super) fraction: Option<(&'static str, f64)>,
    /// Whether LongRoPE is the only scaling, which older files call `su` or `yarn`, with an original context of this many positions
    /// where no key outside the rope dictionary gives one (Phi 3).
    pub(super) longrope_alone: Option<usize>,
    /// Whether entries by layer type that no `layer_types` names are passed over with a warning, as transformers does for a Llama.
    /// Other families refuse them: most have their own list of layer types, with which transformers fails.
    pub(super) ignores_layer_types: bool,
}

impl RopeRules {
    /// The rules of most families.
    pub(super) const fn of_theta(theta: f64) -> Self {
        RopeRules { theta_key: "rope_theta", theta, fraction: None, longrope_alone: None, ignores_layer_types: false }
    }
}

/// Reads the rotary table of all layers of a model with heads of `head_dim` elements and a context of `max_positions`.
///
/// # Errors
/// A type that is not computed here, a number that is missing or impossible, and everything that transformers fails on.
pub(super) fn read(
    entries: &Entries<'_>,
    rules: &RopeRules,
    head_dim: usize,
    max_positions: usize,
) -> Result<RopeSpec, String> {
    let empty = Map::new();
    let (place, rope) = rope_dictionary(entries)?.unwrap_or(("rope_parameters", &empty));
    let kind = rope_type(entries, place, rope)?;
    check_nested(entries, place, rope, kind == "default" && rules.ignores_layer_types)?;
    let table = Table { entries, rules, place, rope, by_layer_type: false, head_dim, max_positions };
    table.read(kind)
}

/// Reads the tables of layers with full attention and of layers with a window (Gemma 3). `rope_scaling` is of the first alone.
///
/// # Errors
/// As [`read`].
pub(super) fn read_by_layer_type(
    entries: &Entries<'_>,
    head_dim: usize,
    max_positions: usize,
) -> Result<[RopeSpec; 2], String> {
    const FULL: &str = "full_attention";
    const SLIDING: &str = "sliding_attention";
    let parameters = object(entries, "rope_parameters")?;
    if let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty())
        && ![FULL, SLIDING].iter().any(|kind| parameters.contains_key(*kind))
    {
        return Err(format!("rope_parameters has no entries by layer type ('{FULL}', '{SLIDING}')"));
    }
    let of_kind = |kind: &str| match parameters.and_then(|parameters| parameters.get(kind)) {
        None | Some(Value::Null) => {
            // As in transformers, so that a `type` without `rope_type` in rope_scaling has no effect.
            Ok(Map::from_iter([("rope_type".to_owned(), Value::from("default"))]))
        }
        Some(value) => match value.as_object() {
            Some(rope) if is_nested(value) => Ok(rope.clone()),
            _ => Err(format!("{kind} of rope_parameters is {}, expected an object", describe(value))),
        },
    };
    let mut full = of_kind(FULL)?;
    if let Some(scaling) = object(entries, "rope_scaling")? {
        full.extend(scaling.clone());
    }
    let sliding = of_kind(SLIDING)?;
    let full_rules = RopeRules::of_theta(1_000_000.0);
    let sliding_rules = RopeRules { theta_key: "rope_local_base_freq", ..RopeRules::of_theta(10_000.0) };
    let read = |place: &'static str, rope: &Map<String, Value>, rules: &RopeRules| {
        let kind = rope_type(entries, place, rope)?;
        Table { entries, rules, place, rope, by_layer_type: true, head_dim, max_positions }.read(kind)
    };
    Ok([
        read("rope_parameters.full_attention", &full, &full_rules)?,
        read("rope_parameters.sliding_attention", &sliding, &sliding_rules)?,
    ])
}

/// The object of `key`, unless it is missing or null.
fn object<'a>(entries: &Entries<'a>, key: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    let Some(value) = entries.given(key) else { return Ok(None) };
    match value.as_object() {
        Some(map) if is_nested(value) => Ok(Some(map)),
        _ => Err(format!("{key} is {}, expected an object", describe(value))),
    }
}

/// A key of config.json and its object.
type NamedDictionary<'a> = (&'static str, &'a Map<String, Value>);

/// The dictionary that counts, with its key: `rope_scaling` unless Python takes it for false.
fn rope_dictionary<'a>(entries: &Entries<'a>) -> Result<Option<NamedDictionary<'a>>, String> {
    let truthy = |key: &'static str| entries.map.get(key).filter(|value| is_truthy(value)).map(|value| (key, value));
    let (scaling, parameters) = (truthy("rope_scaling"), truthy("rope_parameters"));
    for (key, value) in [scaling, parameters].into_iter().flatten() {
        if !is_nested(value) {
            return Err(format!("{key} is {}, expected an object", describe(value)));
        }
    }
    if let (Some((_, used)), Some((_, other))) = (scaling, parameters)
        && used != other
    {
        entries.warn("rope_parameters is not used, because rope_scaling is given too".to_owned());
    }
    Ok(scaling.or(parameters).and_then(|(key, value)| Some((key, value.as_object()?))))
}

fn rope_type<'a>(entries: &Entries<'_>, place: &str, rope: &'a Map<String, Value>) -> Result<&'a str, String> {
    let text = |key: &str, value: &'a Value| {
        value.as_str().ok_or_else(|| format!("{place} has the {key} {}, expected the name of a type", describe(value)))
    };
    match (rope.get("rope_type"), rope.get("type")) {
        (Some(new), old) => {
            let new = text("rope_type", new)?;
            if let Some(old) = old.and_then(Value::as_str).filter(|old| *old != new) {
                entries.warn(format!("the type '{old}' of {place} is not used, because its rope_type is '{new}'"));
            }
            Ok(new)
        }
        (None, Some(old)) => text("type", old),
        (None, None) => Ok("default"),
    }
}

/// Entries by layer type in the dictionary of a family that has one table for all layers. With `may_ignore`, those that no
/// `layer_types` names are a warning.
fn check_nested(entries: &Entries<'_>, place: &str, rope: &Map<String, Value>, may_ignore: bool) -> Result<(), String> {
    let nested: Vec<&str> = rope.iter().filter(|(_, value)| is_nested(value)).map(|(key, _)| key.as_str()).collect();
    if nested.is_empty() {
        return Ok(());
    }
    let (names, title) = (nested.join("', '"), entries.title);
    let declared = |name: &str| {
        entries
            .map
            .get("layer_types")
            .and_then(Value::as_array)
            .is_some_and(|types| types.iter().any(|kind| kind.as_str() == Some(name)))
    };
    if !may_ignore || nested.iter().any(|name| declared(name)) {
        return Err(format!("{place} has entries by layer type ('{names}'), but {title} has one rope for all layers"));
    }
    entries.warn(format!(
        "the entries of {place} by layer type ('{names}') are not used: {title} has one rope for all layers"
    ));
    Ok(())
}

/// A rope dictionary, with the settings outside it.
struct Table<'a> {
    entries: &'a Entries<'a>,
    rules: &'a RopeRules,
    /// The key of the dictionary.
    place: &'static str,
    rope: &'a Map<String, Value>,
    /// Whether the dictionary is that of a layer type.
    by_layer_type: bool,
    head_dim: usize,
    max_positions: usize,
}

impl Table<'_> {
    fn read(&self, kind: &str) -> Result<RopeSpec, String> {
        let place = self.place;
        let rotary_dim = self.rotary_dim(kind)?;
        let theta = self.theta()?;
        let computed = match (kind, self.rules.longrope_alone) {
            ("yarn", Some(_)) => "longrope",
            ("default" | "longrope", _) | (_, None) => kind,
            (other, Some(_)) => return Err(format!("rope scaling '{other}' is unknown: use default or longrope")),
        };
        let (scaling, known): (_, &[&str]) = match computed {
            "default" => (RopeScaling::Default, &[]),
            "linear" => (RopeScaling::Linear { factor: self.positive("factor")? }, &["factor"]),
            "llama3" => (self.llama3()?, &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL]),
            "dynamic" => (self.dynamic(rotary_dim)?, &["factor"]),
            "yarn" => (
                self.yarn()?,
                &[
                    "factor",
                    ORIGINAL,
                    "attention_factor",
                    "beta_fast",
                    "beta_slow",
                    "mscale",
                    "mscale_all_dim",
                    "truncate",
                ],
            ),
            "longrope" => (
                self.longrope(rotary_dim / 2)?,
                &["factor", ORIGINAL, "attention_factor", "short_factor", "long_factor"],
            ),
            other => {
                let known = "default, linear, llama3, dynamic, yarn or longrope";
                return Err(format!("rope scaling '{other}' is unknown: use {known}"));
            }
        };
        self.warn_unused(kind, known);
        let spec = RopeSpec { theta, rotary_dim, scaling };
        let is_checked = matches!(spec.scaling, RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. });
        if is_checked && !spec.frequencies().iter().all(|frequency| frequency.is_finite() && *frequency > 0.0) {
            return Err(format!(
                "{place} and rope_theta {theta} give rotary frequencies that are not positive numbers"
            ));
        }
        Ok(spec)
    }

    /// The elements of a head that are rotated. In families that rotate whole heads transformers ignores another fraction for the type
    /// `default`; a file that gives one is still of another model.
    fn rotary_dim(&self, kind: &str) -> Result<usize, String> {
        let (place, head_dim) = (self.place, self.head_dim);
        let inner = self.rope.get("partial_rotary_factor");
        let Some((key, absent)) = self.rules.fraction else {
            return match inner.or_else(|| self.entries.given("partial_rotary_factor")) {
                Some(Value::Null) if kind == "default" => Ok(head_dim),
                Some(value) if number(value) != Some(1.0) => {
                    Err(format!("partial_rotary_factor of {place} is {}, only 1 is supported", describe(value)))
                }
                _ => Ok(head_dim),
            };
        };
        let (name, value) = match inner {
            Some(value) => ("partial_rotary_factor", Some(value)),
            None => (key, self.entries.map.get(key)),
        };
        let fraction = value.map_or(Some(absent), number).filter(|fraction| *fraction > 0.0 && *fraction <= 1.0);
        let Some(fraction) = fraction else {
            return Err(format!(
                "{name} is {}, it must be above 0 and at most 1",
                value.map(describe).unwrap_or_default()
            ));
        };
        let rotated = (head_dim as f64 * fraction) as usize;
        if rotated == 0 || !rotated.is_multiple_of(2) {
            return Err(format!(
                "{name} {fraction} rotates {rotated} of {head_dim} elements, it must be an even number"
            ));
        }
        Ok(rotated)
    }

    fn theta(&self) -> Result<f64, String> {
        let (place, key) = (self.place, self.rules.theta_key);
        let outer = self.entries.map.get(key);
        let Some(inner) = self.rope.get("rope_theta") else {
            return outer.map_or(Ok(self.rules.theta), |value| positive(key, value));
        };
        let theta = positive(&format!("rope_theta of {place}"), inner)?;
        if let Some(outer) = outer.filter(|outer| !outer.is_null() && number(outer) != Some(theta)) {
            self.entries.warn(format!("the outer {key} {} is not used, because {place} has {theta}", describe(outer)));
        }
        Ok(theta)
    }

    fn llama3(&self) -> Result<RopeScaling, String> {
        let low_freq_factor = self.positive("low_freq_factor")?;
        let high_freq_factor = self.positive("high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            return Err(format!("high_freq_factor {high_freq_factor} must be above low_freq_factor {low_freq_factor}"));
        }
        let original_context = self.original_context()?;
        Ok(RopeScaling::Llama3 {
            factor: self.positive("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_context,
        })
    }

    fn dynamic(&self, rotary_dim: usize) -> Result<RopeScaling, String> {
        if rotary_dim <= 2 {
            return Err(format!("{} asks for dynamic scaling, which needs more than 2 rotated elements", self.place));
        }
        Ok(RopeScaling::Dynamic { factor: self.positive("factor")?, max_positions: self.max_positions })
    }

    fn yarn(&self) -> Result<RopeScaling, String> {
        let original_context = self.original_context()?;
        let factor = match self.rope.get("factor") {
            Some(Value::Null) => self.max_positions as f64 / original_context,
            _ => self.positive("factor")?,
        };
        let attention_factor = match self.optional("attention_factor")? {
            Some(factor) => factor,
            // Section 3.4 of the paper has 0.1 ln(s) + 1; DeepSeek weighs its logarithm twice and divides.
            None => match (self.nonzero("mscale")?, self.nonzero("mscale_all_dim")?) {
                (Some(mscale), Some(all_dim)) => mscale_of(factor, mscale) / mscale_of(factor, all_dim),
                _ => mscale_of(factor, 1.0),
            },
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_context,
            beta_fast: self.nonzero("beta_fast")?.unwrap_or(32.0),
            beta_slow: self.nonzero("beta_slow")?.unwrap_or(1.0),
            // transformers looks for it in the outermost dictionary alone.
            truncate: self.by_layer_type || self.rope.get("truncate").is_none_or(is_truthy),
            attention_factor,
        })
    }

    fn longrope(&self, pairs: usize) -> Result<RopeScaling, String> {
        let original_context = self.original_context()?;
        let factor = self.optional("factor")?.unwrap_or(self.max_positions as f64 / original_context);
        let attention_factor = match self.optional("attention_factor")? {
            Some(factor) => factor,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original_context.ln()).sqrt(),
        };
        if !attention_factor.is_finite() {
            return Err(format!("{ORIGINAL} is {original_context}, it must be above 1"));
        }
        let (short_factor, long_factor) = (self.list("short_factor", pairs)?, self.list("long_factor", pairs)?);
        Ok(RopeScaling::LongRope { short_factor, long_factor, original_context, attention_factor })
    }

    /// Positions the model was first trained on.
    fn original_context(&self) -> Result<f64, String> {
        if let Some(outer) = self.entries.map.get(ORIGINAL).filter(|_| !self.by_layer_type) {
            return positive(ORIGINAL, outer);
        }
        if let Some(absent) = self.rules.longrope_alone {
            return Ok(absent as f64);
        }
        if self.rope.contains_key(ORIGINAL) { self.positive(ORIGINAL) } else { Ok(self.max_positions as f64) }
    }

    /// Warns of entries that the type does not know.
    fn warn_unused(&self, kind: &str, known: &[&str]) {
        let (place, rope) = (self.place, self.rope);
        let unused = |(key, value): &(&String, &Value)| {
            !value.is_null()
                && !is_nested(value)
                && !COMMON_KEYS.contains(&key.as_str())
                && !known.contains(&key.as_str())
        };
        let unused: Vec<&str> = rope.iter().filter(unused).map(|(key, _)| key.as_str()).collect();
        if !unused.is_empty() {
            let named = if rope.contains_key("rope_type") || rope.contains_key("type") {
                ""
            } else {
                ", because it names no type"
            };
            let unused = unused.join("', '");
            self.entries.warn(format!("{place} has the type '{kind}'{named}, which does not use its '{unused}'"));
        }
    }

    /// A positive number that must be there.
    fn positive(&self, key: &str) -> Result<f64, String> {
        let value = self.rope.get(key).ok_or_else(|| format!("{} has no {key}", self.place))?;
        positive(&format!("{key} of {}", self.place), value)
    }

    /// A positive number, unless the key is missing or null.
    fn optional(&self, key: &str) -> Result<Option<f64>, String> {
        match self.rope.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.positive(key).map(Some),
        }
    }

    /// A positive number, unless the key is missing, null or 0.
    fn nonzero(&self, key: &str) -> Result<Option<f64>, String> {
        match self.rope.get(key) {
            Some(value) if is_truthy(value) => self.positive(key).map(Some),
            _ => Ok(None),
        }
    }

    /// A list of `length` positive numbers.
    fn list(&self, key: &str, length: usize) -> Result<Vec<f64>, String> {
        let name = format!("{key} of {}", self.place);
        let value = self.rope.get(key).ok_or_else(|| format!("{} has no {key}", self.place))?;
        let items = value.as_array().ok_or_else(|| format!("{name} is {}, expected a list", describe(value)))?;
        if items.len() != length {
            return Err(format!("{name} has {} numbers, expected {length}: one a pair of elements", items.len()));
        }
        items.iter().map(|item| positive(&format!("a number in {name}"), item)).collect()
    }
}

/// The factor of cosines and sines for contexts that are `scale` times as long.
fn mscale_of(scale: f64, mscale: f64) -> f64 {
    if scale <= 1.0 { 1.0 } else { 0.1 * mscale * scale.ln() + 1.0 }
}
