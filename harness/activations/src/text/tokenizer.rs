//! Converts dialogues to tokens and masks.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::NaiveDate;
use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{Encoding, PostProcessorWrapper, Tokenizer};

use crate::data::{ChatMessage, Dialogue};
use crate::error::{Error, Result};
use crate::panics;
use crate::tokens::{TokenSequence, TokenSet};

use super::arrange::{Layout, Rendered, arrange};
use super::files::TokenizerParts;
use super::layout::TemplateLayout;
use super::mask::MaskKind;
use super::outline::Outline;
use super::spans::assistant_spans;
use super::template::{ChatTemplate, DEFAULT_DATE, RENDER_STACK};
use super::tokenizer_limits::{self, Bounds};
use super::turns::{Renderer, TurnChanges};

/// How many layouts are kept. Dialogues without tool calls have few; each dialogue with tool calls has its own.
const MAX_LAYOUTS: usize = 1000;

/// A tokenizer with its chat template: converts dialogues to token ids and masks.
///
/// The ids equal those of Hugging Face's `apply_chat_template(messages, tools, documents, **chat_template_kwargs)`
/// without a generation prompt. Where the template refuses a dialogue or leaves out a message of it, the messages are
/// changed first, and [`TurnChanges`] counts the rows: adjacent messages of one role are joined by a space, and system
/// messages are prepended to the next user message.
pub struct ChatTokenizer {
    name: String,
    tokenizer: Tokenizer,
    /// The limits of the tokenizer's rules.
    bounds: Bounds,
    /// A text at which the tokenizer class would rearrange a dialogue.
    fill_token: Option<String>,
    template: ChatTemplate,
    template_origin: String,
    fingerprint: String,
    mask: MaskKind,
    /// The date of `strftime_now`, if the template names that function.
    date: Option<NaiveDate>,
    /// The layouts of the dialogues encoded so far, by all that determines them.
    layouts: Mutex<HashMap<blake3::Hash, Layout>>,
}

impl fmt::Debug for ChatTokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ChatTokenizer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ChatTokenizer {
    /// The tokenizer in a directory with `tokenizer.json` and a chat template.
    ///
    /// # Errors
    /// Missing or malformed files.
    pub fn from_dir(directory: &Path) -> Result<Self> {
        Self::from_parts(TokenizerParts::read(directory)?, DEFAULT_DATE)
    }

    /// The tokenizer of the embedded model and of synthetic models.
    ///
    /// # Errors
    /// Never for the bundled files, which the tests read.
    pub fn bundled() -> Result<Self> {
        Self::from_parts(TokenizerParts::bundled()?, DEFAULT_DATE)
    }

    /// A tokenizer from the texts of its files. `today` is the date of `strftime_now` in templates.
    ///
    /// # Errors
    /// A malformed tokenizer or template.
    pub fn from_parts(parts: TokenizerParts, today: NaiveDate) -> Result<Self> {
        let TokenizerParts {
            name,
            tokenizer_json,
            chat_template,
            tool_template,
            template_origin,
            special,
            added_tokens,
            split_special_tokens,
            fill_token,
        } = parts;
        let malformed = |reason: &str| {
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            Error::input(
                name.as_str(),
                format!("tokenizer.json is not a tokenizer ({reason}); download the file again"),
            )
        };
        let outline = Outline::parse(&tokenizer_json).map_err(|what| Error::input(name.as_str(), what))?;
        tokenizer_limits::check_outline(&outline).map_err(|what| Error::input(name.as_str(), what))?;
        // The library does not validate every number in the JSON and panics on some invalid ones.
        let mut tokenizer = panics::catch(|| Tokenizer::from_bytes(&tokenizer_json))
            .ok_or_else(|| malformed("its parts are inconsistent"))?
            .map_err(|error| malformed(&error.to_string()))?;
        // `apply_chat_template` encodes without special tokens, truncation and padding. A post-processor would then
        // only trim offsets, and tokens of whitespace would get empty ranges, which no span contains.
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| malformed(&error.to_string()))?;
        tokenizer.set_encode_special_tokens(split_special_tokens);
        let bounds = Bounds::new(&outline, tokenizer.get_normalizer());
        for batch in &added_tokens {
            for token in batch.iter().filter(|token| token.normalized) {
                bounds.check(&token.content).map_err(|what| Error::input(name.as_str(), what))?;
            }
            panics::catch(|| tokenizer.add_tokens(batch.clone()))
                .ok_or_else(|| malformed("its added tokens cannot be normalized"))?
                .map_err(|error| malformed(&error.to_string()))?;
        }

