//! Tokenizer classes: the tokenizer that `tokenizer_class` builds from `tokenizer.json`, as in transformers 5.24.
//!
//! In transformers 5 most classes take only the vocabulary and the merges from `tokenizer.json` and set normalizer,
//! pre-tokenizer and model options themselves, so the class changes token ids. [`TokenizerClass::choose`] follows
//! `AutoTokenizer.from_pretrained`, in which the model type can overrule the declared class, and
//! [`TokenizerClass::rebuild`] follows the `__init__` of the class.

use serde_json::{Map, Value, json};

use super::arguments::Arguments;

/// A tokenizer class that a model can declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `TokenizersBackend`, alias `PreTrainedTokenizerFast`: `tokenizer.json` as it is.
    Backend,
    /// `LlamaTokenizer`.
    Llama,
    /// `CodeLlamaTokenizer`.
    CodeLlama,
    /// `GPT2Tokenizer`.
    Gpt2,
    /// `GPTNeoXTokenizer`.
    GptNeoX,
    /// `Qwen2Tokenizer`.
    Qwen2,
    /// `Qwen3_5Tokenizer`.
    Qwen35,
    /// `GemmaTokenizer`.
    Gemma,
    /// `CohereTokenizer`.
    Cohere,
}

/// The classes with an implementation, by their names without the suffix `Fast`.
const IMPLEMENTED: [(&str, TokenizerClass); 13] = [
    ("LlamaTokenizer", TokenizerClass::Llama),
    ("CodeLlamaTokenizer", TokenizerClass::CodeLlama),
    ("GPT2Tokenizer", TokenizerClass::Gpt2),
    ("GPTNeoXTokenizer", TokenizerClass::GptNeoX),
    ("Qwen2Tokenizer", TokenizerClass::Qwen2),
    ("Qwen3_5Tokenizer", TokenizerClass::Qwen35),
    ("GemmaTokenizer", TokenizerClass::Gemma),
    ("CohereTokenizer", TokenizerClass::Cohere),
    ("PreTrainedTokenizer", TokenizerClass::Backend),
    ("PythonBackend", TokenizerClass::Backend),
    ("TokenizersBackend", TokenizerClass::Backend),
    ("BloomTokenizer", TokenizerClass::Backend),
    ("", TokenizerClass::Backend),
];

/// The other classes of transformers 5.24, without the suffix `Fast`. They build tokenizers of their own. A name that
/// transformers does not know stands for `TokenizersBackend`.
const REJECTED: &str = "\
    AlbertTokenizer AutoTokenizer BartTokenizer BarthezTokenizer BartphoTokenizer BasicTokenizer \
    BertGenerationTokenizer BertJapaneseTokenizer BertTokenizer BertweetTokenizer BigBirdTokenizer \
    BioGptTokenizer BlenderbotSmallTokenizer BlenderbotTokenizer ByT5Tokenizer CLIPTokenizer CTRLTokenizer \
    CamembertTokenizer CanineTokenizer CharacterTokenizer ClvpTokenizer CodeGenTokenizer ConvBertTokenizer \
    CpmAntTokenizer CpmTokenizer DPRContextEncoderTokenizer DPRQuestionEncoderTokenizer DPRReaderTokenizer \
    DebertaTokenizer DebertaV2Tokenizer DiaTokenizer DistilBertTokenizer EsmTokenizer EsmcTokenizer \
    FNetTokenizer FSMTTokenizer FastSpeech2ConformerTokenizer FlaubertTokenizer FunnelTokenizer \
    GPTNeoXJapaneseTokenizer GPTSw3Tokenizer HerbertTokenizer LEDTokenizer LasrTokenizer LayoutLMv2Tokenizer \
    LayoutLMv3Tokenizer LayoutXLMTokenizer LukeTokenizer LxmertTokenizer M2M100Tokenizer MBart50Tokenizer \
    MBartTokenizer MLukeTokenizer MPNetTokenizer MarianTokenizer MarkupLMTokenizer MecabTokenizer \
    MgpstrTokenizer MistralCommonBackend MobileBertTokenizer MvpTokenizer MyT5Tokenizer NllbTokenizer \
    NougatTokenizer OpenAIGPTTokenizer PLBartTokenizer ParakeetTokenizer PegasusTokenizer PerceiverTokenizer \
    PhobertTokenizer Pop2PianoTokenizer PreTrainedTokenizerBase ProphetNetTokenizer RagTokenizer \
    ReformerTokenizer RemBertTokenizer RoCBertTokenizer RoFormerTokenizer RobertaTokenizer SeamlessM4TTokenizer \
    SentencePieceBackend Siglip2Tokenizer SiglipTokenizer Speech2TextTokenizer SpeechT5Tokenizer \
    SplinterTokenizer SqueezeBertTokenizer T5Tokenizer TapasTokenizer Tipsv2Tokenizer UdopTokenizer \
    VideoPrismTokenizer VitsTokenizer Wav2Vec2CTCTokenizer Wav2Vec2PhonemeCTCTokenizer WhisperTokenizer \
    WordpieceTokenizer XGLMTokenizer XLMRobertaTokenizer XLMTokenizer XLNetTokenizer";

