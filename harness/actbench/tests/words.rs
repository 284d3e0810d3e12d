//! Retired words stay out of help, messages and documents, and the spelling is American.
//!
//! The code paraphrased terms of the field once ("products" for GEMM, "gone on with" for resumed). Each entry below has the
//! standard term that replaced it; `docs/glossary.md` explains the terms that the project does use.
#![allow(clippy::unwrap_used, clippy::panic)] // Test helpers may panic like tests.

mod sources;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sources::lexer::{TokenKind, tokens, without_tests};
use sources::{assert_none, files_below, root, rust_files};

/// Retired phrases, and what to write in their place. A phrase matches whole words, in any case.
const RETIRED: [(&str, &str); 62] = [
    ("gone on with", "resumed"),
    ("goes on with", "resumes"),
    ("go on with", "resume"),
    ("going on with", "resuming"),
    ("come through", "complete, succeed"),
    ("comes through", "completes, succeeds"),
    ("came through", "completed, succeeded"),
    ("told", "printed, reported"),
    ("said plainly", "(leave it out)"),
    ("say so", "report it"),
    ("says so", "reports it"),
    ("said so", "reported it"),
    ("tell apart", "distinguish"),
    ("anew", "again"),
    ("hungrier", "uses more memory"),
    ("stand-in", "fake, stub"),
    ("stand-ins", "fakes, stubs"),
    ("stand in for", "replace"),
    ("planted", "mutant, injected"),
    ("control group", "cgroup"),
    ("beside", "next to, compared with, in addition to"),
    ("one truth", "bit-identical features"),
    ("folder", "directory"),
    ("folders", "directories"),
    ("give back", "release, return"),
    ("gives back", "releases, returns"),
    ("gave back", "released, returned"),
    ("given back", "released, returned"),
    ("let go", "release, free"),
    ("lets go", "releases, frees"),
    ("whomever", "(name the actor)"),
    ("whoever", "(name the actor)"),
    ("nobody", "(name the actor)"),
    ("made up", "synthetic, random"),
    ("made-up", "synthetic, random"),
    ("dealt to", "distributed to"),
    ("ballast", "injected allocation"),
    ("astronomical", "at most N"),
    ("mend it", "fix it"),
    ("under way", "in flight, pending"),
    ("dearer", "slower, more expensive"),
    ("witness", "cross-check"),
    ("second witness", "cross-check"),
    ("hold the truth", "cover"),
    ("holds the truth", "covers"),
    ("held the truth", "covered"),
    ("act out", "inject"),
    ("acted out", "injected"),
    ("acts out", "injects"),
    ("hand out", "emit"),
    ("hands out", "emits"),
    ("handed out", "emitted"),
    ("in turns", "interleaved"),
    ("without a word", "silently"),
    ("the assembler's words", "ptxas output"),
    ("room for", "space for"),
    ("the chance", "the probability, the p-value"),
    ("a chance of", "a probability of"),
    ("no more than they do", "(name the figures)"),
    ("done by hand", "manual"),
    ("what else", "(name it)"),
    ("of which there are", "(start a new sentence)"),
];

/// Words after "is no" and "are no" that make no negated noun: "is no longer", "is no more than".
const AFTER_NO: [&str; 7] = ["longer", "more", "less", "fewer", "better", "worse", "different"];

/// Retired phrases that stay where they are, with the reason: (the file or `help`, the phrase, a part of the text, why).
const ALLOWED: [(&str, &str, &str, &str); 4] = [
    (
        "fixtures/src/dialogues/",
        "what else",
        "",
        "text of the generated dialogues, which digests of features depend on",
    ),
    ("harness/actbench/src/case/spec.rs", "folder", "cache_folder", "a key of the worker's protocol"),
    ("docs/devices.md", "folder", "build_gpu_folder.sh", "the name of a script"),
    ("CHANGELOG.md", "folder", "build_gpu_folder.sh", "the name of a script"),
];

/// British spellings in names that files and stored results depend on.
const ALLOWED_SPELLING: [(&str, &str); 2] = [
    // A key of the self-test's report.
    ("harness/pairgate/src/selftest/trials.rs", "realised"),
    // The id of a benchmark, which stored baselines refer to.
    ("benches/benches/transforms.rs", "optimise"),
];

/// Stems whose British forms end in `ise`, `ised`, `ising`, `isation` and the like.
const IZE_STEMS: [&str; 40] = [
    "apolog",
    "author",
    "capital",
    "categor",
    "central",
    "character",
    "custom",
    "emphas",
    "equal",
    "final",
    "general",
    "initial",
    "local",
    "material",
    "maxim",
    "memor",
    "minim",
    "modern",
    "normal",
    "optim",
    "organ",
    "parallel",
    "penal",
    "prior",
    "quant",
    "random",
    "real",
    "recogn",
    "regular",
    "serial",
    "special",
    "stabil",
    "standard",
    "summar",
    "symbol",
    "synchron",
    "token",
    "util",
    "vector",
    "visual",
];

