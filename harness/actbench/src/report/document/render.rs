//! Templates: what they may use, and how an error of one is told.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::error::{Error, Result};

/// Runs the template `source` on `values`; values are escaped for HTML where `name` ends in `.html`, and by hand, with the
/// filter `cell`, in Markdown.
pub(super) fn render(name: &str, source: &str, values: impl Serialize) -> Result<String> {
    let failed =
        |error: minijinja::Error| Error::Numeric(format!("the template {name} of the report failed: {error:#}"));
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(failed)?);
    environment.set_auto_escape_callback(|name| match name.ends_with(".html") {
        true => AutoEscape::Html,
        false => AutoEscape::None,
    });
    environment.add_filter("cell", markdown_cell);
    let template = environment.template_from_named_str(name, source);
    template.and_then(|template| template.render(Value::from(Serde(values)))).map_err(failed)
}

/// Text that stays within a cell of a Markdown table and starts no HTML.
fn markdown_cell(text: String) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ")
}
