//! The inputs of both tasks: the samples, split and tokenized, and the opened and checked files of the model.

use std::path::Path;
use std::sync::Arc;

use super::identity::data_digest;
use crate::case::RunConfig;
use crate::error::{Error, Result};
use actbench_activations::data::{self, DataSplit, Dataset, Dialogue};
use actbench_activations::model::open::OpenModel;
use actbench_activations::text::{MaskKind, TurnChanges};
use actbench_activations::tokens::{JoinedTokens, TokenSequence, TokenSet};

/// One side of the split.
#[derive(Clone, Debug, Default)]
pub struct LabeledTokens {
    /// One sequence per sample.
    pub tokens: Arc<TokenSet>,
    /// One label per sample, 0 or 1.
    pub labels: Vec<u8>,
    /// Index of each sample's row in the data set as it was read, from 0.
    pub rows: Vec<usize>,
}

/// Everything a case needs except the loaded weights.
pub struct Prepared {
    /// The model's files.
    pub model: OpenModel,
    /// Samples for training the probe.
    pub train: LabeledTokens,
    /// Samples for scoring the probe.
    pub test: LabeledTokens,
    /// Warnings for the user, such as fewer samples than requested.
    pub warnings: Vec<String>,
}

impl Prepared {
    /// The tokens of the training samples, then those of the test samples.
    pub fn all_tokens(&self) -> JoinedTokens {
        [self.train.tokens.clone(), self.test.tokens.clone()].into()
    }
}

/// Inputs of which at most a bounded number of rows was tokenized, for predictions in constant time.
pub struct SampledInputs {
    /// The inputs; their warnings are those of the whole run.
    pub inputs: Prepared,
    /// The rows that a run would use.
    pub rows: usize,
    /// The rows that stand for them, drawn as a run of that many samples draws them.
    pub counted: usize,
    /// About how many bytes the text and the tokens of a row take.
    pub bytes_per_row: f64,
}

impl SampledInputs {
    /// The number of rows that each counted row stands for; 1 if all were counted.
    pub fn scale(&self) -> f64 {
        self.rows as f64 / self.counted.max(1) as f64
    }

    /// `8,192 of 1,000,000 samples were counted ...`; none if all were.
    pub fn note(&self) -> Option<String> {
        let count = |rows: usize| indicatif::HumanCount(rows as u64).to_string();
        (self.counted < self.rows).then(|| {
            format!(
                "{} of {} samples were counted, and their counts scaled up; the longest sequence and the shared prefixes of all \
                 may be longer",
                count(self.counted),
                count(self.rows)
            )
        })
    }
}

/// Bytes of a token of the data: id, mask, and the overhead of sequences.
pub const TOKEN_BYTES: usize = 8;
/// Up to this number of samples a prediction counts all of them.
const ALWAYS_COUNTED: usize = 2048;
/// The largest number of samples that a prediction counts.
const MAX_COUNTED: usize = 8192;
/// Above [`ALWAYS_COUNTED`] samples, a prediction counts at most about this number of tokens: half a second of work.
const MAX_COUNTED_TOKENS: usize = 1 << 18;
/// Rows from whose tokens the number of counted samples is derived: a twentieth of the work of counting.
const PILOT_ROWS: usize = 256;

/// A request for the inputs of a run.
#[derive(Clone, Copy, Debug)]
pub struct InputRequest<'a> {
    /// Model name; none is the embedded one.
    pub model: Option<&'a str>,
    /// The directory of the adapter that is merged into the model.
    pub adapter: Option<&'a Path>,
    /// Data set name; none is the embedded one.
    pub dataset: Option<&'a str>,
    /// The directory of local copies of registered data sets.
    pub data_dir: Option<&'a Path>,
    /// The tokens to pool.
    pub mask: MaskKind,
    /// Number of samples to use.
    pub samples: usize,
    /// Fraction of the samples used for training.
    pub train_frac: f64,
    /// Seed of the sample selection and of the split.
    pub seed: u64,
    /// Show no progress if a model has to be downloaded or imported first.
    pub quiet: bool,
}

/// The request for the inputs of `config`.
pub fn request(config: &RunConfig, quiet: bool) -> InputRequest<'_> {
    InputRequest {
        model: config.model.as_deref(),
        adapter: config.adapter.as_deref(),
        dataset: config.dataset.as_deref(),
        data_dir: config.data_dir.as_deref(),
        mask: config.mask,
        samples: config.samples,
        train_frac: config.train_frac,
        seed: config.seed,
        quiet,
    }
}

/// Opens the model, loads and splits the data, and tokenizes both sides.
///
/// # Errors
/// Invalid model files, data or chat template, or more samples of a generated data set than it has.
pub fn prepare(request: InputRequest<'_>) -> Result<Prepared> {
    InputSource::open_whole(&request)?.prepared(&request)
}