const ISE_ENDINGS: [&str; 9] = ["ise", "ised", "iser", "isers", "ises", "ising", "isation", "isations", "isable"];

/// Other British words, as beginnings, with the American word.
const BRITISH: [(&str, &str); 18] = [
    ("colour", "color"),
    ("behaviour", "behavior"),
    ("favour", "favor"),
    ("neighbour", "neighbor"),
    ("honour", "honor"),
    ("labour", "labor"),
    ("licence", "license"),
    ("centre", "center"),
    ("centring", "centering"),
    ("analyse", "analyze"),
    ("analysing", "analyzing"),
    ("artefact", "artifact"),
    ("catalogue", "catalog"),
    ("grey", "gray"),
    ("labelled", "labeled"),
    ("labelling", "labeling"),
    ("modelled", "modeled"),
    ("modelling", "modeling"),
];

/// Subcommands whose help is read; the list in the help itself is checked against this one.
const COMMANDS: [&str; 20] = [
    "run",
    "plan",
    "explain",
    "profile",
    "recommend",
    "report",
    "gate",
    "selftest",
    "compare",
    "history",
    "check",
    "env",
    "cache",
    "features",
    "import",
    "models",
    "datasets",
    "completions",
    "matrix",
    "merge",
];

/// The words of `text` in lower case: letters, digits, apostrophes and hyphens within a word.
fn words(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '\'' || c == '-';
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_matches(['-', '\'']).to_lowercase());
    words.filter(|word| !word.is_empty()).collect()
}

/// Every retired phrase in `text`, with what to write in its place.
fn retired_phrases(text: &str) -> Vec<(String, &'static str)> {
    let words = words(text);
    let mut found = Vec::new();
    for (phrase, instead) in RETIRED {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        if words.windows(wanted.len()).any(|window| window == wanted) {
            found.push((phrase.to_owned(), instead));
        }
    }
    for (index, window) in words.windows(3).enumerate() {
        let [verb, no, noun] = window else { continue };
        let is_negated = ["is", "are"].contains(&verb.as_str()) && no == "no" && !AFTER_NO.contains(&noun.as_str());
        let is_existence = index > 0 && words[index - 1] == "there";
        if is_negated && !is_existence {
            found.push((format!("{verb} no {noun}"), "is not a ..., are not ..."));
        }
    }
    found
}

/// Every British spelling among the words and parts of identifiers of `text`.
fn british_words(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_alphabetic()).flat_map(camel_parts) {
        let word = word.to_lowercase();
        let is_ise = ISE_ENDINGS.iter().any(|ending| word.strip_suffix(ending).is_some_and(is_ize_stem));
        let is_listed = BRITISH.iter().any(|(british, _)| word.starts_with(british));
        if (is_ise || is_listed) && !found.contains(&word) {
            found.push(word);
        }
    }
    found
}

/// Whether `stem` is one of [`IZE_STEMS`], perhaps behind a prefix such as in `deserialise`.
fn is_ize_stem(stem: &str) -> bool {
    let prefixes = ["", "de", "re", "un"];
    prefixes.iter().any(|prefix| stem.strip_prefix(prefix).is_some_and(|rest| IZE_STEMS.contains(&rest)))
}

/// `LabeledTokens` as `Labelled` and `Tokens`.
fn camel_parts(word: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut was_upper = true;
    for letter in word.chars() {
        if parts.is_empty() || (letter.is_uppercase() && !was_upper) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
        was_upper = letter.is_uppercase();
    }
    parts
}

/// What is wrong with `text`, a line each, which is found at `place`.
fn complaints(place: &str, text: &str) -> Vec<String> {
    let is_allowed = |phrase: &str| {
        ALLOWED.iter().any(|(where_it_stays, allowed, part, _)| {
            place.starts_with(where_it_stays) && *allowed == phrase && text.contains(part)
        })
    };
    let retired = retired_phrases(text).into_iter().filter(|(phrase, _)| !is_allowed(phrase));
    let mut found: Vec<String> =
        retired.map(|(phrase, instead)| format!("{place}: '{phrase}', write: {instead}")).collect();
    found.extend(british_in(place, text).iter().map(|word| format!("{place}: '{word}' is a British spelling")));
    found
}

/// The British words of `text`, which is found at `place`, without those that stay.
fn british_in(place: &str, text: &str) -> Vec<String> {
    let stays = |word: &String| ALLOWED_SPELLING.iter().any(|(file, known)| place.starts_with(file) && known == word);
    british_words(text).into_iter().filter(|word| !stays(word)).collect()
}

