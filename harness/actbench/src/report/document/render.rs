//! The template engine: syntax, escaping, filters, errors.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::error::{Error, Result};

/// Renders the template `source` with `values`. Values are escaped for HTML if `name` ends in `.html`; Markdown templates
/// escape with the filters `inline`, `cell` and `link`.
pub(super) fn render(name: &str, source: &str, values: impl Serialize) -> Result<String> {
    let failed =
        |error: minijinja::Error| Error::internal(format!("the template {name} of the report failed: {error:#}"));
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(failed)?);
    environment.set_auto_escape_callback(
        |name| {
            if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
        },
    );
    environment.add_filter("cell", markdown_cell);
    environment.add_filter("inline", markdown_inline);
    environment.add_filter("link", markdown_link);
    let template = environment.template_from_named_str(name, source);
    template.and_then(|template| template.render(Value::from(Serde(values)))).map_err(failed)
}

/// Text escaped for a cell of a Markdown table: as [`markdown_inline`], and it does not end the cell.
fn markdown_cell(text: String) -> String {
    markdown_inline(text).replace('|', "\\|")
}

/// Text escaped for a line of Markdown: it starts no HTML, code, link or emphasis, and does not end the line.
fn markdown_inline(text: String) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '[' | ']' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            _ if is_break(character) => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A path as the target of a link: what would end the target is percent-encoded (RFC 3986).
fn markdown_link(path: String) -> String {
    let mut encoded = String::with_capacity(path.len());
    for character in path.chars() {
        if character.is_whitespace() || character.is_control() || "()<>[]\\`%\"?#&".contains(character) {
            let mut bytes = [0; 4];
            character.encode_utf8(&mut bytes).bytes().for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
        } else {
            encoded.push(character);
        }
    }
    encoded
}

/// A control character, such as a line break, or one of Unicode's own line ends.
fn is_break(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}