/// As [`prepare`], and also returns the digest of the data set. It is computed once for a run and not in its cases.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with_digest(request: InputRequest<'_>) -> Result<(Prepared, String)> {
    let source = InputSource::open_whole(&request)?;
    let digest = data_digest(&source.dataset);
    Ok((source.prepared(&request)?, digest))
}

/// As [`prepare`], but with at most a bounded number of rows, so that the time does not depend on `--samples`.
///
/// # Errors
/// Invalid model files, data or chat template.
pub fn prepare_sampled(request: InputRequest<'_>) -> Result<SampledInputs> {
    let name = request.dataset.unwrap_or(data::EMBEDDED);
    let source = InputSource::open(&request, request.samples.min(MAX_COUNTED))?;
    let rows = request.samples.min(data::generated_rows(name).unwrap_or(source.dataset.dialogues.len()));
    // The allocator counts bytes in one place for all threads. Tokenizing allocates so often that two threads took 0.89 s for
    // what one did in 0.69 s, medians of five.
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| Error::Numeric(format!("the thread that counts samples cannot be started: {error}")))?;
    let sides = one_thread.install(|| source.sides(&request, source.counted_rows(&request, rows)?))?;
    let Sides { train, test, split, warnings } = sides;
    let counted = split.taken;
    let of_run = DataSplit { requested: request.samples, taken: rows, ..split };
    let refused = data::generated_rows(name).filter(|rows| request.samples > *rows);
    let warning = match refused {
        Some(rows) => Some(format!(
            "`run` refuses {} samples: the generator of the data set '{name}' has {rows} rows, which are predicted instead",
            request.samples
        )),
        None => of_run.shortfall(),
    };
    let warnings = warning.into_iter().chain(warnings).collect();
    let token_bytes = (train.tokens.n_tokens() + test.tokens.n_tokens()) * TOKEN_BYTES;
    let per_row = |bytes: usize, rows: usize| bytes as f64 / rows.max(1) as f64;
    let bytes_per_row = per_row(source.text_bytes(), source.dataset.dialogues.len()) + per_row(token_bytes, counted);
    let inputs = Prepared { warnings, model: source.model, train, test };
    Ok(SampledInputs { inputs, rows, counted, bytes_per_row })
}

/// Both tokenized sides of a split.
struct Sides {
    train: LabeledTokens,
    test: LabeledTokens,
    split: DataSplit,
    /// What the user should know of the rows, for people.
    warnings: Vec<String>,
}

/// An opened model and a data set, from which inputs are drawn.
struct InputSource {
    model: OpenModel,
    dataset: Dataset,
    labels: Vec<bool>,
}

impl InputSource {
    /// Opens the model and loads the data set, of a generated one `rows` rows.
    fn open(request: &InputRequest<'_>, rows: usize) -> Result<Self> {
        let model = OpenModel::open_with_adapter(request.model, request.adapter, request.mask, request.quiet)?;
        let dataset = data::load(request.dataset.unwrap_or(data::EMBEDDED), request.data_dir, rows)?;
        let labels = dataset.labels();
        Ok(InputSource { model, dataset, labels })
    }

    /// As [`Self::open`], with all rows that the request asks for.
    fn open_whole(request: &InputRequest<'_>) -> Result<Self> {
        let name = request.dataset.unwrap_or(data::EMBEDDED);
        if let Some(rows) = data::generated_rows(name).filter(|rows| request.samples > *rows) {
            return Err(Error::usage(format!(
                "--samples {} is more than the {rows} rows that the generator of the data set '{name}' has; use fewer",
                request.samples
            )));
        }
        Self::open(request, request.samples)
    }

    /// The inputs of a case.
    fn prepared(self, request: &InputRequest<'_>) -> Result<Prepared> {
        let Sides { train, test, split, warnings } = self.sides(request, request.samples)?;
        let warnings = split.shortfall().into_iter().chain(warnings).collect();
        Ok(Prepared { warnings, model: self.model, train, test })
    }

    /// Whether all rows of the data set were loaded: a generator makes as many as it is asked for.
    fn is_whole(&self) -> bool {
        data::generated_rows(&self.dataset.name).is_none()
    }

    /// About how many bytes the loaded dialogues take.
    fn text_bytes(&self) -> usize {
        let messages = self.dataset.dialogues.iter().flat_map(|dialogue| &dialogue.messages);
        messages.map(|message| size_of_val(message) + message.content().map_or(0, str::len)).sum()
    }

