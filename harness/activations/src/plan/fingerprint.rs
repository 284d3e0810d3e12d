//! The fingerprint of a plan: digests of the parts that decide its values, so that a mismatch can name the part.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Named parts, each a digest or a short text. Plans with equal fingerprints give equal bytes.
///
/// The parts of a plan are `model` (weights, architecture, dtype and arithmetic), `tokens` (of the samples, in
/// order), `mask`, `layers`, `pool` (the casts and pools, in order), `dtype` and `shape`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanFingerprint {
    parts: BTreeMap<String, String>,
}

impl PlanFingerprint {
    /// Sets a part.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.parts.insert(name.to_owned(), value.into());
    }

    /// A part, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parts.get(name).map(String::as_str)
    }

    /// One digest of all parts.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in self.parts.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The parts in which `self` and `other` differ: `(name, own value, other value)`.
    pub fn differences<'a>(&'a self, other: &'a PlanFingerprint) -> Vec<(&'a str, &'a str, &'a str)> {
        let names = self.parts.keys().chain(other.parts.keys().filter(|name| !self.parts.contains_key(*name)));
        names
            .map(|name| (name.as_str(), self.get(name).unwrap_or("absent"), other.get(name).unwrap_or("absent")))
            .filter(|(_, own, others)| own != others)
            .collect()
    }

    /// The differences as text for people, with what `self` and `other` are; none if there is no difference. A part that differs
    /// because of another one is left out.
    pub fn describe_differences(&self, other: &PlanFingerprint, names: [&str; 2]) -> Option<String> {
        let differences = self.differences(other);
        let has_other = |part: &str| differences.iter().any(|(other, ..)| *other == part);
        // Other tokens have another mask and often another shape; other layers have another shape.
        let follows = |part: &str| match part {
            "mask" => has_other("tokens"),
            "shape" => differences.len() > 1,
            _ => false,
        };
        let [own_name, other_name] = names;
        let listed: Vec<String> = differences
            .iter()
            .filter(|(part, ..)| !follows(part))
            .map(|(part, own, others)| {
                format!("{} ({own_name}: {}, {other_name}: {})", part_name(part), short(own), short(others))
            })
            .collect();
        (!listed.is_empty()).then(|| listed.join(", "))
    }

    /// Sets the part `tokens` from the token ids of each sample.
    pub(crate) fn set_tokens<'a>(&mut self, samples: impl Iterator<Item = &'a [u32]>) {
        let mut hasher = blake3::Hasher::new();
        for ids in samples {
            hasher.update(&(ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| {
                hasher.update(&id.to_le_bytes());
            });
        }
        self.set("tokens", hasher.finalize().to_hex().to_string());
    }

    /// Sets the part `mask` from the flags of each sample.
    pub(crate) fn set_mask<'a>(&mut self, samples: impl Iterator<Item = &'a [bool]>) {
        let mut hasher = blake3::Hasher::new();
        for flags in samples {
            hasher.update(&(flags.len() as u64).to_le_bytes());
            hasher.update(&flags.iter().map(|flag| u8::from(*flag)).collect::<Vec<u8>>());
        }
        self.set("mask", hasher.finalize().to_hex().to_string());
    }
}

/// The name of a part of a fingerprint for people.
fn part_name(part: &str) -> &str {
    match part {
        "model" => "the model or its arithmetic",
        "tokens" => "the data set or its samples",
        "mask" => "the mask",
        "layers" => "the layers",
        "pool" => "the pooling",
        "dtype" => "the dtype",
        "shape" => "the shape",
        other => other,
    }
}

/// The first characters of a digest; other texts as they are.
fn short(value: &str) -> &str {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &value[..8] } else { value }
}

/// Digest of the samples that were selected from `origin`.
pub(crate) fn hash_samples(origin: &str, samples: &[usize]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(origin.as_bytes());
    samples.iter().for_each(|sample| {
        hasher.update(&(*sample as u64).to_le_bytes());
    });
    hasher.finalize().to_hex().to_string()
}

impl fmt::Display for PlanFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(parts: &[(&str, &str)]) -> PlanFingerprint {
        let mut fingerprint = PlanFingerprint::default();
        parts.iter().for_each(|(name, value)| fingerprint.set(name, *value));
        fingerprint
    }

    #[test]
    fn differences_name_the_part_and_both_values() {
        let here = fingerprint(&[("model", "a"), ("pool", "mean_pool(s)"), ("dtype", "bf16")]);
        let there = fingerprint(&[("model", "a"), ("pool", "max_pool(s)"), ("shape", "bh [2, 3]")]);
        assert_eq!(
            here.differences(&there),
            [("dtype", "bf16", "absent"), ("pool", "mean_pool(s)", "max_pool(s)"), ("shape", "absent", "bh [2, 3]")]
        );
        assert!(here.differences(&here.clone()).is_empty());
        assert_ne!(here.digest(), there.digest());
    }

    #[test]
    fn parts_cannot_be_confused_with_each_other() {
        assert_ne!(fingerprint(&[("a", "bc")]).digest(), fingerprint(&[("ab", "c")]).digest());
        let tokens = |samples: &[&[u32]]| {
            let mut fingerprint = PlanFingerprint::default();
            fingerprint.set_tokens(samples.iter().copied());
            fingerprint.digest()
        };
        assert_ne!(tokens(&[&[1, 2], &[3]]), tokens(&[&[1], &[2, 3]]));
        assert_ne!(tokens(&[&[1]]), tokens(&[&[1], &[]]));
    }
}
