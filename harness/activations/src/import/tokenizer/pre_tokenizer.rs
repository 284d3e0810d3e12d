//! The pre-tokenizer of a byte-level tokenizer: named by `tokenizer.ggml.pre`, or inferred from the vocabulary.
//!
//! A token is the result of merges within one piece, so a pre-tokenizer that would split the text of a token did not
//! make the vocabulary.

use super::super::gguf::{GgufFile, GgufValue};
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::{Error, Result};

/// Pre-tokenizers, named after the models that introduced them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    /// The regular expression built into the `ByteLevel` step.
    Gpt2,
    /// Single digits, then as GPT-2.
    SmolLm,
    /// Numbers in groups of up to three digits.
    Llama3,
    /// Single digits, and text in Unicode normalization form C.
    Qwen2,
}

/// The values of `tokenizer.ggml.pre`. `default` is no name: a converter that did not know the model wrote it.
const PRE_TOKENIZERS: [(&str, PreTokenizer); 7] = [
    ("gpt-2", PreTokenizer::Gpt2),
    ("gpt2", PreTokenizer::Gpt2),
    ("smollm", PreTokenizer::SmolLm),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
];

/// The BOS token of Llama 3.
const LLAMA3_BOS: &str = "<|begin_of_text|>";

/// Normal tokens from which on a vocabulary without a token of several digits shows that digits are single.
const LARGE_VOCABULARY: usize = 10_000;

/// The pre-tokenizer of the file. If it is inferred, `warnings` says so.
///
/// # Errors
/// An unknown pre-tokenizer.
pub(super) fn read(gguf: &GgufFile, vocabulary: &Vocabulary, warnings: &mut Vec<String>) -> Result<PreTokenizer> {
    let name = gguf.optional("tokenizer.ggml.pre", "a string", GgufValue::as_str)?;
    if let Some(name) = name.filter(|name| *name != "default") {
        let found = PRE_TOKENIZERS.into_iter().find(|(known, _)| *known == name);
        return found.map(|(_, kind)| kind).ok_or_else(|| {
            let known = PRE_TOKENIZERS.map(|(known, _)| known).join(" ");
            Error::file(gguf.path(), format!("has the unknown pre-tokenizer '{name}'; supported are: {known}"))
        });
    }
    let (kind, evidence) = infer(vocabulary);
    let found = PRE_TOKENIZERS.into_iter().find(|(_, known)| *known == kind).map_or("gpt-2", |(known, _)| known);
    warnings.push(format!(
        "does not name its pre-tokenizer (tokenizer.ggml.pre); '{found}' is assumed, {evidence}. If that is wrong, so are \
         the tokens: set the key in the file (gguf-new-metadata --pre-tokenizer), or convert the model again"
    ));
    Ok(kind)
}

/// What the tokens show. Only normal tokens of ASCII characters are counted.
#[derive(Default)]
struct Evidence {
    /// Normal tokens.
    normal: usize,
    /// Tokens that GPT-2's expression splits and Llama 3's does not: `.get`, `'LL`, `;` with a line break.
    only_llama3: usize,
    /// Tokens that Llama 3's expression splits and GPT-2's does not: a line break with spaces behind it, a space with
    /// digits behind it.
    only_gpt2: usize,
    /// Tokens of several digits.
    several_digits: usize,
}

fn infer(vocabulary: &Vocabulary) -> (PreTokenizer, &'static str) {
    if vocabulary.tokens.iter().any(|token| token == LLAMA3_BOS) {
        return (PreTokenizer::Llama3, "because the vocabulary has Llama 3's <|begin_of_text|>");
    }
    let mut evidence = Evidence::default();
    let normal = vocabulary.tokens.iter().zip(&vocabulary.types).filter(|(_, kind)| **kind == TokenType::Normal);
    for (token, _) in normal {
        evidence.add(token);
    }
    let single_digits = evidence.several_digits == 0 && evidence.normal >= LARGE_VOCABULARY;
    match (evidence.only_llama3.cmp(&evidence.only_gpt2), single_digits) {
        (std::cmp::Ordering::Greater, true) => {
            (PreTokenizer::Qwen2, "because the vocabulary joins punctuation with letters or line breaks, and no digits")
        }
        (std::cmp::Ordering::Greater, false) => {
            (PreTokenizer::Llama3, "because the vocabulary joins punctuation with letters or line breaks")
        }
        (std::cmp::Ordering::Less, true) => {
            (PreTokenizer::SmolLm, "because the vocabulary joins line breaks with spaces, and no digits")
        }
        (std::cmp::Ordering::Less, false) => {
            (PreTokenizer::Gpt2, "because the vocabulary joins line breaks or digits with spaces")
        }
        (std::cmp::Ordering::Equal, _) => (PreTokenizer::Gpt2, "because the vocabulary shows no other"),
    }
}

impl Evidence {
    fn add(&mut self, token: &str) {
        self.normal += 1;
        let Some(text) = ascii_text(token) else {
            return;
        };
        let text = text.as_slice();
        let Some((&first, rest)) = text.split_first() else {
            return;
        };
        let is_symbol = |byte: &u8| byte.is_ascii_punctuation();
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let is_digit = u8::is_ascii_digit;
        if rest.is_empty() {
            return;
        }
        if text.iter().all(is_digit) {
            self.several_digits += 1;
        } else if (is_symbol(&first) || first == b'\t') && rest.iter().all(u8::is_ascii_alphabetic) {
            let is_contraction = matches!(text, b"'s" | b"'t" | b"'re" | b"'ve" | b"'m" | b"'ll" | b"'d");
            self.only_llama3 += usize::from(!is_contraction);
        } else if first == b' ' && rest.iter().all(is_digit) {
            self.only_gpt2 += 1;
        } else if text.iter().all(u8::is_ascii_whitespace) {
            let after_break = text.iter().skip_while(|byte| !is_break(byte));
            self.only_gpt2 +=
                usize::from(after_break.clone().any(|byte| !is_break(byte)) && !is_break(&text[text.len() - 1]));
        } else {
            let symbols = text.strip_prefix(b" ").unwrap_or(text);
            let breaks = symbols.iter().rev().take_while(|byte| is_break(byte)).count();
            let symbols = &symbols[..symbols.len() - breaks];
            self.only_llama3 += usize::from(breaks > 0 && !symbols.is_empty() && symbols.iter().all(is_symbol));
        }
    }
}

/// The ASCII text that a byte-level token stands for. Byte-level tokens write bytes that are not printable as the
/// characters from U+0100 on, in order: the bytes 0 to 32 are the first 33.
fn ascii_text(token: &str) -> Option<Vec<u8>> {
    let byte = |character: char| match u32::from(character) {
        code @ 0x21..=0x7e => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        _ => None,
    };
    token.chars().map(byte).collect()
}
