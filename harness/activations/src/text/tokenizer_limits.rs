//! Limits for the rules of a tokenizer: a `tokenizer.json` is untrusted, and its rules are programs on texts.
//!
//! A few replacement rules in a row multiply a text's length without limit, nested sequences take exponential time to
//! parse, and patterns can backtrack without end. The limits are far beyond the tokenizers of published models, and
//! within them memory and time are bounded by the length of the text.

use std::sync::Once;

use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use super::outline::Outline;

/// The limit of JSON nesting in a component. The deepest published ones have 8 levels. The library tries several types
/// for each level that it does not know, so time can double with each.
const DEPTH: usize = 24;

/// The limit of rules in a component.
const RULES: usize = 512;

/// The limit of a regular expression, in bytes. Published ones have less than 1 KiB.
const PATTERN: usize = 16 << 10;

/// The limit of a Precompiled map, in bytes of base64. Those of SentencePiece have 320 kB.
const CHARACTER_MAP: usize = 8 << 20;

/// The limit of a normalized text, in bytes: the longest text that a chat template can write. The library takes
/// about 20 bytes of memory for each.
const NORMALIZED: f64 = (16 << 20) as f64;

/// The limit of the product of all factors by which the rules of a normalizer can lengthen a text. A regular expression
/// counts twice or more, since it may match between all characters; this permits thirty of them. A text is measured
/// rule by rule.
const LARGEST_FACTOR: f64 = 1e10;

/// The limit of steps back in one search of a regular expression, the library's default for one match.
const BACKTRACKING: std::ffi::c_ulong = 10_000_000;

/// The limits of one tokenizer.
pub(super) struct Bounds {
    /// The rules of the normalizer in their order, each with the factor by which it can lengthen a text.
    stages: Vec<(NormalizerWrapper, Growth)>,
    /// The factor of the pre-tokenizer.
    pre_tokenizer: f64,
    /// The factor of all rules.
    total: f64,
}

/// How much longer a rule can make a text.
#[derive(Clone, Debug, PartialEq)]
enum Growth {
    /// At most by this factor, in bytes.
    Factor(f64),
    /// By a few bytes before each piece between added tokens.
    Prefix(usize),
    /// Each occurrence of `pattern` becomes `content` bytes.
    Occurrences { pattern: String, content: usize },
}

impl Growth {
    /// Of a rule that is no sequence.
    fn of(rule: &Value) -> Self {
        let length = |key: &str| rule[key].as_str().map_or(0, str::len);
        match rule["type"].as_str().unwrap_or_default() {
            "Replace" => match rule["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => {
                    Growth::Occurrences { pattern: pattern.to_owned(), content: length("content") }
                }
                // A pattern can match the empty text before each character.
                _ => Growth::Factor(1.0 + length("content") as f64),
            },
            // Up to nine times a text of nothing but added tokens; a real text has few of them.
            "Prepend" if length("prepend") <= 8 => Growth::Prefix(length("prepend")),
            "Prepend" => Growth::Factor(1.0 + length("prepend") as f64),
            "Precompiled" => {
                Growth::Factor(longest_replacement(rule["precompiled_charsmap"].as_str().unwrap_or_default()))
            }
            // One byte becomes a character of up to two.
            "ByteLevel" => Growth::Factor(2.0),
            // Spaces around ideographs; `▁` for a space or before a piece.
            "BertNormalizer" | "Metaspace" => Growth::Factor(3.0),
            // The Unicode forms lengthen a text once, by 11 at most, and leave their own result as it is.
            _ => Growth::Factor(1.0),
        }
    }

    fn factor(&self) -> f64 {
        match self {
            Growth::Factor(factor) => *factor,
            Growth::Prefix(bytes) => 1.0 + *bytes as f64,
            Growth::Occurrences { pattern, content } => (*content as f64 / pattern.len() as f64).max(1.0),
        }
    }

    /// The length of the result on `text`, at most.
    fn length(&self, text: &str) -> f64 {
        match self {
            Growth::Factor(factor) => factor * text.len() as f64,
            Growth::Prefix(bytes) => (text.len() + bytes) as f64,
            Growth::Occurrences { pattern, content } => {
                text.len() as f64 + text.matches(pattern.as_str()).count() as f64 * *content as f64
            }
        }
    }
}

