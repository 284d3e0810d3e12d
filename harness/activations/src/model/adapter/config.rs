//! `adapter_config.json` of PEFT: the keys that decide the merged weights, and a refusal of those that would change more.

use std::path::Path;

use regex::bytes::Regex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::targets::{ModuleSelector, TargetModules, end_of_name, whole_name};
use crate::error::{Error, Result};

/// Keys that do not change merged weights, whatever their value: notes, and settings of training or of variants that are off.
///
/// PEFT takes `fan_in_fan_out` from the class of the layer, whatever the file has: `Conv1D` stores `[in_features, out_features]`.
const WITHOUT_EFFECT: [&str; 10] = [
    "auto_mapping",
    "fan_in_fan_out",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Values of `init_lora_weights` that leave the base model's weights as they are. The others subtract the first product from them
/// (PiSSA, OLoRA, CorDA, LoftQ), or are not known to leave them alone.
const PLAIN_STARTS: [&str; 2] = ["gaussian", "orthogonal"];

/// The remedy for an adapter that cannot be merged here.
const MERGE_IT: &str =
    "merge the adapter into its base model with PEFT (merge_and_unload) and pass the merged model as --model";

/// Characters of a value in an error.
const SHOWN_VALUE: usize = 60;

/// The settings of an adapter.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    /// Whether the scale is alpha by the root of the rank (rsLoRA, arXiv:2312.03732).
    by_root: bool,
    /// Ranks of modules, by the end of their names.
    rank_pattern: Vec<(Regex, usize)>,
    /// The same for alpha.
    alpha_pattern: Vec<(Regex, f64)>,
    /// The adapted modules.
    pub(super) targets: TargetModules,
    /// Ends of the names of modules whose weights are replaced.
    modules_to_save: Vec<String>,
    /// Whether biases were trained.
    pub(super) has_biases: bool,
    /// The base model, by a name or a path of the machine that trained the adapter.
    pub(super) base_model: Option<String>,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
}

/// One value, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        }
    }
}

/// The keys that were not read yet.
struct AdapterKeys<'a> {
    path: &'a Path,
    left: Map<String, Value>,
}

impl AdapterKeys<'_> {
    fn refuse(&self, what: impl Into<String>) -> Error {
        Error::file(self.path, what)
    }

    /// Reads a key; none if it is missing or null. `expected` describes its values.
    fn read<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Result<Option<T>> {
        match self.left.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let shown = shown(&value);
                serde_json::from_value(value)
                    .map(Some)
                    .map_err(|_| self.refuse(format!("{key} is {shown}, but must be {expected}")))
            }
        }
    }

    /// Reads a key that refines another by patterns of names.
    fn read_pattern<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Result<Vec<(Regex, T)>> {
        let entries: Map<String, Value> = self.read(key, "an object")?.unwrap_or_default();
        let compiled = entries.into_iter().map(|(pattern, value)| -> Result<(Regex, T)> {
            let shown = shown(&value);
            let regex = end_of_name(&pattern)
                .ok_or_else(|| self.refuse(format!("{key}: '{pattern}' cannot be read as a pattern; {MERGE_IT}")))?;
            let value = serde_json::from_value(value)
                .map_err(|_| self.refuse(format!("{key}: '{pattern}' is {shown}, but must be {expected}")))?;
            Ok((regex, value))
        });
        compiled.collect()
    }

    /// Reads a list of names or a pattern.
    fn read_selector(&mut self, key: &str, warnings: &mut Vec<String>) -> Result<Option<ModuleSelector>> {
        let read: Option<OneOrMany<String>> = self.read(key, "a text or a list of texts")?;
        Ok(match read {
            None => None,
            Some(OneOrMany::Many(names)) => (!names.is_empty()).then_some(ModuleSelector::Names(names)),
            // A list of all modules, written by a version of PEFT that did not write the list itself.
            Some(OneOrMany::One(pattern)) if pattern == "all-linear" => None,
            Some(OneOrMany::One(pattern)) => {
                let selector = whole_name(&pattern).map(ModuleSelector::Pattern);
                if selector.is_none() {
                    warnings.push(format!(
                        "{key} has a pattern that only Python reads, so it is not checked that the file has the tensors of all \
                         targets"
                    ));
                }
                selector
            }
        })
    }
}