/// The class that transformers registers for a model type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registered {
    /// None: the declared class is used.
    Nothing,
    /// A class for directories that declare none.
    Default(TokenizerClass),
    /// A class whatever is declared: transformers takes the declarations of these models for mistakes.
    Always(TokenizerClass),
}

impl Registered {
    /// From `TOKENIZER_MAPPING_NAMES` and `MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`. A registered `TokenizersBackend` overrules
    /// every declaration. That of Mistral is without the package `mistral-common`.
    fn of(model_type: &str) -> Self {
        match model_type {
            "mistral" | "mixtral" | "olmo2" | "phi3" => Registered::Always(TokenizerClass::Backend),
            "qwen2" => Registered::Always(TokenizerClass::Qwen2),
            "qwen3" | "qwen3_moe" => Registered::Default(TokenizerClass::Qwen2),
            "gemma" | "gemma2" | "gemma3" | "gemma3_text" => Registered::Default(TokenizerClass::Gemma),
            "gpt_neox" => Registered::Default(TokenizerClass::GptNeoX),
            "gpt2" => Registered::Default(TokenizerClass::Gpt2),
            _ => Registered::Nothing,
        }
    }
}

/// The pattern of `Qwen2Tokenizer`.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pattern of `Qwen3_5Tokenizer`: marks belong to words.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl TokenizerClass {
    /// The class of a directory, given `tokenizer_config.json` and `config.json` (empty if missing). `is_byte_level`
    /// says whether `tokenizer.json` contains the string `"ByteLevel"`.
    ///
    /// # Errors
    /// The key of `tokenizer_config.json` or `config.json` that selects something else, and why.
    pub(super) fn choose(
        config: &Map<String, Value>,
        model: &Map<String, Value>,
        is_byte_level: impl FnOnce() -> bool,
    ) -> Result<Self, String> {
        let declared = match config.get("tokenizer_class") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.as_str()),
            Some(_) => return Err("`tokenizer_class` must be a string".to_owned()),
        };
        let of_model = model.get("tokenizer_class").and_then(Value::as_str).filter(|name| !name.is_empty());
        let remote = match config.get("auto_map") {
            Some(Value::Array(_)) => true,
            Some(Value::Object(map)) => map.get("AutoTokenizer").is_some_and(|class| !class.is_null()),
            _ => false,
        };
        if config.get("fix_mistral_regex") == Some(&Value::Bool(true)) && is_old_mistral(model) {
            return Err("`fix_mistral_regex` makes transformers 5 replace a rule of tokenizer.json, which actbench does not \
                 implement; save model and tokenizer with transformers 5, or remove the key to use tokenizer.json as it is"
                .to_owned());
        }
        let registered = model.get("model_type").and_then(Value::as_str).map_or(Registered::Nothing, Registered::of);
        if let Registered::Always(class) = registered
            && !remote
        {
            return Ok(class);
        }
        let effective = declared.filter(|name| !name.is_empty()).or(of_model);
        // LlamaTokenizer builds no byte-level tokenizer; directories of Llama 3 declare it nevertheless.
        if !remote && effective.is_some_and(|name| base(name) == "LlamaTokenizer") && is_byte_level() {
            return Ok(TokenizerClass::Backend);
        }
        let of_remote_code = || {
            Err("`auto_map` names a tokenizer class in the repository's own code, which actbench does not run; \
                 save the tokenizer with a class of transformers"
                .to_owned())
        };
        match (declared, of_model) {
            (Some(name), _) => match named(base(name))? {
                Some(class) => Ok(class),
                None if remote => of_remote_code(),
                None => Ok(TokenizerClass::Backend),
            },
            (None, _) if remote => of_remote_code(),
            (None, Some("PreTrainedTokenizerFast" | "TokenizersBackend")) => Ok(TokenizerClass::Backend),
            (None, Some(name)) => match named(base(name))? {
                Some(class) if class != TokenizerClass::Backend => Ok(class),
                _ if registered != Registered::Nothing => Ok(TokenizerClass::Backend),
                _ => Err(format!(
                    "config.json declares the tokenizer class `{name}`, which transformers 5 cannot load; set \
                     `tokenizer_class` in tokenizer_config.json"
                )),
            },
            (None, None) => match registered {
                Registered::Nothing => Ok(TokenizerClass::Backend),
                Registered::Default(class) | Registered::Always(class) => Ok(class),
            },
        }
    }

    /// Whether the class replaces the rules of `tokenizer.json` by its own.
    pub(super) fn rebuilds(self) -> bool {
        self != TokenizerClass::Backend
    }

    /// The special tokens that the class's `__init__` has parameters for, with their defaults.
    pub(super) fn special_defaults(self) -> &'static [(&'static str, Option<&'static str>)] {
        const END: Option<&str> = Some("<|endoftext|>");
        match self {
            TokenizerClass::Backend => &[],
            TokenizerClass::Llama | TokenizerClass::CodeLlama => {
                &[("unk_token", Some("<unk>")), ("bos_token", Some("<s>")), ("eos_token", Some("</s>"))]
            }
            TokenizerClass::Gpt2 => &[("unk_token", END), ("bos_token", END), ("eos_token", END), ("pad_token", None)],
            TokenizerClass::GptNeoX => {
                &[("unk_token", END), ("bos_token", END), ("eos_token", END), ("pad_token", Some("<|padding|>"))]
            }
            TokenizerClass::Qwen2 | TokenizerClass::Qwen35 => {
                &[("unk_token", END), ("bos_token", None), ("eos_token", END), ("pad_token", END)]
            }
            TokenizerClass::Gemma => &[
                ("unk_token", Some("<unk>")),
                ("bos_token", Some("<bos>")),
                ("eos_token", Some("<eos>")),
                ("pad_token", Some("<pad>")),
                ("mask_token", Some("<mask>")),
            ],
            TokenizerClass::Cohere => &[
                ("unk_token", Some("<UNK>")),
                ("bos_token", Some("<BOS_TOKEN>")),
                ("eos_token", Some("<|END_OF_TURN_TOKEN|>")),
                ("pad_token", Some("<PAD>")),
                ("cls_token", Some("<CLS>")),
                ("sep_token", Some("<SEP>")),
                ("mask_token", Some("<MASK_TOKEN>")),
            ],
        }
    }

    /// Replaces the rules of `tokenizer`, a parsed `tokenizer.json`, by those of the class, and removes its added
    /// tokens: transformers adds them again from the files. Vocabulary and merges stay.
    ///
    /// # Errors
    /// A model other than BPE, or an argument of the wrong type.
    pub(super) fn rebuild(self, tokenizer: &mut Map<String, Value>, arguments: &Arguments) -> Result<(), String> {
        if !self.rebuilds() {
            return Ok(());
        }
        let model = tokenizer.get_mut("model").and_then(Value::as_object_mut);
        let model = model.ok_or("tokenizer.json has no `model`")?;
        let kind = model.get("type").and_then(Value::as_str).unwrap_or("BPE").to_owned();
        if kind != "BPE" || !model.get("vocab").is_some_and(Value::is_object) {
            return Err(format!(
                "`tokenizer_class` is a class for BPE, but the model of tokenizer.json is {kind}; set `tokenizer_class` \
                 to PreTrainedTokenizerFast to use tokenizer.json as it is"
            ));
        }
        let vocabulary = model.remove("vocab").unwrap_or_default();
        let merges = model.remove("merges").unwrap_or_else(|| json!([]));
        let rules = self.rules(arguments)?;
        *model = Map::from_iter([
            ("type".to_owned(), json!("BPE")),
            ("dropout".to_owned(), Value::Null),
            ("unk_token".to_owned(), rules.unk_token),
            ("continuing_subword_prefix".to_owned(), Value::Null),
            ("end_of_word_suffix".to_owned(), Value::Null),
            ("fuse_unk".to_owned(), rules.is_sentence_piece.into()),
            ("byte_fallback".to_owned(), rules.is_sentence_piece.into()),
            ("ignore_merges".to_owned(), false.into()),
            ("vocab".to_owned(), vocabulary),
            ("merges".to_owned(), merges),
        ]);
        tokenizer.insert("normalizer".to_owned(), rules.normalizer);
        tokenizer.insert("pre_tokenizer".to_owned(), rules.pre_tokenizer);
        tokenizer.insert("decoder".to_owned(), Value::Null);
        tokenizer.insert("added_tokens".to_owned(), json!([]));
        Ok(())
    }

    fn rules(self, arguments: &Arguments) -> Result<Rules, String> {
        let prefix = || arguments.flag("add_prefix_space");
        // These classes pass the value on to a parameter that must be a boolean.
        let strict_prefix = || match arguments.get("add_prefix_space") {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or("`add_prefix_space` must be true or false for this `tokenizer_class`"),
        };
        let metaspace =
            |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        let byte_level = |prefix: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": use_regex});
        let split = |pattern: &str, prefix: bool| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level(prefix, false),
            ]})
        };
        let nfc = || json!({"type": "NFC"});
        // `str(None)` in Python.
        let unk_token = || json!(arguments.content("unk_token").unwrap_or("None"));
        let (is_sentence_piece, unk_token, normalizer, pre_tokenizer) = match self {
            TokenizerClass::Backend => return Err("`PreTrainedTokenizerFast` has no rules of its own".to_owned()),
            TokenizerClass::Llama => {
                let scheme = match (prefix()?.unwrap_or(true), arguments.flag("legacy")?.unwrap_or(false)) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                (true, Value::Null, Value::Null, metaspace(scheme))
            }
            TokenizerClass::CodeLlama => {
                let scheme = if prefix()?.unwrap_or(true) { "first" } else { "never" };
                (true, unk_token(), Value::Null, metaspace(scheme))
            }
            TokenizerClass::Gemma => {
                let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
                let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
                (true, unk_token(), replace, split)
            }
            TokenizerClass::Gpt2 => (false, Value::Null, Value::Null, byte_level(strict_prefix()?, true)),
            TokenizerClass::GptNeoX => (false, Value::Null, nfc(), byte_level(strict_prefix()?, true)),
            TokenizerClass::Qwen2 => (false, Value::Null, nfc(), split(QWEN2, prefix()?.unwrap_or(false))),
            TokenizerClass::Qwen35 => (false, Value::Null, nfc(), split(QWEN35, prefix()?.unwrap_or(false))),
            TokenizerClass::Cohere => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                let sequence =
                    json!({"type": "Sequence", "pretokenizers": [digits, byte_level(strict_prefix()?, true)]});
                (false, Value::Null, nfc(), sequence)
            }
        };
        Ok(Rules { is_sentence_piece, unk_token, normalizer, pre_tokenizer })
    }
}

