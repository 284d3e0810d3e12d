//! Chat templates: the Jinja templates of tokenizers, rendered like Hugging Face's `apply_chat_template`.
//!
//! A template is untrusted code. It runs with limits on work and recursion, so a hostile template ends in an error.
//! It can read the messages, the special tokens and a date from the caller, but not the clock: the rendered text
//! determines the activations and must be reproducible.

use std::collections::BTreeMap;
use std::fmt;

use chrono::NaiveDate;
use serde_json::{Map, Value};

use crate::data::ChatMessage;

use super::jinja::{JinjaError, STACK, Template};

/// The default date of `strftime_now`. Templates that print a date make the features depend on it, so it is constant:
/// the date that the Llama 3.1 template falls back to without `strftime_now`.
pub const DEFAULT_DATE: NaiveDate = match NaiveDate::from_ymd_opt(2024, 7, 26) {
    Some(date) => date,
    None => NaiveDate::MIN,
};

/// The stack of a rendering thread, in bytes.
pub(super) const RENDER_STACK: usize = STACK;

/// The special tokens that a template can refer to, as `bos_token`, `eos_token` or any other name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens(Vec<(String, String)>);

impl SpecialTokens {
    /// From names and texts. A name that is missing is undefined in the template.
    pub fn new(tokens: Vec<(String, String)>) -> Self {
        SpecialTokens(tokens)
    }

    /// The text of a token.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }
}

/// The reason why a template rendered no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenderError(JinjaError);

impl fmt::Display for RenderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Templates can raise texts of several lines; error messages of this crate have one.
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match &self.0 {
            JinjaError::Raised(message) => {
                write!(formatter, "the chat template rejects the dialogue: {}", one_line(message))
            }
            JinjaError::Failed { message, line } => {
                write!(formatter, "the chat template fails: {} (line {line} of the template)", one_line(message))
            }
        }
    }
}

/// A compiled chat template with its special tokens and date.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    template: Template,
    /// Renders the dialogues with tools, as transformers selects templates by name.
    with_tools: Option<Template>,
    special: SpecialTokens,
    today: NaiveDate,
}

