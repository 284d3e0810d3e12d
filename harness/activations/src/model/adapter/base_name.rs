//! Whether the base model that an adapter names is the loaded one, as far as names can tell.

/// Ends of names of copies in another type, which have the same modules: an adapter trained on one fits the other.
const COPIES: [&str; 6] = ["-unsloth-bnb-4bit", "-bnb-4bit", "-4bit", "-8bit", "-bf16", "-fp16"];

/// Whether `base`, a name or a path, is the model that is loaded from one of `locations`. Only the last part of its name counts: a
/// copy may have another owner or lie in another directory.
pub(in crate::model) fn is_same_model(base: &str, locations: &[&str]) -> bool {
    let wanted = model_part(base);
    wanted.is_empty()
        || locations.iter().flat_map(|location| parts(location)).any(|part| {
            // The name of a GGUF file ends with the type of its weights.
            normalized(part) == wanted || part.ends_with(".gguf") && normalized(part).starts_with(&wanted)
        })
}

/// The parts of a path or an id. The cache of the Hugging Face hub writes `/` as `--`.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split('/').flat_map(|part| part.split("--")).filter(|part| !part.is_empty())
}

/// The name of the model at the end of `base`, normalized.
fn model_part(base: &str) -> String {
    // A path in the hub's cache ends with the name of a commit.
    let base = base.split_once("/snapshots/").map_or(base, |(before, _)| before);
    parts(base).last().map(normalized).unwrap_or_default()
}

/// Letters and digits in lower case, without the end of a copy.
fn normalized(part: &str) -> String {
    let part = part.to_lowercase();
    let original = COPIES.iter().find_map(|copy| part.strip_suffix(*copy)).unwrap_or(&part);
    original.chars().filter(|letter| letter.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_other_places_are_the_same_model() {
        let base = "meta-llama/Llama-3.2-1B-Instruct";
        for location in [
            "unsloth/Llama-3.2-1B-Instruct",
            "./models/llama-3.2-1b-instruct/",
            "/cache/hub/models--meta-llama--Llama-3.2-1B-Instruct/snapshots/0123abc",
            "Llama-3.2-1B-Instruct-Q8_0.gguf",
        ] {
            assert!(is_same_model(base, &["elsewhere", location]), "{location}");
        }
        assert!(is_same_model("unsloth/llama-3.2-1b-instruct-unsloth-bnb-4bit", &[base]));
        assert!(is_same_model("/a/models--meta-llama--Llama-3.2-1B-Instruct/snapshots/0123abc", &[base]));
        assert!(is_same_model("", &[base]));
    }

    #[test]
    fn other_sizes_and_kinds_are_other_models() {
        for location in ["meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B-Instruct", "synthetic:tiny"] {
            assert!(!is_same_model("meta-llama/Llama-3.2-1B-Instruct", &[location]), "{location}");
        }
    }
}
