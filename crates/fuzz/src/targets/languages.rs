//! The small languages: selectors, CEL, JSONPath, quantities, Dockerfiles, image names, patterns.

use std::sync::LazyLock;

use api::jsonpath::JsonPath;
use api::quantity::Quantity;
use api::selector::{FieldSelector, LabelSelector};
use cel::{Activation, Budget, DeclType, Env};
use serde_json::{Map, Value, json};

use super::texts;
use crate::engine::{Outcome, Target};

fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

fn label_selector(input: &[u8], outcome: &mut Outcome) {
    let labels: Map<String, Value> = [("app".to_owned(), json!("x")), ("n".to_owned(), json!("5"))].into_iter().collect();
    if let Some(selector) = outcome.of(LabelSelector::parse(&text(input))) {
        outcome.note((selector.matches(&labels), selector.requirements().len()));
    }
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        outcome.of(LabelSelector::from_json(&value).map(|selector| selector.matches(&labels)));
    }
}

pub const LABEL_SELECTOR: Target = Target {
    name: "label-selector",
    about: "label selectors, as text and as JSON",
    seeds: || texts(&["app=x,tier!=y", "a in (b,c),d notin (e)", "!x,y", "n>4,n<6", "a==b", r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In","values":["v"]}]}"#]),
    words: &["=", "==", "!=", " in ", " notin ", "(", ")", ",", "!", "<", ">", "app", "a/b", "matchLabels", "matchExpressions", "operator", "Exists", "Gt"],
    run: label_selector,
};

pub const FIELD_SELECTOR: Target = Target {
    name: "field-selector",
    about: "field selectors",
    seeds: || texts(&["metadata.name=a", "status.phase!=Running,spec.nodeName=n", "a==b", r"a=b\,c\=d\\e"]),
    words: &["=", "==", "!=", ",", "\\", "\\,", "metadata.name", "spec.nodeName"],
    run: |input, outcome| {
        if let Some(selector) = outcome.of(FieldSelector::parse(&text(input))) {
            outcome.note((selector.terms().len(), selector.matches(|field| field.to_owned())));
        }
    },
};

/// What expressions may spend at run time here, as in the API server.
const CEL_BUDGET: u64 = 10_000_000;

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let schema = json!({"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"}, "d": {"type": "number"}, "l": {"type": "array", "items": {"type": "string"}},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}}, "t": {"type": "string", "format": "date-time"}, "o": {"type": "object", "properties": {"p": {"type": "boolean"}}}}});
    let env = Env::new().variable("any", DeclType::dyn_()).variable("request", cel::kubernetes::request_type());
    DeclType::from_schema(&schema, true).map_or(env.clone(), |own| env.variable("self", own))
});

