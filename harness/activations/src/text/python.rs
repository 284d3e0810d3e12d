//! Python's notion of whitespace, which templates and contents are trimmed by.

/// Whether Python's `str.strip` removes the character: Unicode whitespace, and four separators that Unicode does not
/// class as whitespace.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Python's `str.strip` without arguments.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}