/// Rejects rules that would take memory or time without limit.
///
/// # Errors
/// The rule and the limit.
pub(super) fn check_outline(outline: &Outline) -> Result<(), String> {
    let components = [
        ("normalizer", &outline.normalizer),
        ("pre_tokenizer", &outline.pre_tokenizer),
        ("post_processor", &outline.post_processor),
        ("decoder", &outline.decoder),
    ];
    for (name, component) in components {
        check_component(component).map_err(|what| format!("the {name} of tokenizer.json {what}"))?;
    }
    if let Some(model) = &outline.model
        && model.dropout.as_f64().is_some_and(|dropout| dropout > 0.0)
    {
        return Err("the model of tokenizer.json has a `dropout`, so its tokens are random; set it to null".to_owned());
    }
    let factor = |component| rules(component).iter().map(|rule| Growth::of(rule).factor()).product::<f64>();
    let (normalizer, pre_tokenizer) = (factor(&outline.normalizer), factor(&outline.pre_tokenizer));
    if normalizer > LARGEST_FACTOR || pre_tokenizer > LARGEST_FACTOR.sqrt() {
        return Err(format!(
            "tokenizer.json is not accepted: its rules multiply the length of a text (by up to {:.0e}); remove rules \
             that repeat each other",
            normalizer.max(pre_tokenizer)
        ));
    }
    // The library normalizes these while it builds the tokenizer.
    if outline.normalized_texts().map(|text| text.len() as f64 * normalizer).sum::<f64>() > NORMALIZED {
        return Err(format!(
            "tokenizer.json is not accepted: its rules may lengthen its added tokens to more than {NORMALIZED} bytes"
        ));
    }
    Ok(())
}

fn check_component(component: &Value) -> Result<(), String> {
    if depth(component) > DEPTH {
        return Err(format!("is nested more than {DEPTH} levels deep; put its rules into one sequence"));
    }
    let rules = rules(component);
    if rules.len() > RULES {
        return Err(format!("has {} rules; at most {RULES} are accepted", rules.len()));
    }
    for rule in rules {
        let pattern = rule["pattern"]["Regex"].as_str().map_or(0, str::len);
        if pattern > PATTERN {
            return Err(format!("has a regular expression of {pattern} bytes; at most {PATTERN} are accepted"));
        }
        let map = rule["precompiled_charsmap"].as_str().map_or(0, str::len);
        if map > CHARACTER_MAP {
            return Err(format!("has a `precompiled_charsmap` of {map} bytes; at most {CHARACTER_MAP} are accepted"));
        }
    }
    Ok(())
}

/// The levels of nesting. The recursion is bounded by the limit of the JSON parser (128).
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The rules of a component with all sequences resolved.
fn rules(component: &Value) -> Vec<&Value> {
    let items = ["normalizers", "pretokenizers", "processors", "decoders"]
        .iter()
        .find_map(|key| component.get(key)?.as_array());
    match items {
        Some(items) => items.iter().flat_map(rules).collect(),
        None if component.is_null() => Vec::new(),
        None => vec![component],
    }
}

/// The longest text that a map of SentencePiece puts in place of one byte or more, in bytes, at least 1. Format: the
/// byte length of a trie as 32-bit little-endian integer, the trie, then the replacements, each with a zero byte.
fn longest_replacement(base64: &str) -> f64 {
    let mut bytes = Vec::with_capacity(base64.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for symbol in base64.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return 1.0 };
    let replacements = rest.get(u32::from_le_bytes(*head) as usize..).unwrap_or(rest);
    replacements.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(1).max(1) as f64
}

