//! Costs as upstream has them: estimates decide which CRDs are accepted, and what was used counts against the budgets. The figures are
//! those of upstream's stability tests and of its estimator's tests.

mod common;

use cel::limits::{STATIC_ESTIMATED_COST_LIMIT, exceeds_budget};
use cel::{Activation, Budget, Env, Value};
use common::of_schema;
use serde_json::{Value as Json, json};

fn estimates(schema: Json, table: &[(&str, u64)]) {
    let (env, _) = of_schema(&schema);
    for (rule, cost) in table {
        let program = env.compile(rule).unwrap_or_else(|errors| panic!("{rule}: {errors}"));
        assert_eq!(program.cost_estimate().max, *cost, "{rule}");
    }
}

#[test]
fn estimates_with_and_without_limits() {
    estimates(
        json!({"type": "array", "items": {"type": "number"}}),
        &[("self.all(x, true)", 4_718_591), ("self[1] == 0.0", 2), ("self.all(x, x == 0.0)", 6_291_454)],
    );
    estimates(
        json!({"type": "array", "maxItems": 10, "items": {"type": "number"}}),
        &[("self.all(x, true)", 32), ("self.all(x, self.all(y, true))", 352), ("self.all(x, self.all(y, self.all(z, true)))", 3552)],
    );
    estimates(json!({"type": "array", "items": {"type": "string"}}), &[("self.all(x, true)", 3_145_727), ("self[1] == self[1]", 314_577)]);
    estimates(
        json!({"type": "object", "additionalProperties": {"type": "number"}}),
        &[("self.all(x, true)", 1_348_169), ("has(self.x)", 1), ("self['x'] == 0.0", 2)],
    );
    estimates(
        json!({"type": "string"}),
        &[
            ("self.contains('test')", 314_574),
            ("self.startsWith('test')", 2),
            ("size(self + 'hello') > size('hello')", 314_578),
            ("self.matches('x')", 314_574),
            ("''.matches('(((((((((())))))))))[0-9]')", 7),
            ("self.matches('')", 1),
        ],
    );
    estimates(json!({"type": "string", "maxLength": 10}), &[("self.contains('test')", 5)]);
    estimates(json!({"type": "object", "additionalProperties": {"type": "string"}}), &[("self.all(x, x.contains(self[x]))", 2_752_507)]);
    let (env, _) = of_schema(&json!({"type": "array", "items": {"type": "number"}}));
    assert!(env.compile("self.all(x, self.all(y, true))").unwrap().cost_estimate().max > STATIC_ESTIMATED_COST_LIMIT);
}

#[test]
fn estimates_of_strings() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    estimates(
        schema,
        &[
            ("self.a.startsWith('Rook')", 3),
            ("self.a.matches('^[^0-9]*$')", 943_721),
            ("type(self.a) == string", 4),
            ("size(self.a) == 12", 4),
            ("self.a.charAt(3) == 'k'", 4),
            ("self.a.indexOf('o') == 1", 314_576),
            ("self.a.replace(' ', 'x') == 'Rookxtakesx'", 629_150),
            ("self.a.split(' ') == ['Rook', 'takes', 'x']", 629_159),
            ("self.a.substring(5) == 'takes'", 314_576),
        ],
    );
}

/// Rule, and what its evaluation costs; each must hold.
fn charged(schema: Json, data: Json, table: &[(&str, u64)]) {
    let (env, decl) = of_schema(&schema);
    for (rule, cost) in table {
        let program = env.compile(rule).unwrap_or_else(|errors| panic!("{rule}: {errors}"));
        let activation = Activation::new().bind("self", Value::typed(&data, &decl)).bind("oldSelf", Value::typed(&data, &decl));
        let mut budget = Budget::new(1_000_000);
        let result = program.evaluate(&activation, &mut budget);
        assert_eq!(result.ok().and_then(|value| value.as_bool()), Some(true), "{rule}");
        assert_eq!(1_000_000 - budget.remaining(), *cost, "{rule}");
        assert!(program.cost_estimate().min <= program.cost_estimate().max);
    }
}