    /// The number of samples to count in place of `rows`: all if they are few, otherwise as many as have about
    /// [`MAX_COUNTED_TOKENS`].
    fn counted_rows(&self, request: &InputRequest<'_>, rows: usize) -> Result<usize> {
        if rows <= ALWAYS_COUNTED {
            return Ok(rows);
        }
        // Rows that a smaller sample has are also in a larger one, so each row of the pilot is one of the run.
        let split = data::stratified_sample_and_split(
            &self.labels,
            ALWAYS_COUNTED,
            request.train_frac,
            request.seed,
            self.is_whole(),
        )?;
        let pilot = &split.train[..split.train.len().min(PILOT_ROWS)];
        let tokens = self.encode(pilot)?.0.n_tokens();
        let affordable = MAX_COUNTED_TOKENS.saturating_mul(pilot.len()) / tokens.max(1);
        Ok(affordable.clamp(ALWAYS_COUNTED, MAX_COUNTED).min(rows))
    }

    /// Tokenizes `rows` of the data set.
    fn encode(&self, rows: &[usize]) -> Result<(TokenSet, TurnChanges)> {
        let dialogues: Vec<&Dialogue> = rows.iter().map(|row| &self.dataset.dialogues[*row]).collect();
        let tokenizer = &self.model.tokenizer;
        let origin = |position: usize| {
            let row = rows[position];
            self.dataset.place(row).unwrap_or_else(|| tokenizer.unplaced(row))
        };
        // An error about a row of a file starts with the file and not with the template, either of which can be the cause.
        let template = match self.dataset.place(0) {
            Some(_) => format!(" ({})", tokenizer.template_origin()),
            None => String::new(),
        };
        tokenizer
            .encode_rows(&dialogues, origin)
            .map_err(|error| error.advise(&format!("change that row of the data set, or the chat template{template}")))
    }

    /// Draws `samples` rows, splits them and tokenizes both sides.
    fn sides(&self, request: &InputRequest<'_>, samples: usize) -> Result<Sides> {
        let split = data::stratified_sample_and_split(
            &self.labels,
            samples,
            request.train_frac,
            request.seed,
            self.is_whole(),
        )?;
        let side = |rows: &[usize]| -> Result<(LabeledTokens, TurnChanges)> {
            let (tokens, changes) = self.encode(rows)?;
            check_vocabulary(&tokens, &self.model)?;
            let labels = rows.iter().map(|row| u8::from(self.labels[*row])).collect();
            Ok((LabeledTokens { tokens: Arc::new(tokens), labels, rows: rows.to_vec() }, changes))
        };
        let ((train, train_changes), (test, test_changes)) = (side(&split.train)?, side(&split.test)?);
        self.check_lengths(&split, [&train, &test])?;
        let n_rows = split.train.len() + split.test.len();
        let changes = train_changes.plus(test_changes).notes(n_rows);
        let warnings =
            changes.into_iter().chain(self.model.tokenizer.date_note()).chain(self.shared_rows(&split)).collect();
        Ok(Sides { train, test, split, warnings })
    }

    /// Refuses rows that the model cannot compute, and warns of rows beyond its context length.
    fn check_lengths(&self, split: &DataSplit, sides: [&LabeledTokens; 2]) -> Result<()> {
        let tokens = sides.into_iter().flat_map(|side| side.tokens.sequences.iter().map(TokenSequence::len));
        let lengths = split.train.iter().chain(&split.test).copied().zip(tokens);
        if let Some((row, tokens)) = lengths.clone().max_by_key(|(_, tokens)| *tokens) {
            let place = || {
                let unplaced = || format!("{} dialogue {}", self.dataset.origin, row + 1);
                self.dataset.place(row).unwrap_or_else(unplaced)
            };
            let refuse = |what: String| Error::input(place(), format!("{what}; shorten the text"));
            self.model.spec.check_row_length(tokens).map_err(refuse)?;
        }
        if let Some(warning) = self.model.context.warning(lengths) {
            tracing::warn!("{}: {warning}", self.model.location);
        }
        Ok(())
    }

    /// Warnings of dialogues that are on both sides of the split.
    fn shared_rows(&self, split: &DataSplit) -> Vec<String> {
        let shared = data::rows_on_both_sides(&self.dataset.dialogues, split);
        let of = |rows: usize| {
            let n_test = split.test.len();
            format!("{}: {rows} of {n_test} test rows have a dialogue that is also a training row", self.dataset.origin)
        };
        let mut warnings = Vec::new();
        if shared.same_label > 0 {
            warnings.push(format!("{}, so the AUROC is too high; remove duplicate rows", of(shared.same_label)));
        }
        if shared.other_label > 0 {
            warnings.push(format!(
                "{} with the other label, so the AUROC is too low; remove duplicate rows, or correct their labels",
                of(shared.other_label)
            ));
        }
        warnings
    }
}

