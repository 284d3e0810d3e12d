//! The files of a fuzz process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use actbench_activations::panics;
use actbench_fixtures::tokenizer::{TOKENIZER_CONFIG_JSON, TOKENIZER_JSON};

/// Separates the files of an input that has several.
const SEPARATOR: &[u8] = b"\n=====\n";

/// The directory of the process.
pub struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    /// The one directory; it is created at the first call, which also prepares the process.
    pub fn get() -> &'static Scratch {
        static SCRATCH: OnceLock<Scratch> = OnceLock::new();
        SCRATCH.get_or_init(|| {
            ignore_caught_panics();
            let directory = std::env::temp_dir().join(format!("actbench-fuzz-{}", std::process::id()));
            fs::create_dir_all(&directory).expect("the temporary directory is writable");
            Scratch { directory }
        })
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file in the directory and returns its path.
    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the temporary directory is writable");
        path
    }

    /// A directory without files in it.
    pub fn empty_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        path
    }

    /// A directory with a model of one block of hidden size 16: configuration, tokenizer and weights. Files that are
    /// there are kept.
    pub fn small_model(&self, name: &str) -> PathBuf {
        let directory = self.path(name);
        let files: [(&str, &[u8]); 4] = [
            ("config.json", include_bytes!("small_model/config.json")),
            ("model.safetensors", include_bytes!("small_model/model.safetensors")),
            ("tokenizer.json", TOKENIZER_JSON.as_bytes()),
            ("tokenizer_config.json", TOKENIZER_CONFIG_JSON.as_bytes()),
        ];
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        for (file, content) in files {
            if !Path::new(&directory).join(file).exists() {
                self.write(&format!("{name}/{file}"), content);
            }
        }
        directory
    }
}

/// Ends the process at a panic, as the fuzzer does, but not at one of a library that actbench turns into an error. A panic
/// in actbench's own code is a finding even where it is caught.
fn ignore_caught_panics() {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_of_library = panic.location().is_some_and(|location| location.file().contains("/registry/"));
        if !(is_of_library && panics::is_caught()) {
            end(panic);
        }
    }));
}

/// The sections of `data` between separators.
pub fn sections(data: &[u8]) -> Vec<&[u8]> {
    let mut rest = data;
    let mut found = Vec::new();
    while let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        found.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    found.push(rest);
    found
}
