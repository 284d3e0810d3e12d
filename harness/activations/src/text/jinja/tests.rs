//! Snippets that Jinja2 rendered, and templates that would exhaust stack, time or memory.

use serde_json::Value as Json;

use super::*;

/// Made by scripts/make_template_goldens.py with transformers' own environment.
const GOLDENS: &str = include_str!("../../../tests/data/jinja_goldens.json");

/// Snippets that are refused, although Jinja2 renders them.
const REFUSED: [&str; 8] = [
    "{{ 5 .real }}",
    "{{ messages.__class__ }}",
    "{{ self is defined }}",
    "{{ text|wordwrap(5) }}",
    "{{ 'see http://example.com'|urlize }}",
    "{{ numbers|random in numbers }}",
    "{{ 'a'.encode() }}",
    "{{ 'a'.translate({97: 'b'}) }}",
];

/// Runs `check` on a thread with the stack of renderings.
fn on_stack(check: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(check).unwrap().join().unwrap();
}

fn render(source: &str, variables: &[(&str, Json)]) -> Result<String, JinjaError> {
    let today = NaiveDate::from_ymd_opt(2024, 7, 26).unwrap();
    Template::new(source)?.render(variables, today)
}

#[test]
fn snippets_render_as_in_jinja2_or_are_refused() {
    on_stack(|| {
        let document: Json = serde_json::from_str(GOLDENS).unwrap();
        let variables: Vec<(&str, Json)> = document["variables"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        let goldens = document["goldens"].as_array().unwrap();
        assert!(goldens.len() > 1000);
        let mut offenders = Vec::new();
        for golden in goldens {
            let source = golden["template"].as_str().unwrap();
            let rendered = render(source, &variables);
            let right = match (golden.get("text"), &rendered) {
                (Some(text), Ok(rendered)) => text.as_str() == Some(rendered) && !REFUSED.contains(&source),
                (Some(_), Err(JinjaError::Failed { message, .. })) => {
                    REFUSED.contains(&source) && message.ends_with("is not supported")
                }
                (Some(_), Err(JinjaError::Raised(_))) => false,
                (None, rendered) => rendered.is_err(),
            };
            if !right {
                offenders.push(format!("{source:?}: expected {golden}, got {rendered:?}"));
            }
        }
        assert!(offenders.is_empty(), "{}", offenders.join("\n"));
    });
}

fn refused(source: String) {
    on_stack(move || {
        let start: String = source.chars().take(60).collect();
        match render(&source, &[("m", serde_json::json!({"a": [1]}))]) {
            Ok(text) => panic!("{start}: rendered {} bytes", text.len()),
            Err(JinjaError::Raised(message)) => panic!("{start}: {message}"),
            Err(JinjaError::Failed { message, line }) => {
                assert!(line >= 1 && message.len() < 300, "{start}: {message}");
            }
        }
    });
}

#[test]
fn deep_nesting_is_refused() {
    let repeated = |before: &str, part: &str, inner: &str, end: &str, count: usize| {
        format!("{before}{}{inner}{}", part.repeat(count), end.repeat(count))
    };
    for (part, end) in
        [("-", ""), ("+", ""), ("not ", ""), ("(", ")"), ("[", "]"), ("{1:", "}"), ("f(", ")"), ("m[", "]")]
    {
        refused(repeated("{{ ", part, "1", end, 20_000) + " }}");
    }
    refused(repeated("{{ 1", " if 1 else 1", "", "", 20_000) + " }}");
    refused(repeated("{{ 1", " if 1", "", "", 20_000) + " }}");
    for (open, close) in [
        ("{% if 1 %}", "{% endif %}"),
        ("{% for x in [1] %}", "{% endfor %}"),
        ("{% with %}", "{% endwith %}"),
        ("{% filter upper %}", "{% endfilter %}"),
        ("{% set x %}", "{% endset %}"),
        ("{% macro f() %}", "{% endmacro %}"),
        ("{% generation %}", "{% endgeneration %}"),
    ] {
        refused(repeated("", open, "x", close, 20_000));
    }
    refused(repeated("{% for ", "(", "x", ")", 20_000) + " in [1] %}{% endfor %}");
    refused("{{ 1|abs(".repeat(10_000));
    refused("a".repeat(2 << 20));
}

#[test]
fn long_chains_take_no_stack() {
    let chain = |first: &str, part: &str| format!("{{{{ {first}{} }}}}", part.repeat(50_000));
    on_stack(move || {
        assert_eq!(render(&chain("1", "+1"), &[]), Ok("50001".to_owned()));
        assert_eq!(render(&chain("1", " and 1"), &[]), Ok("1".to_owned()));
        assert_eq!(render(&chain("0", " or 0"), &[]), Ok("0".to_owned()));
        assert_eq!(render(&chain("1", "~1"), &[]).map(|text| text.len()), Ok(50_001));
        assert_eq!(render(&chain("1", "*1"), &[]), Ok("1".to_owned()));
        assert_eq!(render(&chain("1", "==1"), &[]), Ok("True".to_owned()));
        assert_eq!(render(&chain("'a'", "|upper"), &[]), Ok("A".to_owned()));
        assert_eq!(render(&chain("'a'", "[0]"), &[]), Ok("a".to_owned()));
        assert!(render(&chain("x", ".b"), &[]).is_err());
        let branches = format!("{{% if 0 %}}{}{{% else %}}x{{% endif %}}", "{% elif 0 %}".repeat(10_000));
        assert_eq!(render(&branches, &[]), Ok("x".to_owned()));
    });
}

#[test]
fn work_and_memory_are_bounded() {
    let grown = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(a={start}) %}}{{% for i in range(99999) %}}{{% set ns.a = {step} %}}{{% endfor %}}\
             {{{{ ns.a|length }}}}"
        )
    };
    for source in [
        grown("[1]", "ns.a + ns.a"),
        grown("'ab'", "ns.a ~ ns.a"),
        grown("'ab'", "ns.a + ns.a"),
        grown("'ab'", "ns.a|replace('a', 'aa')"),
        grown("'ab'", "[ns.a, ns.a]|join"),
        grown("[1]", "ns.a * 2"),
        grown("[]", "[ns.a]"),
        grown("[]", "[ns.a, ns.a]"),
        grown("{}", "{'a': ns.a}"),
        grown("'ab'", "ns.a|urlencode ~ ns.a"),
        "{{ ('a'*30000).replace('', 'b'*30000) }}".to_owned(),
        "{{ ('a'*30000)|replace('', 'b'*30000) }}".to_owned(),
        "{{ 'a' * 10**9 }}".to_owned(),
        "{{ [1] * 10**9 }}".to_owned(),
        "{{ ('b'*30000).join('a'*30000) }}".to_owned(),
        "{{ ('a'*30000)|join('b'*30000) }}".to_owned(),
        "{{ 'a'|center(10**12) }}".to_owned(),
        "{{ 'a'.ljust(10**12) }}".to_owned(),
        "{{ 'a'.zfill(10**30) }}".to_owned(),
        "{{ '\t'.expandtabs(10**12) }}".to_owned(),
        "{{ 'a'|indent(10**12, true) }}".to_owned(),
        "{{ ('a\n'*10000)|indent(100000) }}".to_owned(),
        "{{ '%1000000000d' % 1 }}".to_owned(),
        "{{ '%.1000000000f' % 1 }}".to_owned(),
        "{{ '%.1000000000d' % 1 }}".to_owned(),
        "{{ '%*d' % (10**9, 1) }}".to_owned(),
        "{{ '{:1000000000}'.format(1) }}".to_owned(),
        "{{ '{:.1000000000f}'.format(1) }}".to_owned(),
        "{{ '{:0999999999,}'.format(1) }}".to_owned(),
        "{{ [1]|batch(10**12, 'x')|list }}".to_owned(),
        "{{ [1]|slice(10**12)|list }}".to_owned(),
        "{{ [1, [2]]|tojson(indent=10**12) }}".to_owned(),
        "{{ m|tojson(indent='x' * 10000000) }}".to_owned(),
        "{{ range(10**9) }}".to_owned(),
        "{{ 10 ** 10 ** 10 }}".to_owned(),
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}".to_owned(),
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_owned(),
    ] {
        refused(source);
    }
}

