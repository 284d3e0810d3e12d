//! The Python functions, methods and formatting that chat templates expect and the template engine lacks.

use std::fmt::{self, Write};

use chrono::{NaiveDate, NaiveTime};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The argument of a template's call of `raise_exception`.
#[derive(Debug)]
pub(super) struct RaisedException(pub(super) String);

impl fmt::Display for RaisedException {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for RaisedException {}

/// The maximum nesting of lists and maps in `tojson`; only hostile templates exceed it.
const JSON_DEPTH: usize = 64;

/// Adds the functions that transformers adds to Jinja, and the Python methods that Jinja inherits, to `environment`.
pub(super) fn install(environment: &mut Environment<'static>, today: NaiveDate) {
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(invalid_operation("raise_exception").with_source(RaisedException(message)))
    });
    environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
        let mut text = String::new();
        // Not `to_string`, which panics on an unknown directive.
        write!(text, "{}", today.and_time(NaiveTime::MIN).format(&format))
            .map_err(|_| invalid_operation(format!("strftime_now({format:?}): unknown directive")))?;
        Ok(text)
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("trim", |value: Value, characters: Option<String>| match characters {
        Some(characters) => to_text(&value).trim_matches(|c| characters.contains(c)).to_owned(),
        None => trim(&to_text(&value)).to_owned(),
    });
    environment.set_unknown_method_callback(method);
}

/// Whether Python's `str.strip` removes the character: Unicode whitespace, and four separators that Unicode does not
/// class as whitespace.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Python's `str.strip` without arguments.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn to_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn invalid_operation(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Methods of Python's strings. The first ones are missing in the compatibility callback or use Rust's whitespace
/// there.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let first = arguments.first().and_then(Value::as_str);
        match (name, first, arguments.len()) {
            ("strip", None, 0) => return Ok(Value::from(trim(text))),
            ("lstrip", None, 0) => return Ok(Value::from(text.trim_start_matches(is_space))),
            ("rstrip", None, 0) => return Ok(Value::from(text.trim_end_matches(is_space))),
            ("removeprefix", Some(prefix), 1) => return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text))),
            ("removesuffix", Some(suffix), 1) => return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text))),
            _ => {}
        }
    }
    unknown_method_callback(state, value, name, arguments)
}

/// `json.dumps` with the options of transformers' `tojson`: no HTML escapes, and non-ASCII text is kept unless
/// `ensure_ascii` is set.
fn to_json(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(invalid_operation("tojson: separators must be a pair")),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = JsonStyle {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item,
        key,
    };
    options.assert_all_used()?;
    let mut output = String::new();
    style.write(&mut output, value, 0)?;
    state.consume_fuel(output.len() as u64 / 64)?;
    Ok(output)
}

struct JsonStyle {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<usize>,
    item: String,
    key: String,
}

impl JsonStyle {
    fn write(&self, output: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > JSON_DEPTH {
            return Err(invalid_operation("tojson: nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => output.push_str("null"),
            ValueKind::Bool => output.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => output.push_str(&value.to_string()),
            ValueKind::String => self.write_text(output, &to_text(value))?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items(output, ['[', ']'], items.len(), depth, |style, output, position| {
                    style.write(output, &items[position], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.write_items(output, ['{', '}'], keys.len(), depth, |style, output, position| {
                    style.write_text(output, &to_text(&keys[position]))?;
                    output.push_str(&style.key);
                    style.write(output, &value.get_item(&keys[position])?, depth + 1)
                })?;
            }
            kind => return Err(invalid_operation(format!("tojson: cannot serialize a value of kind {kind}"))),
        }
        Ok(())
    }

    fn write_items(
        &self,
        output: &mut String,
        [open, close]: [char; 2],
        n_items: usize,
        depth: usize,
        write_item: impl Fn(&Self, &mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let break_line = |output: &mut String, depth: usize| {
            if let Some(indent) = self.indent {
                output.push('\n');
                output.extend(std::iter::repeat_n(' ', indent.min(80) * depth));
            }
        };
        output.push(open);
        for position in 0..n_items {
            if position > 0 {
                output.push_str(&self.item);
            }
            break_line(output, depth + 1);
            write_item(self, output, position)?;
        }
        if n_items > 0 {
            break_line(output, depth);
        }
        output.push(close);
        Ok(())
    }

    fn write_text(&self, output: &mut String, text: &str) -> Result<(), Error> {
        let quoted = serde_json::to_string(text).map_err(|error| invalid_operation(format!("tojson: {error}")))?;
        if !self.ensure_ascii {
            output.push_str(&quoted);
            return Ok(());
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                output.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    output.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let mut environment = Environment::new();
        install(&mut environment, NaiveDate::MIN);
        environment.render_str(source, ()).unwrap()
    }

    #[test]
    fn tojson_output_matches_python() {
        assert_eq!(
            render(r#"{{ {"b": [1, true, none], "a": "<é'\n>"}|tojson }}"#),
            r#"{"b": [1, true, null], "a": "<é'\n>"}"#
        );
        assert_eq!(
            render(r#"{{ {"b": "é😀", "a": []}|tojson(sort_keys=true, ensure_ascii=true) }}"#),
            r#"{"a": [], "b": "\u00e9\ud83d\ude00"}"#
        );
        assert_eq!(render(r#"{{ {"b": [1, 2]}|tojson(indent=2) }}"#), "{\n  \"b\": [\n    1,\n    2\n  ]\n}");
        assert_eq!(render(r#"{{ [1, {"a": 2}]|tojson(separators=[",", ":"]) }}"#), r#"[1,{"a":2}]"#);
    }

    #[test]
    fn constants_print_like_python() {
        assert_eq!(render("{{ none }} {{ true }} {{ False }} {{ undefined_name }}"), "None True False ");
    }

    #[test]
    fn string_methods_match_python() {
        assert_eq!(
            render(r#"[{{ "\u001c x\u00a0\n".strip() }}][{{ "\u001f x "|trim }}][{{ "xxaxx".strip("x") }}]"#),
            "[x][x][a]"
        );
        assert_eq!(render(r#"{{ "abc".removeprefix("a") }} {{ "abc".removesuffix("x") }}"#), "bc abc");
        assert_eq!(render(r#"{{ "a</t>b</t>c".split("</t>")[-1] }}{{ "a b".split()[1] }}"#), "cb");
        assert_eq!(
            render(r#"{{ {"a": 1}.get("b") is none }} {% for k, v in {"a": 1}.items() %}{{ k }}{{ v }}{% endfor %}"#),
            "True a1"
        );
    }
}