impl ChatTemplate {
    /// Compiles `source`, and `tool_source` for the dialogues with tools.
    ///
    /// # Errors
    /// A syntax error or a feature that is not supported, with its line.
    pub(super) fn new(
        source: &str,
        tool_source: Option<&str>,
        special: SpecialTokens,
        today: NaiveDate,
    ) -> Result<Self, RenderError> {
        // Parsing recurses by the nesting of the template, like rendering: the caller's stack can be small.
        let parsed = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(RENDER_STACK);
            let compile = || -> Result<_, JinjaError> {
                Ok((Template::new(source)?, tool_source.map(Template::new).transpose()?))
            };
            let handle = thread.spawn_scoped(scope, compile)?;
            handle.join().map_err(|_| std::io::Error::other("the parser of templates panicked"))
        });
        let templates = parsed.unwrap_or_else(|error: std::io::Error| {
            Err(JinjaError::Failed { message: format!("cannot start a parsing thread: {error}"), line: 1 })
        });
        let (template, with_tools) = templates.map_err(RenderError)?;
        Ok(ChatTemplate { template, with_tools, special, today })
    }

    /// The token that begins a sequence.
    pub(super) fn bos(&self) -> Option<&str> {
        self.special.get("bos_token")
    }

    /// Renders a dialogue without a generation prompt. `values` are further variables; they replace special tokens of
    /// the same name.
    pub(super) fn render(&self, messages: &[ChatMessage], values: &Map<String, Value>) -> Result<String, RenderError> {
        let messages: Value =
            messages.iter().map(|message| Value::Object(message.template_keys().into_owned())).collect();
        // A missing token is undefined and not none, because templates test `bos_token is defined`.
        let tokens = self.special.0.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str())));
        let absent = ["tools", "documents"].map(|name| (name, Value::Null));
        let mut variables: BTreeMap<&str, Value> = absent.into_iter().chain(tokens).collect();
        variables.extend(values.iter().map(|(name, value)| (name.as_str(), value.clone())));
        variables.extend([("messages", messages), ("add_generation_prompt", Value::Bool(false))]);
        let variables: Vec<(&str, Value)> = variables.into_iter().collect();
        let has_tools = values.get("tools").is_some_and(|tools| !tools.is_null());
        let template = self.with_tools.as_ref().filter(|_| has_tools).unwrap_or(&self.template);
        template.render(&variables, self.today).map_err(RenderError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Role;

    fn render_with(source: &str, special: SpecialTokens, messages: &[(Role, &str)]) -> Result<String, String> {
        let messages: Vec<ChatMessage> =
            messages.iter().map(|(role, content)| ChatMessage::new(role.clone(), *content)).collect();
        let render = || {
            let template = ChatTemplate::new(source, None, special, DEFAULT_DATE)?;
            template.render(&messages, &serde_json::Map::new())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(RENDER_STACK);
            let rendered: Result<String, RenderError> = thread.spawn_scoped(scope, render).unwrap().join().unwrap();
            rendered.map_err(|error| error.to_string())
        })
    }

    fn render(source: &str) -> Result<String, String> {
        render_with(source, SpecialTokens::default(), &[(Role::User, " hi "), (Role::Assistant, "yes")])
    }

    #[test]
    fn blocks_are_trimmed_like_hugging_face() {
        assert_eq!(
            render(
                "{% for m in messages %}\n    {% if loop.first %}\nfirst\n    {% endif %}\n{{ m.role }}\n{% endfor %}\n\n"
            ),
            Ok("first\nuser\nassistant\n".to_owned())
        );
    }

    #[test]
    fn standard_variables_are_defined() {
        let special = SpecialTokens::new(vec![("bos_token".to_owned(), "<s>".to_owned())]);
        let source = "{{ bos_token }}{{ eos_token }}{{ eos_token is defined }}|{{ tools is none }}|{{ add_generation_prompt }}|\
                      {{ messages[::-1][0].content }}|{{ messages|length }}";
        assert_eq!(render_with(source, special, &[(Role::User, "x")]), Ok("<s>False|True|False|x|1".to_owned()));
    }

    #[test]
    fn strftime_now_formats_caller_date() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}"), Ok("26 Jul 2024".to_owned()));
        assert!(render("{{ strftime_now('%!') }}").unwrap_err().contains("strftime_now"));
    }

    #[test]
    fn generation_blocks_render_as_content() {
        let source = "{% for m in messages %}\n{%- generation -%}\n {{ m.content }}{% endgeneration %}\n{%+ if true %}.{% endif %}{% endfor %}";
        assert_eq!(render(source), Ok(" hi .yes.".to_owned()));
        assert_eq!(render("{{ '{% generation %}' }}"), Ok("{% generation %}".to_owned()));
    }

    #[test]
    fn raised_exception_is_reported_with_its_text() {
        assert_eq!(
            render("{{ raise_exception('Roles must\n alternate!') }}"),
            Err("the chat template rejects the dialogue: Roles must alternate!".to_owned())
        );
        let inside = "{% macro check() %}{{ raise_exception('no') }}{% endmacro %}{{ check() }}";
        assert_eq!(render(inside), Err("the chat template rejects the dialogue: no".to_owned()));
    }

    #[test]
    fn template_failure_names_line() {
        insta::assert_snapshot!(render("\n{{ messages[0].content.frobnicate() }}").unwrap_err(), @"the chat template fails: 'str object' has no attribute 'frobnicate' (line 2 of the template)");
        insta::assert_snapshot!(render("{% if %}").unwrap_err(), @"the chat template fails: syntax error: expected an expression, found '%}' (line 1 of the template)");
        insta::assert_snapshot!(render("{{ nothing.at.all }}").unwrap_err(), @"the chat template fails: 'nothing' is undefined (line 1 of the template)");
    }

    #[test]
    fn hostile_template_ends_in_error() {
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x='ab') %}{% for a in range(9999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "{{ 'x' * 99999999999 }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% set ns = namespace(x=[]) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
            "{% set ns = namespace(x=[]) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
            "{% include 'chat_template' %}",
        ] {
            assert!(render(source).is_err(), "{source}");
        }
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(render(&deep).is_err());
    }
}