impl Bounds {
    /// The limits of a tokenizer that passed [`check_outline`], with its normalizer as the library built it.
    pub(super) fn new(outline: &Outline, normalizer: Option<&NormalizerWrapper>) -> Self {
        limit_backtracking();
        let growths = rules(&outline.normalizer).into_iter().map(Growth::of);
        let stages: Vec<_> = normalizer.map(flat).unwrap_or_default().into_iter().zip(growths).collect();
        let pre_tokenizer = rules(&outline.pre_tokenizer).into_iter().map(|rule| Growth::of(rule).factor()).product();
        let total = stages.iter().map(|(_, growth)| growth.factor()).product::<f64>() * pre_tokenizer;
        Bounds { stages, pre_tokenizer, total }
    }

    /// Rejects a text that the rules would lengthen beyond the limit.
    ///
    /// # Errors
    /// The length and the limit.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        if text.len() as f64 * self.total <= NORMALIZED {
            return Ok(());
        }
        let refused = || {
            format!(
                "the rules of tokenizer.json would lengthen a text of {} bytes to more than {NORMALIZED}; use shorter \
                 texts or correct the rules",
                text.len()
            )
        };
        let mut normalized = NormalizedString::from(text);
        for (stage, growth) in &self.stages {
            if growth.length(normalized.get()) > NORMALIZED {
                return Err(refused());
            }
            stage.normalize(&mut normalized).map_err(|error| error.to_string())?;
        }
        if normalized.get().len() as f64 * self.pre_tokenizer > NORMALIZED {
            return Err(refused());
        }
        Ok(())
    }
}

fn flat(normalizer: &NormalizerWrapper) -> Vec<NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().flat_map(flat).collect(),
        other => vec![other.clone()],
    }
}

/// Bounds the time of every search of a regular expression in this process: the library limits one match, but a search
/// tries a match at each position. A search beyond the limit fails.
fn limit_backtracking() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the call stores an integer in a global of the C library; `Once` excludes concurrent stores, and
        // searches that already run read it as a whole word.
        unsafe {
            onig_sys::onig_set_retry_limit_in_search(BACKTRACKING);
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outline(normalizer: Value, pre_tokenizer: Value) -> Outline {
        Outline { normalizer, pre_tokenizer, ..Outline::default() }
    }

    fn bounds(normalizer: &Value) -> Bounds {
        let built: NormalizerWrapper = serde_json::from_value(normalizer.clone()).unwrap();
        Bounds::new(&outline(normalizer.clone(), Value::Null), Some(&built))
    }

    #[test]
    fn rules_that_multiply_a_text_are_rejected() {
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(200)});
        let five = json!({"type": "Sequence", "normalizers": vec![replace.clone(); 5]});
        assert!(check_outline(&outline(five, Value::Null)).unwrap_err().contains("multiply the length"));
        let three = json!({"type": "Sequence", "normalizers": vec![replace; 3]});
        check_outline(&outline(three.clone(), Value::Null)).unwrap();
        let limits = bounds(&three);
        assert!(limits.check("banana").unwrap_err().contains("a text of 6 bytes"), "3 a's become 24 million");
        limits.check("bnn").unwrap();
        let byte_levels = json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}); 40]});
        assert!(check_outline(&outline(Value::Null, byte_levels)).is_err());
    }

    #[test]
    fn long_text_passes_ordinary_rules() {
        let llama = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]});
        check_outline(&outline(llama.clone(), Value::Null)).unwrap();
        bounds(&llama).check(&"word ".repeat(1 << 20)).unwrap();
    }

    #[test]
    fn nested_sequence_is_rejected() {
        let mut nested = json!({"type": "Lowercase"});
        for _ in 0..40 {
            nested = json!({"type": "Sequence", "normalizers": [nested]});
        }
        assert!(check_outline(&outline(nested, Value::Null)).unwrap_err().contains("nested"));
        let many = json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 600]});
        assert!(check_outline(&outline(many, Value::Null)).unwrap_err().contains("600 rules"));
    }

    #[test]
    fn longest_replacement_is_found() {
        // Trie of 4 bytes, then `ab\0cdefg\0`.
        assert_eq!(longest_replacement("BAAAAAAAAABhYgBjZGVmZwA="), 5.0);
        assert_eq!(longest_replacement(""), 1.0);
    }
}
