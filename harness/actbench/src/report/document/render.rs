//! The template engine: syntax, escaping, filters, errors.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::error::{Error, Result};

/// Renders the template `source` with `values`. Values are escaped for HTML if `name` ends in `.html`; Markdown templates
/// escape with the filter `cell`.
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
    let template = environment.template_from_named_str(name, source);
    template.and_then(|template| template.render(Value::from(Serde(values)))).map_err(failed)
}

/// Text escaped for a cell of a Markdown table: it neither ends the cell nor starts HTML.
fn markdown_cell(text: String) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ")
}