        let mut hasher = blake3::Hasher::new();
        let tokens = format!("{special:?} {added_tokens:?} {split_special_tokens} {today}");
        for part in [tokenizer_json.as_slice(), chat_template.as_bytes(), tokens.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        if let Some(part) = &tool_template {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let is_dated = [Some(&chat_template), tool_template.as_ref()]
            .into_iter()
            .flatten()
            .any(|source| source.contains("strftime_now"));
        let template =
            ChatTemplate::new(&chat_template, tool_template.as_deref(), special, today).map_err(|error| {
                Error::input(template_origin.as_str(), format!("{error}; fix the file or download it again"))
            })?;
        Ok(ChatTokenizer {
            name,
            tokenizer,
            bounds,
            fill_token,
            template,
            template_origin,
            fingerprint: hasher.finalize().to_hex().to_string(),
            mask: MaskKind::default(),
            date: is_dated.then_some(today),
            layouts: Mutex::default(),
        })
    }

    /// Replaces the mask.
    pub fn with_mask(self, mask: MaskKind) -> Self {
        ChatTokenizer { mask, ..self }
    }

    /// A digest of everything that determines the tokens of a dialogue: vocabulary, template, special tokens and date.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A note for users if the template asks for the date: it gets a constant one, and other programs the current one.
    pub fn date_note(&self) -> Option<String> {
        let date = self.date?;
        Some(format!(
            "the chat template asks for the date (strftime_now): it gets {} on every day, so that features are \
             reproducible; transformers gives it the current date",
            date.format("%d %b %Y")
        ))
    }

    /// A description of the tokenizer for users.
    pub fn describe(&self) -> String {
        format!("{} ({} tokens, template from {})", self.name, self.vocab_size(), self.template_origin)
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    /// Tokens and mask of one dialogue. A token is masked if it overlaps the part of an assistant message that
    /// [`MaskKind`] selects. A token without bytes counts as the byte at its offset.
    ///
    /// # Errors
    /// A template that rejects the dialogue or does not show where the assistant messages are; no token to pool.
    pub fn encode(&self, dialogue: &Dialogue) -> Result<TokenSequence> {
        let encoded = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(RENDER_STACK);
            thread
                .spawn_scoped(scope, || panics::catch(|| self.encode_on_this_thread(dialogue)))
                .map(std::thread::ScopedJoinHandle::join)
        });
        match encoded {
            Ok(Ok(Some(encoded))) => encoded.map(|(sequence, _)| sequence).map_err(|what| self.input_error(what)),
            Ok(Ok(None) | Err(_)) => {
                Err(self.input_error("the chat template or the tokenizer panicked on the dialogue".to_owned()))
            }
            Err(error) => Err(Error::Numeric(format!("cannot start a rendering thread: {error}"))),
        }
    }

    /// Tokens and masks of all dialogues in order, computed on as many threads as the current rayon pool has.
    ///
    /// # Errors
    /// The first error of [`encode`](Self::encode), with the number of the dialogue from 1.
    pub fn encode_all(&self, dialogues: &[Dialogue]) -> Result<TokenSet> {
        Ok(self.encode_rows(&dialogues.iter().collect::<Vec<_>>(), |position| self.unplaced(position))?.0)
    }