impl AdapterConfig {
    /// Reads the bytes of the file `path`.
    ///
    /// # Errors
    /// Not a configuration of LoRA, or a key that would change the merged weights in a way that is not computed here.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let left: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::file(path, format!("not the configuration of an adapter: {error}")))?;
        let mut keys = AdapterKeys { path, left };
        check_kind(&mut keys)?;
        check_start(&mut keys)?;
        let Some(rank) = keys.read::<usize>("r", "a rank from 1 on")?.filter(|rank| *rank > 0) else {
            return Err(keys.refuse("has no rank r from 1 on"));
        };
        let Some(alpha) = keys.read::<f64>("lora_alpha", "a number")? else {
            return Err(keys.refuse("has no lora_alpha"));
        };
        let by_root = keys.read("use_rslora", "true or false")?.unwrap_or(false);
        let rank_pattern: Vec<(Regex, usize)> = keys.read_pattern("rank_pattern", "a rank from 1 on")?;
        if rank_pattern.iter().any(|(_, rank)| *rank == 0) {
            return Err(keys.refuse("rank_pattern has the rank 0"));
        }
        let alpha_pattern = keys.read_pattern("alpha_pattern", "a number")?;
        let mut warnings = Vec::new();
        let targets = read_targets(&mut keys, &mut warnings)?;
        let modules_to_save: Option<Vec<String>> = keys.read("modules_to_save", "a list of texts")?;
        let has_biases = match keys.read::<String>("bias", "none, all or lora_only")?.as_deref() {
            None | Some("none") => false,
            Some("all" | "lora_only") => true,
            Some(other) => return Err(keys.refuse(format!("bias is '{other}', but must be none, all or lora_only"))),
        };
        let base_model = keys.read("base_model_name_or_path", "a text")?;
        check_rest(&keys)?;
        Ok(AdapterConfig {
            rank,
            alpha,
            by_root,
            rank_pattern,
            alpha_pattern,
            targets,
            modules_to_save: modules_to_save.unwrap_or_default(),
            has_biases,
            base_model,
            warnings,
        })
    }

    /// The rank of `module` (`model.layers.0.mlp.up_proj`).
    pub(super) fn rank(&self, module: &str) -> usize {
        refined(&self.rank_pattern, module).unwrap_or(self.rank)
    }

    /// The factor of the product of `module`.
    pub(super) fn scale(&self, module: &str) -> f32 {
        let alpha = refined(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let rank = self.rank(module) as f64;
        // Python divides in f64; PyTorch then multiplies an f32 tensor by the f32 next to the quotient.
        (alpha / if self.by_root { rank.sqrt() } else { rank }) as f32
    }

    /// Whether the weights of `module`, or of a module that contains it, are replaced. Names match ends, as in PEFT.
    pub(super) fn saves(&self, module: &str) -> bool {
        let ends = module.match_indices('.').map(|(dot, _)| dot).chain([module.len()]);
        let mut ancestors = ends.map(|end| &module[..end]);
        ancestors.any(|module| self.modules_to_save.iter().any(|name| module.ends_with(name.as_str())))
    }
}

/// The value of the first pattern that matches `module`.
fn refined<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module.as_bytes())).map(|(_, value)| *value)
}

/// Refuses methods other than LoRA.
fn check_kind(keys: &mut AdapterKeys<'_>) -> Result<()> {
    match keys.read::<String>("peft_type", "a text")?.as_deref() {
        Some("LORA") => Ok(()),
        Some(other) => Err(keys.refuse(format!("peft_type is '{other}'; only LORA is supported; {MERGE_IT}"))),
        None => Err(keys.refuse("has no peft_type, so it is not the configuration of an adapter of PEFT")),
    }
}

