//! Git LFS pointers: the small text files that a clone without Git LFS leaves in place of large files.
//!
//! Format: <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.

use std::path::Path;

use crate::error::{Error, Result};

/// The first bytes of every pointer; the specification demands that `version` is the first line.
const VERSION_LINES: [&[u8]; 2] =
    [b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"];

/// Whether a file is a Git LFS pointer, given its first bytes (64 suffice) or all of them.
pub(crate) fn is_pointer(head: &[u8]) -> bool {
    VERSION_LINES.iter().any(|line| head.starts_with(line))
}

/// Rejects a Git LFS pointer. `head` is the file's first 64 bytes or more; `path` is for the message.
///
/// # Errors
/// `<path>: is a Git LFS pointer, not the file: run `git lfs pull` in its directory`, as bad input.
pub(crate) fn reject_pointer(path: &Path, head: &[u8]) -> Result<()> {
    if is_pointer(head) {
        return Err(Error::file(path, "is a Git LFS pointer, not the file: run `git lfs pull` in its directory"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_is_rejected_with_the_remedy() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17\n";
        insta::assert_snapshot!(reject_pointer(Path::new("m/tokenizer.json"), pointer).unwrap_err(), @"m/tokenizer.json: is a Git LFS pointer, not the file: run `git lfs pull` in its directory");
        for other in [b"".as_slice(), b"version", b"{\"version\": \"1.0\"}", b"\x80\x00\x00\x00\x00\x00\x00\x00{"] {
            reject_pointer(Path::new("m/tokenizer.json"), other).unwrap();
        }
    }
}
