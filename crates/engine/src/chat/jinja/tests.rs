//! Hostile templates are stopped; what stops them is the bound that they break.

use std::time::{Duration, Instant};

use minijinja::context;
use proptest::prelude::*;

use super::*;

fn render(source: &str) -> Result<String, Error> {
    let budget = Budget { fuel: 200_000, bytes: 1 << 24 };
    let text = "x".repeat(1000);
    Compiled::new("test", source)?.render(&context! { text, list => vec!["a", "b"] }, 0, budget)
}

/// Whether the error is one of the bounds.
fn is_bound(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<Exhausted>() {
            return true;
        }
        cause = error.source();
    }
    error.kind() == ErrorKind::OutOfFuel || error.to_string().contains("recursion")
}

#[test]
fn hostile_templates_are_stopped() {
    let loops = "{% for i in range(99999) %}";
    let cases = [
        // Time.
        format!("{loops}{loops}{{% endfor %}}{{% endfor %}}"),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% for i in list recursive %}{{ loop(list) }}{% endfor %}".into(),
        // Text.
        format!("{loops}{{{{ text }}}}{{% endfor %}}"),
        format!("{loops}{}{{% endfor %}}", "y".repeat(10_000)),
        format!("{{% set x %}}{loops}{}{{% endfor %}}{{% endset %}}", "y".repeat(10_000)),
        format!("{{% set x %}}{loops}{{{{ text }}}}{{% endfor %}}{{% endset %}}"),
        // Values that double.
        format!("{{% set ns = namespace(x=text) %}}{loops}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=text) %}}{loops}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=list) %}}{loops}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}"),
        format!(
            "{{% set ns = namespace(x=text) %}}{loops}{{% set ns.x = ns.x.replace('x', 'xx') %}}{{% endfor %}}"
        ),
        format!(
            "{{% set ns = namespace(x=text) %}}{loops}{{% set ns.x = [ns.x, ns.x] | join %}}{{% endfor %}}"
        ),
        format!(
            "{{% set ns = namespace(x=list) %}}{loops}{{% set ns.x = [ns.x[:] | string, ns.x] %}}{{% endfor %}}"
        ),
        format!("{{% set ns = namespace(x=[]) %}}{loops}{{% set ns.x = ns.x + [text[:]] %}}{{% endfor %}}"),
        format!(
            "{{% set ns = namespace(x='x') %}}{loops}{{% set ns.x = ns.x | tojson | tojson %}}{{% endfor %}}"
        ),
        "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f(text) }}".into(),
        // Values that are large at once.
        "{{ 'x' * 1000000000 }}".into(),
        "{{ 'x' * n * 1000000000 }}".into(),
        "{% set n = 1000000000 %}{{ 'x' * n }}".into(),
        "{% set n = 1000000000 %}{{ [1] * n }}".into(),
        "{{ text | replace('x', text) | replace('x', text) }}".into(),
        "{{ text.replace('', text).replace('', text) }}".into(),
        "{% set ns = namespace(x=text) %}{{ (range(99999) | list | join(text * 10)) | length }}".into(),
        "{{ text | indent(1000000000) }}".into(),
        "{{ text | indent(width=1000000000) }}".into(),
        "{{ '%1000000000d' | format(1) }}".into(),
        "{{ '%*d' | format(1000000000, 1) }}".into(),
        "{{ '{:1000000000}'.format(1) }}".into(),
        "{{ '{:{}}'.format(1, 1000000000) }}".into(),
        "{{ [1] | tojson(indent=1000000000) }}".into(),
        "{{ list | batch(1000000000, 'x') | list }}".into(),
        "{{ 1.5 | round(1000000000) }}".into(),
        "{{ range(99999) | map('string') | map('replace', '', text * 100) | list | length }}".into(),
        // Values that nest.
        format!("{{% set ns = namespace(x=1) %}}{loops}{{% set ns.x = [ns.x] %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=1) %}}{loops}{{% set ns.x = (ns.x,) %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=1) %}}{loops}{{% set ns.x = {{'a': ns.x}} %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=1) %}}{loops}{{% set ns.x = dict(a=ns.x) %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=1) %}}{loops}{{% set ns.x = namespace(x=ns.x) %}}{{% endfor %}}"),
        format!("{{% set ns = namespace(x=list) %}}{loops}{{% set ns.x = ns.x | batch(2) %}}{{% endfor %}}"),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns | tojson }}".into(),
        "{% set a = namespace() %}{% set a.x = a %}{% set b = namespace() %}{% set b.x = b %}{{ a == b }}"
            .into(),
        "{% set a = namespace() %}{% set a.x = a %}{% set b = namespace() %}{% set b.x = b %}{{ a in [b] }}"
            .into(),
        "{% set a = namespace() %}{% set a.x = a %}{% set b = namespace() %}{% set b.x = b %}{{ a == b == 1 }}".into(),
        "{% set a = namespace() %}{% set a.x = {'k': [a]} %}{{ a is eq a.x.k[0] }}".into(),
        // Sources.
        " ".repeat(MAX_SOURCE + 1),
    ];
    for source in cases {
        let shown = source.chars().take(150).collect::<String>();
        let started = Instant::now();
        let error = render(&source).map(|text| text.len()).expect_err(&shown);
        assert!(is_bound(&error), "{shown}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{shown}: {:?}", started.elapsed());
    }
    let error = render("{{ range(10**9) | length }}").unwrap_err();
    assert!(error.to_string().contains("too many elements"), "{error}");
}

