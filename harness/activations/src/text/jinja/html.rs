//! HTML escapes as MarkupSafe writes them.

/// The escape of a character.
fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&#34;",
        '\'' => "&#39;",
        _ => return None,
    })
}

/// The length of [`escaped`] in bytes.
pub(super) fn escaped_length(text: &str) -> usize {
    text.chars().map(|character| escape(character).map_or(character.len_utf8(), str::len)).sum()
}

/// The text with HTML escapes.
pub(super) fn escaped(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for character in text.chars() {
        match escape(character) {
            Some(escape) => output.push_str(escape),
            None => output.push(character),
        }
    }
    output
}
