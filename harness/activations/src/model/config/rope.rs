//! The rotary frequencies of a `config.json`, in every spelling that transformers reads.
//!
//! The precedence is that of `modeling_rope_utils` in transformers 5.24 for a Llama: `rope_scaling` replaces `rope_parameters`, the
//! `rope_theta` inside replaces the one outside, `rope_type` replaces `type`, and for `llama3` the outer
//! `original_max_position_embeddings` replaces the inner one. `scripts/make_rope_goldens.py` records its results for many spellings.

use serde_json::{Map, Value};

use super::json::{describe, is_nested, is_truthy, number};

/// The base of the frequencies where no key gives one.
const DEFAULT_THETA: f64 = 10_000.0;

/// Keys of a rope dictionary that every type knows.
const COMMON_KEYS: [&str; 4] = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// Scaling of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by `factor` (Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, interpolated between (Llama 3.1).
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Positions the model was first trained on.
        original_context: f64,
    },
}

impl RopeScaling {
    /// The scaled frequency, radians a position.
    pub(super) fn apply(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength > original_context / low_freq_factor {
                    frequency / factor
                } else if wavelength < original_context / high_freq_factor {
                    frequency
                } else {
                    let smooth =
                        (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// The rotary settings of a configuration.
#[derive(Debug)]
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: RopeScaling,
    /// Keys that are passed over, each as the clause of a warning.
    pub(super) warnings: Vec<String>,
}

/// Reads the rotary settings of `config`, whose context length is `max_positions`.
///
/// # Errors
/// A type that is not computed here, a number that is missing or impossible, and everything that transformers fails on.
pub(super) fn read(config: &Map<String, Value>, max_positions: usize) -> Result<Rope, String> {
    let mut warnings = Vec::new();
    let empty = Map::new();
    let (place, rope) = rope_dictionary(config, &mut warnings)?.unwrap_or(("rope_parameters", &empty));
    let kind = rope_type(place, rope, &mut warnings)?;
    let nested: Vec<&str> = rope.iter().filter(|(_, value)| is_nested(value)).map(|(key, _)| key.as_str()).collect();
    if !nested.is_empty() {
        let names = nested.join("', '");
        let declared = |name: &str| {
            config
                .get("layer_types")
                .and_then(Value::as_array)
                .is_some_and(|types| types.iter().any(|kind| kind.as_str() == Some(name)))
        };
        if kind != "default" || nested.iter().any(|name| declared(name)) {
            return Err(format!(
                "{place} has entries by layer type ('{names}'), but a Llama has one rope for all layers"
            ));
        }
        warnings.push(format!(
            "the entries of {place} by layer type ('{names}') are not used: a Llama has one rope for all layers"
        ));
    }
    check_partial(config, place, rope, kind)?;
    let theta = theta(config, place, rope, &mut warnings)?;
    let reader = Reader { place, rope };
    let (scaling, known): (_, &[&str]) = match kind {
        "default" => (RopeScaling::Default, &[]),
        "linear" => (RopeScaling::Linear { factor: reader.positive("factor")? }, &["factor"]),
        "llama3" => (
            llama3(config, &reader, max_positions)?,
            &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
        ),
        other => return Err(format!("rope scaling '{other}' is unknown: use default, linear or llama3")),
    };
    let unused = |(key, value): &(&String, &Value)| {
        !value.is_null() && !is_nested(value) && !COMMON_KEYS.contains(&key.as_str()) && !known.contains(&key.as_str())
    };
    let unused: Vec<&str> = rope.iter().filter(unused).map(|(key, _)| key.as_str()).collect();
    if !unused.is_empty() {
        let named =
            if rope.contains_key("rope_type") || rope.contains_key("type") { "" } else { ", because it names no type" };
        warnings
            .push(format!("{place} has the type '{kind}'{named}, which does not use its '{}'", unused.join("', '")));
    }
    Ok(Rope { theta, scaling, warnings })
}

/// A key of config.json and its object.
type NamedDictionary<'a> = (&'static str, &'a Map<String, Value>);

/// The dictionary that counts, with its key: `rope_scaling` unless Python takes it for false.
fn rope_dictionary<'a>(
    config: &'a Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<Option<NamedDictionary<'a>>, String> {
    let truthy = |key: &'static str| config.get(key).filter(|value| is_truthy(value)).map(|value| (key, value));
    let (scaling, parameters) = (truthy("rope_scaling"), truthy("rope_parameters"));
    for (key, value) in [scaling, parameters].into_iter().flatten() {
        if !is_nested(value) {
            return Err(format!("{key} is {}, expected an object", describe(value)));
        }
    }
    if let (Some((_, used)), Some((_, other))) = (scaling, parameters)
        && used != other
    {
        warnings.push("rope_parameters is not used, because rope_scaling is given too".to_owned());
    }
    Ok(scaling.or(parameters).and_then(|(key, value)| Some((key, value.as_object()?))))
}

fn rope_type<'a>(place: &str, rope: &'a Map<String, Value>, warnings: &mut Vec<String>) -> Result<&'a str, String> {
    let text = |key: &str, value: &'a Value| {
        value.as_str().ok_or_else(|| format!("{place} has the {key} {}, expected the name of a type", describe(value)))
    };
    match (rope.get("rope_type"), rope.get("type")) {
        (Some(new), old) => {
            let new = text("rope_type", new)?;
            if let Some(old) = old.and_then(Value::as_str).filter(|old| *old != new) {
                warnings.push(format!("the type '{old}' of {place} is not used, because its rope_type is '{new}'"));
            }
            Ok(new)
        }
        (None, Some(old)) => text("type", old),
        (None, None) => Ok("default"),
    }
}