#[test]
fn deep_sources_are_syntax_errors() {
    for source in
        [format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)), "{% if 1 %}".repeat(20_000)]
    {
        assert_eq!(render(&source).unwrap_err().kind(), ErrorKind::SyntaxError);
    }
}

#[test]
fn honest_arithmetic_is_left_alone() {
    assert_eq!(render("{{ 7 * 6 }} {{ '-' * 40 }} {{ [0] * 3 }} {{ 2 ** 10 * 4 }}").unwrap(), {
        format!("42 {} [0, 0, 0] 4096", "-".repeat(40))
    });
}

#[test]
fn slices_are_those_of_python() {
    // print(*['abcdef'[a:b:c] for …], sep='|')
    let bounds =
        ["1:4", ":2", "-2:", "::-1", "4:1:-1", "::2", "10:", ":-10", "-10:3", "3:-4:-2", "::-3", "2:2"];
    let template: Vec<String> = bounds.iter().map(|bounds| format!("{{{{ 'abcdef'[{bounds}] }}}}")).collect();
    let expected = "bcd|ab|ef|fedcba|edc|ace|||abc|d|fc|";
    assert_eq!(render(&template.join("|")).unwrap(), expected);
    let template: Vec<String> =
        bounds.iter().map(|bounds| format!("{{{{ ('abcdef' | list)[{bounds}] | join }}}}")).collect();
    assert_eq!(render(&template.join("|")).unwrap(), expected);
}

#[test]
fn jumps_survive_the_guards() {
    let source = "{% macro f(n) %}m{% if n %}{{ f(n - 1) }}{% else %}.{% endif %}{% endmacro %}\
        {% set ns = namespace(a=0) %}{% for x in list if x != 'c' %}{% set ns.a = ns.a + 1 %}{{ x }}\
        {%- if loop.last %}!{% else %},{% endif %}{% else %}none{% endfor %} {{ ns.a }} {{ f(2) }} \
        {{- 1 < 2 < 3 and (none or 'z') }}{% for x in [] %}{% else %} empty{% endfor %}\
        {% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% elif x == 4 %}{% break %}{% endif %} {{ x }}{% endfor %}";
    assert_eq!(render(source).unwrap(), "a,b! 2 mmm.z empty 1 3");
}

/// Pieces that templates are made of, so that many of their combinations compile.
const PIECES: [&str; 60] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "{# ",
    " #}",
    "text",
    "list",
    "ns",
    "ns.x",
    "x",
    "loop",
    "'a'",
    "1",
    "99999999",
    "-1",
    "1.5",
    "none",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ":",
    ",",
    ".",
    " + ",
    " ~ ",
    " * ",
    " - ",
    " // ",
    " % ",
    " ** ",
    " == ",
    " < ",
    " in ",
    " is ",
    " not ",
    " and ",
    " if ",
    " else ",
    "|join",
    "|replace('x', text)",
    "|tojson",
    "|map('upper')",
    "|list",
    ".replace('', text)",
    ".split('x')",
    "range(9999)",
    "namespace(x=text)",
    "{% for x in list %}",
    "{% endfor %}",
    "{% set ns = namespace(x=text) %}",
    "{% set ns.x = ns.x ~ ns.x %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(x) }}",
];

proptest! {
    #[test]
    fn any_template_renders_or_fails(pieces in proptest::collection::vec(0..PIECES.len(), 1..40)) {
        let source: String = pieces.iter().map(|&piece| PIECES[piece]).collect();
        let started = Instant::now();
        let _ = render(&source);
        prop_assert!(started.elapsed() < Duration::from_secs(5));
    }
}