/// Detects a tokenizer of another model before any weight is read.
fn check_vocabulary(tokens: &TokenSet, model: &OpenModel) -> Result<()> {
    let vocab_size = model.spec.vocab_size;
    let largest = tokens.sequences.iter().flat_map(|sequence| &sequence.ids).max();
    match largest {
        Some(token) if *token as usize >= vocab_size => Err(Error::input(
            model.location.to_string(),
            format!(
                "tokenizer.json gives token {token}, but config.json has a vocabulary of {vocab_size}: they belong to \
                 different models; use the model's own tokenizer"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::small_config;

    fn config(samples: usize, dataset: &str) -> RunConfig {
        RunConfig { samples, dataset: Some(dataset.to_owned()), ..small_config() }
    }

    #[test]
    fn few_samples_are_all_counted() {
        let config = config(300, "embedded");
        let sample = prepare_sampled(request(&config, true)).unwrap();
        let all = prepare(request(&config, true)).unwrap();
        assert_eq!((sample.rows, sample.counted, sample.scale(), sample.note()), (300, 300, 1.0, None));
        assert_eq!(sample.inputs.train.tokens.sequences, all.train.tokens.sequences);
        assert_eq!(sample.inputs.test.labels, all.test.labels);
    }

    #[test]
    fn many_samples_are_counted_in_part() {
        let request_of = |samples| config(samples, "embedded:long");
        let tokens_per_row = |sample: &SampledInputs| {
            let tokens = &sample.inputs.train.tokens;
            tokens.n_tokens() as f64 / tokens.len() as f64
        };
        let sample = prepare_sampled(request(&request_of(usize::MAX), true)).unwrap();
        assert_eq!(sample.counted, ALWAYS_COUNTED);
        assert!(sample.rows > 2_000_000 && sample.note().unwrap().starts_with("2,048 of 2,"), "{:?}", sample.note());
        let warning = &sample.inputs.warnings[0];
        assert!(warning.starts_with("`run` refuses 18446744073709551615 samples"), "{warning}");
        let short = prepare_sampled(request(&config(1_000_000_000, "embedded"), true)).unwrap().inputs;
        let tokens = (short.train.tokens.n_tokens() + short.test.tokens.n_tokens()) as f64;
        assert!((tokens / MAX_COUNTED_TOKENS as f64 - 1.0).abs() < 0.2, "{tokens}");
        let few = prepare_sampled(request(&request_of(500), true)).unwrap();
        assert!((tokens_per_row(&sample) / tokens_per_row(&few) - 1.0).abs() < 0.05);
    }

    /// Half of rows with these answers and labels is the training side.
    fn prepare_rows(rows: &[(String, u8)]) -> Result<Prepared> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.jsonl");
        let line = |(text, label): &(String, u8)| {
            format!("{{\"messages\": [{{\"role\": \"assistant\", \"content\": \"{text}\"}}], \"label\": {label}}}\n")
        };
        std::fs::write(&path, rows.iter().map(line).collect::<String>()).unwrap();
        let config = RunConfig { train_frac: 0.5, ..config(rows.len(), path.to_str().unwrap()) };
        prepare(request(&config, true))
    }

    #[test]
    fn duplicates_with_other_labels_lower_the_auroc() {
        let warnings = |rows: &[(String, u8)]| prepare_rows(rows).unwrap().warnings.join("\n");
        // Each side has both labels, so every test row has a training row with its label.
        let same = warnings(&[0, 0, 1, 1].map(|label| ("a".to_owned(), label)));
        assert!(same.contains("2 of 2 test rows") && same.contains("so the AUROC is too high"), "{same}");
        assert!(!same.contains("too low"), "{same}");
        let pairs: Vec<(String, u8)> = (0..40).map(|row| (format!("answer {}", row / 2), (row % 2) as u8)).collect();
        let other = warnings(&pairs);
        assert!(other.contains("with the other label, so the AUROC is too low"), "{other}");
        assert!(!other.contains("too high"), "{other}");
    }

    #[test]
    fn refused_row_is_named_by_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.jsonl");
        let user = "{\"role\": \"user\", \"content\": \"q\"}";
        let answer = "{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": []}";
        let row = |label: usize| format!("{{\"messages\": [{user}, {answer}], \"label\": {label}}}\n");
        std::fs::write(&path, (0..8).map(|index| row(index % 2)).collect::<String>()).unwrap();
        let config = RunConfig { mask: MaskKind::Content, ..config(8, path.to_str().unwrap()) };
        let error = prepare(request(&config, true)).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{}:", path.display())), "{error}");
        assert!(error.contains("or the chat template ("), "{error}");
    }

    #[test]
    fn more_samples_than_the_generator_has_are_refused() {
        let error = prepare(request(&config(3_000_000, "embedded:mixed"), true)).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("the generator of the data set 'embedded:mixed' has"), "{error}");
    }
}