/// Refuses starts that changed the base model: the adapter is then relative to weights that are not those of the base model.
fn check_start(keys: &mut AdapterKeys<'_>) -> Result<()> {
    match keys.left.remove("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if PLAIN_STARTS.contains(&name.as_str()) => Ok(()),
        Some(other) => Err(keys.refuse(format!(
            "init_lora_weights is {}: such an adapter may belong to changed weights of the base model; save it with PEFT's \
             path_initial_model_for_weight_conversion, or {MERGE_IT}",
            shown(&other)
        ))),
    }
}

fn read_targets(keys: &mut AdapterKeys<'_>, warnings: &mut Vec<String>) -> Result<TargetModules> {
    let known = warnings.len();
    let selected = keys.read_selector("target_modules", warnings)?;
    let excluded = keys.read_selector("exclude_modules", warnings)?;
    let layers: Option<OneOrMany<usize>> =
        keys.read("layers_to_transform", "the number of a block or a list of numbers")?;
    let layer_patterns: Option<OneOrMany<String>> = keys.read("layers_pattern", "a text or a list of texts")?;
    // A pattern that cannot be read leaves the targets undecided.
    let selected = selected.filter(|_| warnings.len() == known);
    Ok(TargetModules {
        selected,
        excluded,
        layers: layers.map(OneOrMany::into_vec),
        layer_patterns: layer_patterns.map(OneOrMany::into_vec).unwrap_or_default(),
    })
}

/// Refuses each key left that is set: an unknown key may change the result.
fn check_rest(keys: &AdapterKeys<'_>) -> Result<()> {
    let set = keys.left.iter().find(|(key, value)| !WITHOUT_EFFECT.contains(&key.as_str()) && is_set(value));
    match set {
        None => Ok(()),
        Some((key, value)) => {
            Err(keys.refuse(format!("{key} is {}, which is not supported; {MERGE_IT}", shown(value))))
        }
    }
}

