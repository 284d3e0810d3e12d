//! Which texts of a server may become parts of a path or an address.

/// The longest name of a file that common file systems store, in bytes.
const MAX_NAME: usize = 255;

/// The longest path inside a repository, in bytes.
const MAX_PATH: usize = 1024;

/// Whether `id` has the form `owner/name`, of letters, digits, `-`, `_` and `.`.
pub(super) fn is_repo_id(id: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.len() <= 96
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    id.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// Whether `text` is a digest of `length` lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is the hash of a git commit.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40) || is_hex(text, 64)
}

/// Whether `text` is one plain component of a path, as the name of a snapshot's directory must be.
pub(super) fn is_component(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && !matches!(text, "." | "..")
        && !text.contains(['/', '\\', ':'])
        && !text.contains(char::is_control)
}

/// Checks that `name` is the path of a file inside a repository: plain components separated by `/`.
pub(super) fn check_file_name(name: &str) -> Result<(), String> {
    if name.len() <= MAX_PATH && name.split('/').all(is_component) {
        return Ok(());
    }
    Err(format!("the hub lists a file that would lie outside of the repository: {}", shown(name)))
}

/// The value of an ETag without its quotes and the mark of a weak one, as `huggingface_hub` reads it; none if the text has
/// not the form of an ETag or does not fit into a file name.
pub(super) fn etag_value(header: &str) -> Option<&str> {
    let value = header.trim();
    let value = value.strip_prefix("W/").unwrap_or(value);
    let value = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'=' | b':');
    let valid = !value.is_empty() && value.len() <= 200 && !value.starts_with('.') && value.bytes().all(plain);
    valid.then_some(value)
}

/// A server's text for a message: one line of limited length, without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

/// The path of an address: all bytes but the unreserved ones of RFC 3986 and the separators are percent-encoded.
pub(super) fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