#[test]
fn cycles_are_freed_without_recursion() {
    on_stack(|| {
        let chain = "{% set ns = namespace(m=1) %}{% for i in range(50000) %}{% set prev = ns.m %}{% macro m() %}{{ prev }}\
                     {% endmacro %}{% set ns.m = m %}{% endfor %}{% for i in range(50000) %}\
                     {% set ns.n = namespace(n=ns.n) %}{% endfor %}x";
        assert_eq!(render(chain, &[]), Ok("x".to_owned()));
    });
}

#[test]
fn failure_names_line() {
    let message = |source: &str| match render(source, &[]) {
        Err(JinjaError::Failed { message, line }) => format!("{message} @ {line}"),
        other => format!("{other:?}"),
    };
    insta::assert_snapshot!(message("\n{{ 'a'.encode() }}"), @"the method 'encode' of a string is not supported @ 2");
    insta::assert_snapshot!(message("a\r\nb\r\n{{ 'x'|wordwrap }}"), @"the filter 'wordwrap' is not supported @ 3");
    insta::assert_snapshot!(message("\n\n{% if 1 %}"), @"syntax error: the end of the template before 'elif' or 'else' or 'endif' @ 3");
    insta::assert_snapshot!(message("{{ nope.a }}"), @"'nope' is undefined @ 1");
}