/// Whether a value differs from null, false and nothing.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// The start of a value, for an error.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_VALUE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A configuration with the keys and the defaults of PEFT 0.17.
    const WRITTEN_BY_PEFT: &str = r#"{
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "org/base", "bias": "none",
        "corda_config": null, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
        "inference_mode": true, "init_lora_weights": true, "layer_replication": null, "layers_pattern": null,
        "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.05,
        "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA",
        "qalora_group_size": 16, "r": 8, "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "v_proj"],
        "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false,
        "use_qalora": false, "use_rslora": false
    }"#;

    /// [`WRITTEN_BY_PEFT`] with the entries of `changes` in place of its own.
    fn parse(changes: Value) -> Result<AdapterConfig> {
        let mut config: Value = serde_json::from_str(WRITTEN_BY_PEFT).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        AdapterConfig::parse(config.to_string().as_bytes(), Path::new("adapter_config.json"))
    }

    fn refusal(changes: Value) -> String {
        let error = parse(changes).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    const QUERY: &str = "model.layers.1.self_attn.q_proj";
    const VALUE: &str = "model.layers.1.self_attn.v_proj";

    #[test]
    fn scale_is_alpha_by_rank_or_its_root() {
        let plain = parse(json!({})).unwrap();
        assert_eq!((plain.rank(QUERY), plain.scale(QUERY)), (8, 2.0));
        assert_eq!(plain.base_model.as_deref(), Some("org/base"));
        let stable = parse(json!({"use_rslora": true, "r": 16, "lora_alpha": 2.5})).unwrap();
        assert_eq!(stable.scale(QUERY), 0.625);
    }

    #[test]
    fn patterns_refine_rank_and_alpha_of_modules() {
        let config = parse(json!({
            "rank_pattern": {"q_proj": 4, ".*": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 32, "proj": 99}
        }))
        .unwrap();
        assert_eq!((config.rank(QUERY), config.scale(QUERY)), (4, 4.0), "the first pattern in the order of the file");
        assert_eq!((config.rank(VALUE), config.scale(VALUE)), (2, 16.0));
        assert_eq!(config.scale("model.layers.2.self_attn.v_proj"), 8.0, "proj is not the end after a dot");
    }

    #[test]
    fn saved_modules_match_ends_of_names_and_contain_others() {
        let config = parse(json!({"modules_to_save": ["embed_tokens", "1.mlp"]})).unwrap();
        assert!(config.saves("model.embed_tokens") && config.saves("model.layers.1.mlp.up_proj"));
        assert!(!config.saves("model.layers.0.mlp.up_proj") && !config.saves("lm_head"));
    }

    #[test]
    fn other_methods_and_unknown_keys_are_refused_by_name() {
        insta::assert_snapshot!(refusal(json!({"peft_type": "IA3"})), @"adapter_config.json: peft_type is 'IA3'; only LORA is supported; merge the adapter into its base model with PEFT (merge_and_unload) and pass the merged model as --model");
        insta::assert_snapshot!(refusal(json!({"use_dora": true})), @"adapter_config.json: use_dora is true, which is not supported; merge the adapter into its base model with PEFT (merge_and_unload) and pass the merged model as --model");
        insta::assert_snapshot!(refusal(json!({"peft_type": null})), @"adapter_config.json: has no peft_type, so it is not the configuration of an adapter of PEFT");
        insta::assert_snapshot!(refusal(json!({"r": "eight"})), @r#"adapter_config.json: r is "eight", but must be a rank from 1 on"#);
        for (key, value) in [
            ("trainable_token_indices", json!([1])),
            ("lora_bias", json!(true)),
            ("use_qalora", json!(true)),
            ("megatron_config", json!({"a": 1})),
            ("arrow_config", json!({"a": 1})),
            ("alora_invocation_tokens", json!([1, 2])),
            ("layer_replication", json!([[0, 1]])),
            ("target_parameters", json!(["experts.gate_up_proj"])),
            ("a_key_of_tomorrow", json!(0)),
        ] {
            let mut changes = json!({});
            changes[key] = value;
            let error = refusal(changes);
            assert!(error.contains(&format!(": {key} is ")) && error.contains("merge_and_unload"), "{error}");
        }
        for wrong in [json!({"r": 0}), json!({"rank_pattern": {"a": 0}}), json!({"bias": "some"})] {
            refusal(wrong);
        }
    }

    #[test]
    fn starts_that_change_the_base_model_are_refused() {
        for start in ["pissa", "pissa_niter_16", "olora", "loftq", "corda", "eva"] {
            let error = refusal(json!({"init_lora_weights": start}));
            assert!(error.contains(&format!("init_lora_weights is \"{start}\"")), "{error}");
        }
        for start in [json!(true), json!(false), json!(null), json!("gaussian"), json!("orthogonal")] {
            parse(json!({"init_lora_weights": start})).unwrap();
        }
    }

    #[test]
    fn pattern_of_python_leaves_targets_undecided_with_a_warning() {
        let config = parse(json!({"target_modules": "^(?!vision).*q_proj"})).unwrap();
        assert_eq!(config.targets.selects(QUERY), None);
        assert!(config.warnings[0].contains("target_modules"), "{:?}", config.warnings);
        let excluded = parse(json!({"exclude_modules": "(?!x).*"})).unwrap();
        assert_eq!(excluded.targets.selects(QUERY), None);
        assert_eq!(parse(json!({"target_modules": "all-linear"})).unwrap().targets.selects(QUERY), None);
        assert_eq!(parse(json!({"target_modules": ".*\\.q_proj"})).unwrap().targets.selects(VALUE), Some(false));
    }
}
