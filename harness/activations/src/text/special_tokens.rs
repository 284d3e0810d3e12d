//! Special and added tokens of a tokenizer directory, as transformers 5.24 collects them.
//!
//! Sources: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `tokenizer.json` and the defaults
//! of the tokenizer class. [`SpecialTokenTable::collect`] follows `PreTrainedTokenizerBase._from_pretrained` and
//! `TokenizersBackend.__init__`, in their order: the order determines the ids of tokens that are not in the vocabulary.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::arguments::{AddedToken, Argument, Arguments};
use super::template::SpecialTokens;
use super::tokenizer_class::TokenizerClass;

/// The names of special tokens that every tokenizer has, in the order of transformers.
const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The infilling tokens of `CodeLlamaTokenizer` with their defaults.
const CODE_LLAMA: [(&str, &str); 5] = [
    ("prefix_token", "▁<PRE>"),
    ("middle_token", "▁<MID>"),
    ("suffix_token", "▁<SUF>"),
    ("eot_token", "▁<EOT>"),
    ("fill_token", "<FILL_ME>"),
];

/// The names that `apply_chat_template` passes to a template itself. A token of that name is an error there.
const RESERVED: [&str; 8] = [
    "messages",
    "conversations",
    "tools",
    "documents",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "return_assistant_tokens_mask",
];

/// The JSON files of a tokenizer directory, parsed.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenFiles {
    /// `tokenizer_config.json`; empty if missing.
    pub(super) config: Map<String, Value>,
    /// `special_tokens_map.json`; empty if missing.
    pub(super) map: Map<String, Value>,
    /// `added_tokens.json`; empty if missing.
    pub(super) added: Map<String, Value>,
    /// `added_tokens` of `tokenizer.json`.
    pub(super) serialized: Vec<Value>,
    /// `padding.pad_token` of `tokenizer.json`.
    pub(super) padding: Option<String>,
}

/// The special tokens of a tokenizer and the tokens to add to it.
#[derive(Clone, Debug)]
pub(super) struct SpecialTokenTable {
    /// The constructor's arguments, for the rules of the class.
    pub(super) arguments: Arguments,
    /// The tokens with a name, for the template.
    pub(super) special: SpecialTokens,
    /// The tokens to add, in the calls in which transformers adds them.
    pub(super) batches: Vec<Vec<AddedToken>>,
    /// Whether special tokens in a text are cut like other text.
    pub(super) split_special_tokens: bool,
    /// The token at which `CodeLlamaTokenizer` would cut a text in two.
    pub(super) fill_token: Option<String>,
}

impl SpecialTokenTable {
    /// The tokens of a directory whose tokenizer has the class `class`.
    ///
    /// # Errors
    /// An entry that transformers rejects, with its key.
    pub(super) fn collect(files: &TokenFiles, class: TokenizerClass) -> Result<Self, String> {
        let mut arguments = configured(&files.config)?;
        let decoder = match files.config.get("added_tokens_decoder") {
            Some(decoder) => decoded(decoder)?,
            None => {
                merge_map(&mut arguments, &files.map)?;
                legacy(&arguments, files)?
            }
        };
        let mut arguments = arguments.converted()?;
        for key in STANDARD {
            if let Some(content) = arguments.content(key)
                && let Some(token) = decoder.by_content.get(content)
            {
                arguments.set(key, Argument::Token(token.clone()));
            }
        }
        for (key, default) in class.special_defaults() {
            arguments.set_default(key, default.map_or(Argument::Json(Value::Null), Argument::text));
        }
        let fill_token = if class == TokenizerClass::CodeLlama { add_infilling(&mut arguments)? } else { None };
        if let Some(padding) = &files.padding {
            arguments.set_default("pad_token", Argument::text(padding));
        }
        let named = named_tokens(&arguments)?;
        let extra = extra_tokens(&arguments)?;
        let present: Vec<&str> = if class.rebuilds() {
            Vec::new()
        } else {
            files.serialized.iter().filter_map(|token| token.get("content")?.as_str()).collect()
        };
        let mut batches = vec![to_add(&decoder.by_id, &named, &extra, &present)];
        batches.extend(later_batch(class, &named, &extra));
        let mut special: Vec<(String, String)> = Vec::new();
        for (key, argument) in &named {
            if RESERVED.contains(&key.as_str()) {
                return Err(format!("a special token has the reserved name `{key}`; rename it"));
            }
            // The constructor of CodeLlamaTokenizer sets its own default last.
            let content = if key == "fill_token" { fill_token.as_deref() } else { None };
            let content = content.or_else(|| argument.content()).unwrap_or_default();
            special.push((key.clone(), content.to_owned()));
        }
        let split_special_tokens = match arguments.argument("split_special_tokens") {
            None => false,
            Some(Argument::Json(Value::Bool(split))) => *split,
            Some(_) => return Err("`split_special_tokens` must be true or false".to_owned()),
        };
        let special = SpecialTokens::new(special);
        Ok(SpecialTokenTable { arguments, special, batches, split_special_tokens, fill_token })
    }
}