/// The parts of a rebuilt tokenizer, as in `tokenizer.json`.
struct Rules {
    /// Whether unknown bytes become byte tokens and unknown characters are fused.
    is_sentence_piece: bool,
    unk_token: Value,
    normalizer: Value,
    pre_tokenizer: Value,
}

/// Whether `config.json` is one whose tokenizer `_patch_mistral_regex` of transformers patches on request: of a Mistral or of no type,
/// written before version 5.
fn is_old_mistral(model: &Map<String, Value>) -> bool {
    let text = |key: &str| model.get(key).and_then(Value::as_str);
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let is_old = text("transformers_version").and_then(major).is_none_or(|major| major < 5);
    is_old && text("model_type").is_none_or(|model_type| model_type == "mistral")
}

fn base(name: &str) -> &str {
    name.strip_suffix("Fast").unwrap_or(name)
}

/// The class of that name without the suffix; `None` if transformers does not know it.
fn named(name: &str) -> Result<Option<TokenizerClass>, String> {
    if REJECTED.split_whitespace().any(|known| known == name) {
        return Err(format!(
            "the tokenizer class `{name}` builds a tokenizer of its own in transformers 5, which actbench does not \
             implement; if tokenizer.json is complete, set `tokenizer_class` to PreTrainedTokenizerFast"
        ));
    }
    Ok(IMPLEMENTED.iter().find(|(known, _)| *known == name).map(|(_, class)| *class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(config: &Value, model: &Value, byte_level: bool) -> Result<TokenizerClass, String> {
        TokenizerClass::choose(config.as_object().unwrap(), model.as_object().unwrap(), || byte_level)
    }

    #[test]
    fn patch_of_old_mistral_tokenizers_is_refused() {
        let patched = json!({"tokenizer_class": "PreTrainedTokenizerFast", "fix_mistral_regex": true});
        for model in
            [json!({"model_type": "mistral"}), json!({"model_type": "mistral", "transformers_version": "4.57.1"})]
        {
            let error = choose(&patched, &model, true).unwrap_err();
            assert!(error.starts_with("`fix_mistral_regex`"), "{model}: {error}");
            let unpatched = json!({"tokenizer_class": "PreTrainedTokenizerFast", "fix_mistral_regex": false});
            assert_eq!(choose(&unpatched, &model, true), Ok(TokenizerClass::Backend), "{model}");
        }
        for model in [json!({"model_type": "mistral", "transformers_version": "5.2.0"}), json!({"model_type": "llama"})]
        {
            assert_eq!(choose(&patched, &model, true), Ok(TokenizerClass::Backend), "{model}");
        }
    }

    /// Each line was tried with `AutoTokenizer.from_pretrained` of transformers 5.24.
    #[test]
    fn model_type_can_overrule_the_declared_class() {
        use TokenizerClass::{Backend, Gemma, Gpt2, GptNeoX, Llama, Qwen2};
        for (model_type, class, byte_level, expected) in [
            ("mistral", "LlamaTokenizer", false, Backend),
            ("mixtral", "LlamaTokenizer", false, Backend),
            ("phi3", "LlamaTokenizerFast", false, Backend),
            ("phi3", "BertTokenizer", true, Backend),
            ("olmo2", "GPT2Tokenizer", true, Backend),
            ("qwen2", "LlamaTokenizerFast", true, Qwen2),
            ("qwen2", "PreTrainedTokenizerFast", true, Qwen2),
            ("qwen3", "PreTrainedTokenizerFast", true, Backend),
            ("qwen3", "LlamaTokenizerFast", true, Backend),
            ("qwen3_moe", "PreTrainedTokenizerFast", true, Backend),
            ("gemma2", "LlamaTokenizerFast", false, Llama),
            ("gpt_neox", "GPT2TokenizerFast", true, Gpt2),
            ("smollm3", "GPT2Tokenizer", true, Gpt2),
        ] {
            let declared = json!({"tokenizer_class": class});
            let found = choose(&declared, &json!({"model_type": model_type}), byte_level);
            assert_eq!(found, Ok(expected), "{model_type} {class}");
            let found = choose(&json!({}), &json!({"model_type": model_type, "tokenizer_class": class}), byte_level);
            assert_eq!(found, Ok(expected), "{model_type} {class} of config.json");
        }
        for (model_type, expected) in [
            ("mistral", Backend),
            ("mixtral", Backend),
            ("qwen2", Qwen2),
            ("qwen3", Qwen2),
            ("qwen3_moe", Qwen2),
            ("gemma3_text", Gemma),
            ("gpt_neox", GptNeoX),
            ("gpt2", Gpt2),
            ("smollm3", Backend),
            ("llama", Backend),
        ] {
            assert_eq!(choose(&json!({}), &json!({"model_type": model_type}), true), Ok(expected), "{model_type}");
        }
        let unknown = |model_type: &str| json!({"model_type": model_type, "tokenizer_class": "Mine"});
        assert_eq!(choose(&json!({}), &unknown("gpt2"), false), Ok(Backend));
        assert!(choose(&json!({}), &unknown("smollm3"), false).is_err());
    }

    #[test]
    fn class_is_chosen_as_by_auto_tokenizer() {
        let none = json!({});
        for (config, model, byte_level, expected) in [
            (json!({}), &none, true, TokenizerClass::Backend),
            (json!({"tokenizer_class": null}), &none, true, TokenizerClass::Backend),
            (json!({"tokenizer_class": "SomethingOfMine"}), &none, false, TokenizerClass::Backend),
            (json!({"tokenizer_class": "PreTrainedTokenizerFast"}), &none, false, TokenizerClass::Backend),
            (json!({"tokenizer_class": "LlamaTokenizerFast"}), &none, false, TokenizerClass::Llama),
            (json!({"tokenizer_class": "LlamaTokenizerFast"}), &none, true, TokenizerClass::Backend),
            (json!({"tokenizer_class": "Qwen2TokenizerFast"}), &none, true, TokenizerClass::Qwen2),
            (json!({}), &json!({"tokenizer_class": "GPT2TokenizerFast"}), true, TokenizerClass::Gpt2),
            (
                json!({"tokenizer_class": "CohereTokenizer"}),
                &json!({"tokenizer_class": "GPT2Tokenizer"}),
                true,
                TokenizerClass::Cohere,
            ),
            (
                json!({"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["a.B", null]}}),
                &none,
                true,
                TokenizerClass::Llama,
            ),
            (
                json!({"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoModel": "a.B"}}),
                &none,
                true,
                TokenizerClass::Backend,
            ),
        ] {
            assert_eq!(choose(&config, model, byte_level), Ok(expected), "{config} {model}");
        }
        let remote = json!({"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["a.B", null]}});
        assert!(choose(&remote, &none, false).unwrap_err().contains("auto_map"));
        assert!(
            choose(&json!({"tokenizer_class": "BertTokenizerFast"}), &none, false)
                .unwrap_err()
                .contains("`BertTokenizer`")
        );
        assert!(choose(&json!({}), &json!({"tokenizer_class": "Mine"}), false).unwrap_err().contains("`Mine`"));
        assert!(choose(&json!({"tokenizer_class": 3}), &none, false).is_err());
    }
}
