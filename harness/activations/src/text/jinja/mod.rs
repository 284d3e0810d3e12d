//! Jinja2 as transformers configures it, for chat templates.
//!
//! A template is untrusted code. Its parser bounds nesting, and a rendering has a bound on work, memory and recursion.
//! A feature of Jinja2 that this module lacks is refused by name: no template gives another text than in
//! transformers.
//!
//! `lexer`, `escapes`, `parser` and `expressions` make the tree of `syntax`. `render` executes statements, `evaluate`
//! expressions, `access` attributes and subscripts, `calls` functions and macros, and `operators` arithmetic and
//! comparisons on the values of `value`. `filters`, `text_filters`, `sequence_filters`, `json`, `checks`,
//! `text_methods`, `containers` and `formats` are the library. They are methods of the [`Interpreter`], which `meter`
//! bounds.

mod access;
mod arguments;
mod calls;
mod checks;
mod containers;
mod escapes;
mod evaluate;
mod expressions;
mod failure;
mod filters;
mod formats;
mod html;
mod interpreter;
mod json;
mod lexer;
mod meter;
mod numerals;
mod operators;
mod parser;
mod render;
mod sequence_filters;
mod show;
mod syntax;
mod text_filters;
mod text_methods;
mod unicode;
mod value;

#[cfg(test)]
mod tests;

use chrono::NaiveDate;

use failure::{Failure, FailureKind};
use interpreter::Interpreter;
use parser::Parsed;
use value::{Global, Scope, Value};

/// The stack that parsing and rendering need, in bytes: 1000 levels of nested evaluation in 64 KiB each.
pub(super) const STACK: usize = 64 << 20;

/// The reason why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JinjaError {
    /// The argument of `raise_exception`.
    Raised(String),
    /// An error of Jinja2, a feature that is refused, or a bound that is exceeded.
    Failed { message: String, line: usize },
}

impl JinjaError {
    fn new(failure: Failure, line: usize) -> JinjaError {
        match failure.kind {
            FailureKind::Raised => JinjaError::Raised(failure.message),
            _ => JinjaError::Failed { message: failure.message, line },
        }
    }
}

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template {
    parsed: Parsed,
    globals: Vec<Option<Global>>,
}

impl Template {
    /// Parses `source`.
    ///
    /// # Errors
    /// A syntax error or a refused feature, with its line.
    pub(super) fn new(source: &str) -> Result<Template, JinjaError> {
        let parsed = parser::parse(source, filters::has_filter, checks::has_test)
            .map_err(|(failure, line)| JinjaError::new(failure, line))?;
        let global = |name: &str| Global::ALL.iter().find(|(known, _)| *known == name).map(|(_, global)| *global);
        let globals = parsed.names.iter().map(|name| global(name)).collect();
        Ok(Template { parsed, globals })
    }

    /// Renders the template with variables from JSON. `today` is the date of `strftime_now`.
    ///
    /// # Errors
    /// The template raises an exception, fails as in Jinja2, uses a refused feature, or exceeds a bound.
    pub(super) fn render(
        &self,
        variables: &[(&str, serde_json::Value)],
        today: NaiveDate,
    ) -> Result<String, JinjaError> {
        let interpreter = Interpreter::new(&self.parsed.names, &self.globals, today);
        let mut output = String::new();
        let mut run = || {
            let context = Scope::new(None);
            for (name, variable) in variables {
                if let Some(id) = interpreter.name_id(name) {
                    context.set(id, Value::try_from(variable)?);
                }
            }
            interpreter.execute(&self.parsed.body, &Scope::new(Some(&context)), &mut output)
        };
        match run() {
            Ok(_) => Ok(output),
            Err(failure) => Err(JinjaError::new(failure, interpreter.line.get())),
        }
    }
}