/// Added tokens of the files. A token whose id a later one takes is no longer added, but still describes its text.
#[derive(Clone, Debug, Default)]
struct AddedTokens {
    by_id: BTreeMap<i64, AddedToken>,
    by_content: BTreeMap<String, AddedToken>,
}

impl AddedTokens {
    fn insert(&mut self, id: i64, token: AddedToken) {
        self.by_content.insert(token.content.clone(), token.clone());
        self.by_id.insert(id, token);
    }
}

/// The arguments in `tokenizer_config.json`, with the special tokens of a model under `model_specific_special_tokens`.
fn configured(config: &Map<String, Value>) -> Result<Arguments, String> {
    let mut arguments = Arguments::of(config);
    if arguments.remove("init_inputs").is_some_and(|inputs| inputs.is_truthy()) {
        return Err("`init_inputs` with positional arguments is not supported; remove the key".to_owned());
    }
    for key in ["tokenizer_class", "add_bos_token", "add_eos_token", "added_tokens_decoder", "chat_template"] {
        arguments.remove(key);
    }
    if !arguments.argument("extra_special_tokens").is_some_and(Argument::is_truthy)
        && let Some(additional) = arguments.remove("additional_special_tokens")
    {
        arguments.set("extra_special_tokens", additional);
    }
    let mut specific = Map::new();
    for key in arguments.keys() {
        if is_specific(&key)
            && let Some(Value::String(text)) = arguments.get(&key).cloned()
        {
            arguments.remove(&key);
            specific.insert(key, text.into());
        }
    }
    if let Some(Value::Object(extra)) = arguments.get("extra_special_tokens") {
        specific.extend(extra.clone());
        arguments.remove("extra_special_tokens");
    }
    if !specific.is_empty() {
        arguments.set("model_specific_special_tokens", Argument::Json(Value::Object(specific)));
    }
    Ok(arguments)
}

fn is_specific(key: &str) -> bool {
    key.ends_with("_token") && !STANDARD.contains(&key)
}

/// `added_tokens_decoder`: tokens by id. The ids only give the order.
fn decoded(decoder: &Value) -> Result<AddedTokens, String> {
    let malformed = "`added_tokens_decoder` must map ids to objects";
    let mut tokens = AddedTokens::default();
    for (id, token) in decoder.as_object().ok_or(malformed)? {
        let id: i64 = id.trim().parse().map_err(|_| malformed)?;
        tokens.insert(id, AddedToken::parse(token.as_object().ok_or(malformed)?)?);
    }
    Ok(tokens)
}