/// Rotation of a part of each head is not computed here. transformers ignores the factor for the type `default`; a file that gives
/// one is still of another model.
fn check_partial(
    config: &Map<String, Value>,
    place: &str,
    rope: &Map<String, Value>,
    kind: &str,
) -> Result<(), String> {
    let outer = || config.get("partial_rotary_factor").filter(|value| !value.is_null());
    match rope.get("partial_rotary_factor").or_else(outer) {
        Some(Value::Null) if kind == "default" => Ok(()),
        Some(value) if number(value) != Some(1.0) => {
            Err(format!("partial_rotary_factor of {place} is {}, only 1 is supported", describe(value)))
        }
        _ => Ok(()),
    }
}

fn theta(
    config: &Map<String, Value>,
    place: &str,
    rope: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<f64, String> {
    let outer = config.get("rope_theta");
    let Some(inner) = rope.get("rope_theta") else {
        return outer.map_or(Ok(DEFAULT_THETA), |value| positive("rope_theta", value));
    };
    let theta = positive(&format!("rope_theta of {place}"), inner)?;
    if let Some(outer) = outer.filter(|outer| !outer.is_null() && number(outer) != Some(theta)) {
        warnings.push(format!("the outer rope_theta {} is not used, because {place} has {theta}", describe(outer)));
    }
    Ok(theta)
}

fn llama3(config: &Map<String, Value>, reader: &Reader<'_>, max_positions: usize) -> Result<RopeScaling, String> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let low_freq_factor = reader.positive("low_freq_factor")?;
    let high_freq_factor = reader.positive("high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        return Err(format!("high_freq_factor {high_freq_factor} must be above low_freq_factor {low_freq_factor}"));
    }
    let original_context = match (config.get(ORIGINAL), reader.rope.get(ORIGINAL)) {
        (Some(outer), _) => positive(ORIGINAL, outer)?,
        (None, Some(_)) => reader.positive(ORIGINAL)?,
        (None, None) => max_positions as f64,
    };
    Ok(RopeScaling::Llama3 { factor: reader.positive("factor")?, low_freq_factor, high_freq_factor, original_context })
}

/// Reads the numbers of a rope dictionary.
struct Reader<'a> {
    place: &'static str,
    rope: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn positive(&self, key: &str) -> Result<f64, String> {
        let value = self.rope.get(key).ok_or_else(|| format!("{} has no {key}", self.place))?;
        positive(&format!("{key} of {}", self.place), value)
    }
}

fn positive(name: &str, value: &Value) -> Result<f64, String> {
    match number(value) {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        Some(_) => Err(format!("{name} is {}, it must be positive", describe(value))),
        None => Err(format!("{name} is {}, expected a number", describe(value))),
    }
}
