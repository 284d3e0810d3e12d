//! Chat templates: the Jinja templates of tokenizers, rendered like Hugging Face's `apply_chat_template`.
//!
//! A template is untrusted code. It runs with limits on work and recursion, so a hostile template ends in an error.
//! It can read the messages, the special tokens and a date from the caller, but not the clock: the rendered text
//! determines the activations and must be reproducible.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;

use chrono::NaiveDate;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};

use crate::data::ChatMessage;

use super::python;

/// The default date of `strftime_now`. Templates that print a date make the features depend on it, so it is constant:
/// the date that the Llama 3.1 template falls back to without `strftime_now`.
pub const DEFAULT_DATE: NaiveDate = match NaiveDate::from_ymd_opt(2024, 7, 26) {
    Some(date) => date,
    None => NaiveDate::MIN,
};

/// The work limit of a rendering, in instructions or units of 64 bytes of output: a dialogue of a thousand messages, or
/// 16 MiB of text.
const FUEL: u64 = 250_000;

/// The stack of a rendering thread, in bytes. The engine prints, compares and frees nested lists by recursion without a
/// limit, and a template can nest one level deeper for nine units of work. This size leaves 2 KiB for each level that
/// [`FUEL`] permits; printing needs about 500 bytes. The system backs only the used pages by memory.
pub(super) const RENDER_STACK: usize = 64 << 20;

/// The limit of nested calls and blocks. Real templates stay below 30. The engine's default of 500 assumes the stack
/// of a main thread.
const RECURSION: usize = 120;

const TEMPLATE: &str = "chat_template";

/// The special tokens that templates refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence; `None` is undefined in the template.
    pub bos: Option<String>,
    /// Ends a sequence or a turn.
    pub eos: Option<String>,
    /// Represents text that cannot be encoded.
    pub unk: Option<String>,
    /// Pads batches.
    pub pad: Option<String>,
}

/// The reason why a template rendered no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenderError {
    /// The argument of `raise_exception`, if the template called it.
    raised: Option<String>,
    /// The engine's description of any other failure.
    failure: String,
}

impl fmt::Display for RenderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.raised {
            Some(message) => write!(formatter, "the chat template rejects the dialogue: {message}"),
            None => write!(formatter, "the chat template fails: {}", self.failure),
        }
    }
}

impl From<minijinja::Error> for RenderError {
    fn from(error: minijinja::Error) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = error.source();
        let mut raised = None;
        while let Some(cause) = source {
            raised = cause.downcast_ref::<python::RaisedException>().map(|message| message.0.clone()).or(raised);
            source = cause.source();
        }
        let line = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
        let failure = match error.kind() {
            ErrorKind::OutOfFuel => format!("it exceeds the work limit for one dialogue{line}"),
            kind => match error.detail() {
                Some(detail) => format!("{kind}: {detail}{line}"),
                None => format!("{kind}{line}"),
            },
        };
        // Templates can raise texts of several lines; error messages of this crate have one.
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        RenderError { raised: raised.map(one_line), failure: one_line(failure) }
    }
}

/// A compiled chat template with its special tokens and date.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ChatTemplate").field("special", &self.special).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles `source`.
    ///
    /// # Errors
    /// A syntax error, with its line.
    pub(super) fn new(source: &str, special: SpecialTokens, today: NaiveDate) -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        // The default depends on the build profile, but error messages must not.
        environment.set_debug(false);
        python::install(&mut environment, today);
        environment.add_template_owned(TEMPLATE, without_generation_tags(source))?;
        Ok(ChatTemplate { environment, special })
    }

    /// The token that begins a sequence.
    pub(super) fn bos(&self) -> Option<&str> {
        self.special.bos.as_deref()
    }

    /// Renders a dialogue without a generation prompt. `values` are further variables; they replace special tokens of
    /// the same name.
    pub(super) fn render(
        &self,
        messages: &[ChatMessage],
        values: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, RenderError> {
        let messages: Vec<Value> =
            messages.iter().map(|message| Value::from(Serde(message.template_keys().as_ref()))).collect();
        let SpecialTokens { bos, eos, unk, pad } = &self.special;
        // A missing token is undefined and not none, because templates test `bos_token is defined`.
        let token = |token: &Option<String>| token.as_deref().map_or(Value::UNDEFINED, Value::from);
        let mut variables = HashMap::from([
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("bos_token", token(bos)),
            ("eos_token", token(eos)),
            ("unk_token", token(unk)),
            ("pad_token", token(pad)),
        ]);
        variables.extend(values.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        variables.extend([("messages", Value::from(messages)), ("add_generation_prompt", Value::from(false))]);
        Ok(self.environment.get_template(TEMPLATE)?.render(Value::from_pairs(variables))?)
    }
}

/// Replaces `{% generation %}` blocks by `{% with %}` blocks, which only open a scope. In transformers they mark the
/// assistant's text and render as their content. The mask does not use them: few templates have them, and they exclude
/// headers, which the mask includes.
fn without_generation_tags(source: &str) -> String {
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        rewritten.push_str(before);
        rest = tag;
        let inner = tag.trim_start_matches(['-', '+']).trim_start();
        let lead = tag.len() - inner.len();
        let word = inner.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let replacement = match word {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        if inner[word.len()..].trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
            rewritten.push_str(&tag[..lead]);
            rewritten.push_str(replacement);
            rest = &inner[word.len()..];
        }
    }
    rewritten.push_str(rest);
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Role;

    fn render_with(source: &str, special: SpecialTokens, messages: &[(Role, &str)]) -> Result<String, String> {
        let messages: Vec<ChatMessage> =
            messages.iter().map(|(role, content)| ChatMessage::new(role.clone(), *content)).collect();
        let render = || {
            let template = ChatTemplate::new(source, special, DEFAULT_DATE)?;
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
        let special = SpecialTokens { bos: Some("<s>".to_owned()), ..SpecialTokens::default() };
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
        assert_eq!(without_generation_tags("{% generation_x %}{{ a }}{%"), "{% generation_x %}{{ a }}{%");
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
        insta::assert_snapshot!(render("\n{{ messages[0].content.frobnicate() }}").unwrap_err(), @"the chat template fails: unknown method: string has no method named frobnicate (line 2 of the template)");
        insta::assert_snapshot!(render("{% if %}").unwrap_err(), @"the chat template fails: syntax error: unexpected end of block (line 1 of the template)");
        insta::assert_snapshot!(render("{{ nothing.at.all }}").unwrap_err(), @"the chat template fails: undefined value (line 1 of the template)");
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