/// Merges `special_tokens_map.json` into the arguments; its entries take precedence.
fn merge_map(arguments: &mut Arguments, map: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in map {
        let argument = match value {
            _ if key == "chat_template" => {
                return Err("special_tokens_map.json has a `chat_template`; move it to chat_template.jinja".to_owned());
            }
            Value::Array(list) if key == "extra_special_tokens" => {
                let mut merged = match arguments.argument(key) {
                    Some(extra) if extra.is_truthy() => {
                        extra.items().ok_or("`extra_special_tokens` must be a list or an object")?
                    }
                    _ => Vec::new(),
                };
                for item in list {
                    let item = match item {
                        Value::Object(token) if token.contains_key("special") => {
                            return Err("special_tokens_map.json gives `special` for an extra special token".to_owned());
                        }
                        Value::Object(token) => {
                            Argument::Token(AddedToken { special: true, ..AddedToken::parse(token)? })
                        }
                        other => Argument::Json(other.clone()),
                    };
                    if !merged.contains(&item) {
                        merged.push(item);
                    }
                }
                Argument::List(merged)
            }
            Value::Object(token) if key != "extra_special_tokens" => {
                Argument::Token(AddedToken { special: true, ..AddedToken::parse(token)? })
            }
            other => Argument::Json(other.clone()),
        };
        arguments.set(key, argument);
    }
    if let Some(Value::Object(extra)) = arguments.get("extra_special_tokens") {
        let extra = extra.clone();
        arguments.remove("extra_special_tokens");
        let mut specific = match arguments.argument("model_specific_special_tokens") {
            None => Map::new(),
            Some(Argument::Json(Value::Object(specific))) => specific.clone(),
            Some(_) => return Err("`model_specific_special_tokens` must be an object".to_owned()),
        };
        specific.extend(extra);
        arguments.set("model_specific_special_tokens", Argument::Json(Value::Object(specific)));
    }
    Ok(())
}

/// The added tokens of a directory without `added_tokens_decoder`: of `added_tokens.json`, then of `tokenizer.json`.
fn legacy(arguments: &Arguments, files: &TokenFiles) -> Result<AddedTokens, String> {
    let mut special: Vec<&str> = STANDARD.iter().filter_map(|key| arguments.content(key)).collect();
    let extra = arguments.argument("extra_special_tokens").and_then(Argument::items).unwrap_or_default();
    special.extend(extra.iter().filter_map(Argument::content));
    let mut tokens = AddedTokens::default();
    for (content, id) in &files.added {
        let id =
            id.as_i64().ok_or_else(|| format!("added_tokens.json must map tokens to ids, not {content:?} to {id}"))?;
        let is_special = special.contains(&content.as_str());
        let token = AddedToken {
            content: content.clone(),
            special: is_special,
            normalized: Some(!is_special),
            ..AddedToken::default()
        };
        tokens.insert(id, token);
    }
    for serialized in &files.serialized {
        let token = serialized.as_object().ok_or("`added_tokens` of tokenizer.json must be a list of objects")?;
        let id = token.get("id").and_then(Value::as_i64).ok_or("an added token of tokenizer.json has no `id`")?;
        tokens.insert(id, AddedToken::parse(token)?);
    }
    Ok(tokens)
}

/// Adds the infilling tokens of `CodeLlamaTokenizer` and returns the argument `fill_token`.
fn add_infilling(arguments: &mut Arguments) -> Result<Option<String>, String> {
    let mut additional = match arguments.remove("additional_special_tokens") {
        Some(list) if list.is_truthy() => list.items().ok_or("`additional_special_tokens` must be a list")?,
        _ => Vec::new(),
    };
    let mut infilling = Arguments::default();
    for (key, default) in CODE_LLAMA {
        let argument = arguments.remove(key).unwrap_or_else(|| Argument::text(default));
        if !argument.is_null() {
            additional.push(argument.clone());
        }
        infilling.set(key, argument);
    }
    let fill = infilling.content("fill_token").map(str::to_owned);
    // The class passes these before all other arguments.
    for (key, argument) in arguments.iter() {
        infilling.set(key, argument.clone());
    }
    infilling.set("additional_special_tokens", Argument::List(additional));
    *arguments = infilling;
    Ok(fill)
}