#[test]
fn what_evaluation_costs() {
    let list = json!({"type": "array", "items": {"type": "integer"}});
    charged(
        json!({"type": "object", "properties": {"a": list, "b": list}}),
        json!({"a": [1, 2, 3], "b": [1, 2, 3]}),
        &[
            ("1 in self.a", 5),
            ("self.b[0] in self.a", 8),
            ("!(0 in self.a)", 6),
            ("self.a + self.b == [1, 2, 3, 1, 2, 3]", 6),
            ("self.a + [4, 5] == [1, 2, 3, 4, 5]", 4),
            ("has(self.a)", 1),
            ("has(self.a) && has(self.b)", 2),
            ("lists.range(4) == [0, 1, 2, 3]", 16),
            ("[4, 3, 2, 1].sort() == [1, 2, 3, 4]", 44),
            ("lists.range(3).sortBy(e, -e) == [2, 1, 0]", 89),
            ("[-2, 5, -2, 1, 1, 5, -2, 1].distinct() == [-2, 5, 1]", 140),
        ],
    );
    charged(
        json!({"type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "integer"}}}}),
        json!({"m": {"b": 1, "d": 2}}),
        &[
            ("'b' in self.m", 3),
            ("!('a' in self.m)", 4),
            ("self.m.all(k, self.m[k] > 0)", 17),
            ("!self.m.exists(k, self.m[k] == 3)", 20),
            ("self.m.exists_one(k, self.m[k] == 2)", 14),
            ("size(self.m.filter(k, self.m[k] > 1)) == 1", 26),
            ("self.m.all(k, v, v > 0)", 13),
            ("!self.m.exists(k, v, v == 3)", 16),
            ("self.m.existsOne(k, v, v == 2)", 10),
            ("self.m.transformMap(k, v, v > 1, v + 1).size() == 1", 14),
            ("self.m.transformMapEntry(k, v, {k + '2': v + 1}).size() == 2", 77),
        ],
    );
    charged(
        json!({"type": "object", "properties": {"s": {"type": "string"}, "i": {"type": "integer"}}}),
        json!({"s": "Rook takes x", "i": 5}),
        &[
            ("self.s.startsWith('Rook')", 4),
            ("self.s.matches('^[^0-9]*$')", 8),
            ("self.s.upperAscii() == 'ROOK TAKES X'", 6),
            ("type(self.i) == int", 4),
            ("self.i == 5", 3),
            ("double(self.i) < 10.0", 4),
            ("5 < int(10.0)", 1),
        ],
    );
}

#[test]
fn too_high_an_estimate_is_told_by_how_much() {
    for (cost, factor) in [(10_000_001, "1.000000x"), (25_000_000, "2.5x"), (2_000_000_000, "more than 100x")] {
        let message = exceeds_budget("estimated rule cost", cost, STATIC_ESTIMATED_COST_LIMIT);
        assert!(message.starts_with(&format!("estimated rule cost exceeds budget by factor of {factor} (try simplifying the rule")), "{message}");
    }
}

/// What a kube-apiserver 1.36 takes of a DRA selector, and what it finds too complex.
#[test]
fn device_selectors_have_a_limit() {
    let env = Env::new().with_bind().variable("device", cel::kubernetes::device_type());
    let fits = |expression: &str| env.compile(expression).unwrap_or_else(|why| panic!("{expression}: {why}")).cost_estimate().max <= cel::limits::DEVICE_SELECTOR_COST_LIMIT;
    for expression in [
        "device.attributes['gpu.nvidia.com'].type == 'gpu' && device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0",
        "device.attributes['a'].x.lowerAscii().matches('^.*a100.*$')",
        "device.attributes['a'].ver.isGreaterThan(semver('1.0.0'))",
        "cel.bind(dra, device.attributes['dra.example.com'], dra.someBool && dra.anotherBool)",
        "device.attributes.exists(d, device.attributes[d].exists(k, k == 'b'))",
        "device.attributes.all(d, device.attributes[d].all(k, k.matches('a+')))",
        "device.attributes.all(d, device.attributes[d].all(k, device.attributes[d][k] == 'x'))",
        "device.attributes.all(d, device.capacity.all(c, c.matches(d)))",
        "device.attributes.all(k, device.attributes.all(l, device.attributes.all(m, k == l)))",
        "device.attributes['a'].l.split(',').size() > 1",
        "device.attributes['a'].l.contains('b')",
        "device.attributes['a'].l + 'x' == 'yx'",
        "device.driver.matches('a') && device.driver.startsWith('b')",
        "device.driver.split('.').size() == 3",
        "device.capacity['a'].exists(k, device.capacity['a'][k].isGreaterThan(quantity('1Gi')))",
        "device.attributes['a'].x.replace('a','b') == 'c'",
        "'%s-%s'.format([device.driver, 'b']) == 'a-b'",
        "device.attributes[?'a'].x.orValue('b') == 'c'",
        "device.attributes['a'].x.find('a') == 'b'",
        "device.attributes['a'].x.findAll('a').size() > 1",
    ] {
        assert!(fits(expression), "{expression}");
    }
    for expression in [
        "device.attributes.all(k, device.attributes.all(l, device.attributes.all(m, device.attributes.all(n, k == l))))",
        "device.driver.split('.').all(x, x.matches('a'))",
        "['a'].join(',') == 'a'",
        "[device.driver, 'b'].join('.') == 'x'",
    ] {
        assert!(!fits(expression), "{expression}");
    }
}