fn cel_expression(input: &[u8], outcome: &mut Outcome) {
    let object = json!({"s": "text", "n": 5, "d": 1.5, "l": ["a", "b"], "m": {"x": 1}, "t": "2026-01-01T00:00:00Z", "o": {"p": true}, "apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}});
    let Some(program) = outcome.of(ENV.compile(&text(input))) else { return };
    outcome.note(format!("{:?}", program.output_type()));
    let value = || cel::Value::from_json(object.clone());
    let activation = Activation::new().bind("self", value()).bind("any", value()).bind("request", value());
    let result = program.evaluate(&activation, &mut Budget::new(CEL_BUDGET));
    outcome.of(result.map(drop));
}

pub const CEL: Target = Target {
    name: "cel",
    about: "CEL: parse, check, price, evaluate",
    seeds: || {
        texts(&[
            "self.n > 3 && self.s.startsWith('te') || has(self.o.p)",
            "self.l.all(x, x.size() < 5) && self.l.exists_one(y, y == 'a')",
            "self.m.map(k, self.m[k] * 2).sum() == 2 ? 'a' : \"b\" + string(self.n)",
            "any.l.filter(x, x.matches('^a+$')).size() == int('1') && duration('1h30m') > duration('5s')",
            "timestamp(self.t).getFullYear('UTC') == 2026 && url('https://a/b?c=d').getHost() == 'a' && ip('10.0.0.1').family() == 4",
            "quantity('1Gi').add(quantity('5Mi')).isGreaterThan(quantity('1G')) && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
            "self.s.replace('t', 'ttt').split('x').join(',').lowerAscii().substring(1, 2) in ['e', r'\\d', b'ab' == b'cd' ? 'x' : 'y']",
            "[1, 2.0, 3u, null, {'a': [true]}].size() % 2 == -1 / 0 || self.?o.?p.orValue(false) || optional.of(1).hasValue()",
            "format.dns1123Label().validate('A').hasValue() && semver('1.2.3').major() == 1 && sets.contains([1], [1]) && 'x%sy%d'.format(['a', 5]) != ''",
        ])
    },
    words: &[
        "self", "any", ".", "[", "]", "(", ")", "?", ":", "&&", "||", "!", "-", "+", "*", "/", "%", " in ", "==", "<=", ".map(x, ", ".all(x, x", ".filter(x, ", ".exists(x, ", ".size()", ".matches('", ".replace('a','b')", ".split('')", "has(", "'", "\"",
        "r'", "b'", "\\x", "\\u0041", "0x", "1u", "1e9", "9223372036854775807", "int(", "string(", "dyn(", "type(", "timestamp('", "duration('", "quantity('", "ip('", "cidr('", "url('", "semver('", "optional.of(", ".?", "[?", "cel.bind(a, ", "{", "}", "null", "true",
        ".format([", "%s", "%.99f", "%x", ".substring(-1)", ".indexOf('", ".charAt(", ".sum()", ".sort()", ".isSorted()", ".find('", ".findAll('",
    ],
    run: cel_expression,
};

pub const JSONPATH: Target = Target {
    name: "jsonpath",
    about: "JSONPath templates",
    seeds: || {
        texts(&[
            "{.items[*].metadata.name}",
            "{range .items[*]}{.metadata.name}{\"\\t\"}{.spec.n}{\"\\n\"}{end}",
            "{.items[?(@.spec.n>1)].metadata['name']} {..name} {.items[0:2:1]} {.items[-1]} {$.kind}",
            "{.items[?(@.metadata.name==\"a\" )]}text{'quoted'}",
        ])
    },
    words: &["{", "}", ".", "..", "[", "]", "*", "[*]", "[?(", "@", "$", "range ", "end", "==", "!=", "<", "&&", "\"", "'", "\\", "[0:", ":-1]", "[-1]", ",", "items", "name"],
    run: |input, outcome| {
        let data = json!({"kind": "List", "items": [{"metadata": {"name": "a"}, "spec": {"n": 1, "l": [1, 2, 3]}}, {"metadata": {"name": "b"}, "spec": {"n": 2.5, "x": null}}]});
        for path in [JsonPath::parse(&text(input)), JsonPath::relaxed(&text(input))] {
            let Some(path) = outcome.of(path) else { continue };
            let rendered = outcome.of(path.clone().render(&data));
            outcome.note(rendered.map(|text| text.len().checked_ilog2()));
            outcome.of(path.allow_missing().find(&data));
        }
    },
};

pub const QUANTITY: Target = Target {
    name: "quantity",
    about: "quantities and their arithmetic",
    seeds: || texts(&["100m", "1.5Gi", "-1e3", "+.5k", "0.000000001n", "9223372036854775807Ei", "12E", "1E-9", "5e"]),
    words: &["n", "u", "m", "k", "Ki", "Mi", "Gi", "Ei", "e", "E", "-", "+", ".", "0", "9", "999999999999999999999", "e-99", "e99", "E2147483648"],
    run: |input, outcome| {
        if let Some(quantity) = outcome.of(Quantity::parse(&text(input))) {
            let twice = quantity.plus(&quantity).times(-3).minus(&quantity.negated());
            outcome.note((quantity.value(), quantity.milli_value(), quantity.is_whole_milli(), twice.sign(), quantity.to_string().len()));
            let again = Quantity::parse(&twice.to_string());
            assert!(again.is_ok(), "what is written is read again: {twice}");
        }
    },
};

pub const DOCKERFILE: Target = Target {
    name: "dockerfile",
    about: "Dockerfiles, their words and variables",
    seeds: || {
        texts(&[
            "# escape=\\\nARG V=1\nFROM alpine:${V:-3} AS base\nRUN echo a && \\\n  echo b\nCOPY --from=base --chown=1:1 [\"a b\", \"/c\"]\nENV A=b C=\"d $A\"\nEXPOSE 80/tcp\nENTRYPOINT [\"sh\",\"-c\"]\nHEALTHCHECK --interval=5s CMD true\n",
            "FROM scratch\nRUN <<EOF\necho hi\nEOF\nLABEL a='b' c=\"d\"\nONBUILD RUN x\nUSER 1:2\nVOLUME /v\nSTOPSIGNAL 9\nWORKDIR /w/${x:?must}\nADD --checksum=sha256:00 http://x/y /z\n",
        ])
    },
    words: &["FROM ", "RUN ", "COPY ", "ARG ", "ENV ", "AS ", "--from=", "<<EOF\n", "EOF\n", "<<-'X'", "\\\n", "`\n", "# escape=`\n", "# syntax=x\n", "${a:-", "${a:+b}", "${a#b}", "${a/b/c}", "[\"", "\"]", "$", "\n", "ONBUILD ", "'", "\""],
    run: |input, outcome| {
        let text = text(input);
        outcome.of(image::dockerfile::parse(&text).map(drop));
        let lookup = |name: &str| (name.len() % 2 == 1).then(|| format!("<{name} x>"));
        for line in text.lines().take(8) {
            for escape in ['\\', '`'] {
                outcome.of(image::dockerfile::expand(line, escape, &lookup));
                outcome.of(image::dockerfile::expand_words(line, escape, &lookup));
                outcome.of(image::dockerfile::name_values("ENV", line, escape));
            }
        }
    },
};

pub const REFERENCE: Target = Target {
    name: "reference",
    about: "image names",
    seeds: || texts(&["alpine", "localhost:5000/a/b:v1", "docker.io/library/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "[::1]:80/a"]),
    words: &["/", ":", "@", "sha256:", "localhost", ".", "__", "-", "[", "]", "library/", "A"],
    run: |input, outcome| {
        if let Some(reference) = outcome.of(image::Reference::parse(&text(input))) {
            outcome.note((reference.familiar().len(), reference.repository().len(), reference.object().len()));
        }
    },
};

pub const REGEXP: Target = Target {
    name: "regexp",
    about: "patterns in RE2's dialect: [pattern, text]",
    seeds: || texts(&[r#"["^a+b*[c-e]?(f|g){1,3}$","aabcfg"]"#, r#"["(?i)\\d\\p{Greek}\\Q.*\\E[[:alpha:]]","5"]"#, r#"["(?P<n>a|b)+?\\b.\\z","x"]"#]),
    words: &["(", ")", "[", "]", "{1000}", "{1,1000}", "*", "+", "?", "|", "^", "$", "\\b", "\\p{L}", "[[:alpha:]]", "(?i)", "(?P<a>", "\\Q", "\\E", "\\x{10ffff}", "\\C", "(a+)+"],
    run: |input, outcome| {
        let Ok(Value::Array(both)) = serde_json::from_slice(input) else { return };
        let [Value::String(pattern), Value::String(text)] = both.as_slice() else { return };
        if let Some(pattern) = outcome.of(api::regexp::compile(pattern)) {
            outcome.note(pattern.is_match(text));
        }
    },
};