/// Special tokens with a name: the standard ones, other keys that end in `_token`, and model-specific ones.
fn named_tokens(arguments: &Arguments) -> Result<Vec<(String, Argument)>, String> {
    let mut named: Vec<(String, Argument)> = Vec::new();
    for key in STANDARD {
        match arguments.argument(key) {
            None => {}
            Some(argument) if argument.is_null() => {}
            Some(argument) if argument.content().is_some() => named.push((key.to_owned(), argument.clone())),
            Some(_) => {
                return Err(format!(
                    "`{key}` must be a string or an object with `__type` \"AddedToken\": transformers 5 rejects it"
                ));
            }
        }
    }
    let mut set = |key: &str, argument: Argument| match named.iter_mut().find(|(known, _)| known == key) {
        Some((_, slot)) => *slot = argument,
        None => named.push((key.to_owned(), argument)),
    };
    let explicit = match arguments.argument("model_specific_special_tokens") {
        None => Map::new(),
        Some(argument) if argument.is_null() => Map::new(),
        Some(Argument::Json(Value::Object(explicit))) => explicit.clone(),
        Some(_) => return Err("`model_specific_special_tokens` must be an object".to_owned()),
    };
    for (key, argument) in arguments.iter() {
        if is_specific(key) && argument.content().is_some() {
            set(key, argument.clone());
        }
    }
    for (key, value) in explicit {
        let argument = Argument::Json(value).converted()?;
        if argument.content().is_none() {
            return Err(format!("the special token `{key}` must be a string"));
        }
        set(&key, argument);
    }
    named.sort_by_key(|(key, _)| STANDARD.iter().position(|known| known == key).unwrap_or(STANDARD.len()));
    Ok(named)
}

/// Special tokens without a name.
fn extra_tokens(arguments: &Arguments) -> Result<Vec<Argument>, String> {
    let extra = arguments.argument("extra_special_tokens").or_else(|| arguments.argument("additional_special_tokens"));
    let Some(extra) = extra.filter(|extra| !extra.is_null()) else { return Ok(Vec::new()) };
    let items = extra.items().ok_or("`extra_special_tokens` must be a list or an object")?;
    match items.iter().find(|item| item.content().is_none()) {
        Some(item) => Err(format!("an extra special token must be a string, not {item:?}")),
        None => Ok(items),
    }
}

/// The tokens that `TokenizersBackend.__init__` adds. `present` are the added tokens that the tokenizer already has.
fn to_add(
    decoder: &BTreeMap<i64, AddedToken>,
    named: &[(String, Argument)],
    extra: &[Argument],
    present: &[&str],
) -> Vec<AddedToken> {
    let mut tokens: Vec<Argument> = decoder.values().cloned().map(Argument::Token).collect();
    let known = |content: &str| present.contains(&content) || decoder.values().any(|token| token.content == content);
    for argument in named.iter().map(|(_, argument)| argument).chain(extra) {
        if !argument.content().is_some_and(known) && !tokens.contains(argument) {
            tokens.push(argument.clone());
        }
    }
    let is_named = |content: &str| named.iter().any(|(_, argument)| argument.content() == Some(content));
    let added = tokens.into_iter().filter_map(|argument| match argument {
        Argument::Token(token) => Some(AddedToken { special: token.special || is_named(&token.content), ..token }),
        other => other.content().map(AddedToken::special),
    });
    added.collect()
}

/// The tokens that the constructors of some classes add at the end.
fn later_batch(class: TokenizerClass, named: &[(String, Argument)], extra: &[Argument]) -> Option<Vec<AddedToken>> {
    let all = named.iter().map(|(_, argument)| argument).chain(extra);
    match class {
        TokenizerClass::Qwen2 => Some(all.filter_map(Argument::content).map(AddedToken::special).collect()),
        TokenizerClass::Cohere => Some(
            all.filter_map(|argument| match argument {
                Argument::Token(token) => Some(AddedToken { special: true, ..token.clone() }),
                other => other.content().map(AddedToken::special),
            })
            .collect(),
        ),
        _ => None,
    }
}