    /// Like [`encode_all`](Self::encode_all), for dialogues of a data set. `origin` is the start of an error about the
    /// dialogue at a position. Also counts the rows whose messages were changed for the template.
    ///
    /// # Errors
    /// As for [`encode_all`](Self::encode_all).
    pub fn encode_rows(
        &self,
        dialogues: &[&Dialogue],
        origin: impl Fn(usize) -> String,
    ) -> Result<(TokenSet, TurnChanges)> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(rayon::current_num_threads())
            .stack_size(RENDER_STACK)
            .build()
            .map_err(|error| Error::Numeric(format!("cannot start tokenizer threads: {error}")))?;
        // Only the first error is reported, so dialogues behind a failed one need no work.
        let first_failed = AtomicUsize::new(usize::MAX);
        let encoded: Vec<Result<(TokenSequence, TurnChanges), String>> = pool.install(|| {
            dialogues
                .par_iter()
                .enumerate()
                .map(|(position, dialogue)| {
                    if position > first_failed.load(Ordering::Relaxed) {
                        return Err(String::new());
                    }
                    let encoded = panics::catch(|| self.encode_on_this_thread(dialogue)).unwrap_or_else(|| {
                        Err("the chat template or the tokenizer panicked on the dialogue".to_owned())
                    });
                    if encoded.is_err() {
                        first_failed.fetch_min(position, Ordering::Relaxed);
                    }
                    encoded
                })
                .collect()
        });
        let mut sequences = Vec::with_capacity(encoded.len());
        let mut changes = TurnChanges::default();
        for (position, encoded) in encoded.into_iter().enumerate() {
            let (sequence, changed) = encoded.map_err(|what| Error::input(origin(position), what))?;
            sequences.push(sequence);
            changes = changes.plus(changed);
        }
        Ok((TokenSet { sequences }, changes))
    }

    /// The start of an error about row `row` (from 0) of a data set that is not a file: the template is named.
    pub fn unplaced(&self, row: usize) -> String {
        format!("{}: dialogue {}", self.template_origin, row + 1)
    }

    /// The file of the chat template.
    pub fn template_origin(&self) -> &str {
        &self.template_origin
    }

    fn input_error(&self, what: String) -> Error {
        Error::input(self.template_origin.as_str(), what)
    }

    /// [`encode`](Self::encode) on the current thread, which must have a stack of [`RENDER_STACK`] bytes.
    fn encode_on_this_thread(&self, dialogue: &Dialogue) -> Result<(TokenSequence, TurnChanges), String> {
        let renderer = Renderer { template: &self.template, values: &dialogue.template_values };
        let find_layout = |messages: &[ChatMessage]| self.layout(renderer, messages);
        let (rendered, changes) = arrange(renderer, &find_layout, &dialogue.messages)?;
        let Rendered { messages, text, layout } = rendered;
        let layout = layout.as_ref().map(|layout| &**layout).map_err(String::as_str);
        let tokenize = |text: &str| self.token_ends(text);
        let spans = assistant_spans(renderer, &tokenize, layout, &messages, &text, self.mask)?;
        let encoding = self.tokens_of(&text)?;
        let mask = mask(encoding.get_offsets(), &spans);
        if !mask.contains(&true) {
            return Err(match self.mask {
                MaskKind::Assistant => {
                    "the chat template writes nothing for the assistant's messages, so there are no \
                                        tokens to pool"
                }
                MaskKind::Content => {
                    "the chat template writes no content of the assistant's messages, so there are no \
                                      tokens to pool; use --mask assistant"
                }
            }
            .to_owned());
        }
        Ok((TokenSequence { ids: encoding.get_ids().to_vec(), mask }, changes))
    }

    /// The tokens of a rendered text.
    fn tokens_of(&self, text: &str) -> Result<Encoding, String> {
        if let Some(fill) = self.fill_token.as_ref().filter(|fill| text.contains(fill.as_str())) {
            return Err(format!(
                "the text contains {fill}, at which CodeLlamaTokenizer cuts it for infilling; actbench does not implement that"
            ));
        }
        self.bounds.check(text)?;
        // The library panics if a regular expression exceeds its limit of steps.
        panics::catch(|| self.tokenizer.encode(text, false))
            .ok_or("the tokenizer panicked on the text: a regular expression of tokenizer.json exceeds the limit of steps back, or its rules do not fit together")?
            .map_err(|error| format!("cannot be encoded: {error}"))
    }

    fn token_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, String> {
        let encoding = self.tokens_of(text)?;
        let ends = encoding.get_offsets().iter().map(|(_, end)| *end);
        Ok(encoding.get_ids().iter().copied().zip(ends).collect())
    }

    fn layout(&self, renderer: Renderer<'_>, messages: &[ChatMessage]) -> Layout {
        let key = layout_key(renderer, messages);
        let layouts = || self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = layouts().get(&key) {
            return layout.clone();
        }
        let layout = TemplateLayout::find(renderer, &|text| self.token_ends(text), messages).map(Arc::new);
        let mut layouts = layouts();
        if layouts.len() < MAX_LAYOUTS {
            layouts.insert(key, layout.clone());
        }
        layout
    }
}

/// A digest of all that determines the layout of a dialogue: everything but the texts of the contents.
fn layout_key(renderer: Renderer<'_>, messages: &[ChatMessage]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    if !renderer.values.is_empty() {
        part(&Value::Object(renderer.values.clone()).to_string());
    }
    for message in messages {
        part(message.role().name());
        part(&message.keys().len().to_string());
        for (key, value) in message.keys().iter().filter(|_| message.keys().len() != 2 || message.content().is_none()) {
            part(key);
            match (key.as_str(), value) {
                ("content", Value::String(_)) => part(""),
                _ => part(&value.to_string()),
            }
        }
    }
    hasher.finalize()
}

/// Whether each token, given by its byte offsets, overlaps one of `spans` (in order, disjoint, not empty).
fn mask(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<bool> {
    let is_masked = |&(start, end): &(usize, usize)| {
        // If the token overlaps any span, it overlaps the first span that ends after the token's start.
        let span = spans.partition_point(|span| span.end <= start);
        spans.get(span).is_some_and(|span| start.max(span.start) < end.max(start + 1))
    };
    offsets.iter().map(is_masked).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_overlapping_span_is_masked() {
        let offsets = [(0, 2), (2, 4), (4, 4), (4, 6), (6, 6), (6, 9), (9, 12)];
        let one = 3..6;
        assert_eq!(mask(&offsets, std::slice::from_ref(&one)), [false, true, true, true, false, false, false]);
        assert_eq!(mask(&offsets, &[0..1, 8..10]), [true, false, false, false, false, true, true]);
        assert_eq!(mask(&offsets, &[]), [false; 7]);
    }

    proptest! {
        #[test]
        fn mask_equals_brute_force_overlap(
            cuts in prop::collection::vec(0usize..30, 0..8),
            offsets in prop::collection::vec((0usize..30, 0usize..4), 0..20),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.dedup();
            let spans: Vec<Range<usize>> = cuts.chunks_exact(2).map(|cut| cut[0]..cut[1]).collect();
            let offsets: Vec<(usize, usize)> = offsets.into_iter().map(|(start, length)| (start, start + length)).collect();
            let expected: Vec<bool> = offsets
                .iter()
                .map(|(start, end)| (*start..(*end).max(start + 1)).any(|byte| spans.iter().any(|span| span.contains(&byte))))
                .collect();
            prop_assert_eq!(mask(&offsets, &spans), expected);
        }
    }
}