fn help_of(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_actbench")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_has_no_retired_words() {
    let mut offenders = complaints("help", &help_of(&["--help"]));
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            offenders.extend(complaints(&format!("help of {command} {flag}"), &help_of(&[command, flag])));
        }
    }
    assert_none(&offenders, "help uses standard terms");
}

#[test]
fn help_of_every_command_is_read() {
    let completions = help_of(&["completions", "fish"]);
    let lines = completions.lines().filter(|line| line.contains("needs_command"));
    let commands: Vec<&str> = lines.filter_map(|line| line.split(" -a \"").nth(1)?.split('"').next()).collect();
    let missing: Vec<String> =
        commands.iter().filter(|it| **it != "help" && !COMMANDS.contains(it)).map(|it| (*it).to_owned()).collect();
    assert!(commands.len() >= COMMANDS.len(), "{commands:?}");
    assert_none(&missing, "COMMANDS names every subcommand");
}

#[test]
fn string_literals_have_no_retired_words() {
    let mut offenders = Vec::new();
    let mut n_literals = 0;
    for file in rust_files().iter().filter(|file| file.name.contains("/src/") && !file.name.contains("tests")) {
        let (code, _) = without_tests(&tokens(&file.text));
        for literal in code.iter().filter(|token| token.kind == TokenKind::Text) {
            n_literals += 1;
            let text = literal.text.replace("\\n", "\n");
            offenders.extend(complaints(&format!("{}:{}", file.name, literal.line), &text));
        }
    }
    assert!(n_literals > 1000, "only {n_literals} literals were read");
    assert_none(&offenders, "messages use standard terms");
}

/// The paragraphs of a document with their first lines: a phrase may go over the end of a line.
fn paragraphs(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        match found.last_mut().filter(|_| is_open) {
            Some((_, paragraph)) => *paragraph += &format!(" {line}"),
            None => found.push((index + 1, line.to_owned())),
        }
        is_open = !line.trim().is_empty();
    }
    found
}

/// The documents that people read, generated reports included.
fn documents() -> Vec<PathBuf> {
    let names = ["README.md", "ARCHITECTURE.md", "METHODOLOGY.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut found: Vec<PathBuf> = names.iter().map(|name| root().join(name)).filter(|path| path.exists()).collect();
    found.extend(files_below(&root().join("docs"), &["md"]));
    assert!(found.len() > 8, "only {} documents were found", found.len());
    found
}

#[test]
fn documents_have_no_retired_words() {
    let mut offenders = Vec::new();
    for path in documents() {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        for (line, paragraph) in paragraphs(&text) {
            offenders.extend(complaints(&format!("{name}:{line}"), &paragraph));
        }
    }
    assert_none(&offenders, "documents use standard terms");
}

#[test]
fn sources_use_american_spelling() {
    let mut offenders = Vec::new();
    // This file lists the British words.
    for file in rust_files().iter().filter(|file| !file.name.ends_with("tests/words.rs")) {
        for (index, line) in file.text.lines().enumerate() {
            offenders
                .extend(british_in(&file.name, line).iter().map(|word| format!("{}:{}: {word}", file.name, index + 1)));
        }
    }
    assert_none(&offenders, "identifiers and comments use American spelling");
}

// What follows shows that the checks above fail when they should, and only then.

#[test]
fn retired_phrase_is_found_in_any_form() {
    for text in [
        "cannot be gone on with: x",
        "Eager never came\n  through (oom)",
        "make a Folder of it",
        "is no whole result file",
        "those are no tensors",
        "a stand-in for the driver",
    ] {
        assert!(!complaints("here", text).is_empty(), "{text}");
    }
}

#[test]
fn phrase_across_lines_of_a_document_is_found() {
    let found = paragraphs("# Title\n\nAn interrupted write is gone\non with.\n\nEnd.");
    assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 6]);
    assert_eq!(complaints("here", &found[1].1).len(), 1, "{found:?}");
}

#[test]
fn plain_sentence_is_accepted() {
    for text in [
        "there is no GPU",
        "the value is no longer needed",
        "it is no more than 5 %",
        "stand-alone besides foldered retold plants",
        "an optimistic promise, otherwise a precise exercise; materialism",
        "colorless license centered labeled optimize",
    ] {
        assert_eq!(complaints("here", text), [""; 0], "{text}");
    }
}

#[test]
fn british_spelling_is_found_in_identifiers() {
    for text in ["fn optimise()", "LabelledTokens", "deserialised", "MAX_COLOURS", "materialisation", "standardiser"] {
        assert_eq!(british_words(text).len(), 1, "{text}");
    }
}
