//! The digests by which the hub names files: SHA-256 of large files, and git's hash of the others.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{interrupt, names};

/// The digest that an ETag or the name of a blob announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// SHA-256 of the bytes: the hub's name of large files.
    Sha256(String),
    /// Git's hash of a blob: SHA-1 of `blob SIZE`, a zero byte and the bytes.
    Git(String),
}

impl Announced {
    /// The digest in `text`; none if it has the form of neither.
    pub(super) fn parse(text: &str) -> Option<Announced> {
        if names::is_hex(text, 64) {
            Some(Announced::Sha256(text.to_owned()))
        } else if names::is_hex(text, 40) {
            Some(Announced::Git(text.to_owned()))
        } else {
            None
        }
    }

    /// Whether the file has this digest. A digest of 40 digits may also be SHA-1 of the bytes alone, which mirrors announce.
    pub(super) fn matches(&self, path: &Path) -> io::Result<bool> {
        match self {
            Announced::Sha256(digest) => Ok(sha256(path)? == *digest),
            Announced::Git(digest) => {
                let mut git = Sha1::new();
                git.update(format!("blob {}\0", path.metadata()?.len()));
                let mut plain = Sha1::new();
                each_block(path, |block| {
                    git.update(block);
                    plain.update(block);
                })?;
                Ok(hex(&git.finalize()) == *digest || hex(&plain.finalize()) == *digest)
            }
        }
    }
}

/// SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    each_block(path, |block| hasher.update(block))?;
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of a text, in hexadecimal digits.
pub(super) fn sha256_of(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn each_block(path: &Path, mut add: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        if interrupt::requested() {
            return Err(io::Error::other("interrupted"));
        }
        match file.read(&mut block)? {
            0 => return Ok(()),
            n => add(&block[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
