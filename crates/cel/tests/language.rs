//! The language itself: literals, operators, macros, optionals, conversions, time; what is refused, and in which words.

mod common;

use cel::{DeclType, Env};
use common::{all_fail, all_true, compile};

#[test]
fn literals_and_operators() {
    all_true(&[
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "10u - 3u == 7u",
        "0x1F == 31 && 0x1Fu == 31u",
        "-9223372036854775808 < 0",
        "1.5e3 == 1500.0 && .5 == 0.5",
        "'a' + \"b\" == 'ab'",
        "r'\\n' == '\\\\n'",
        "'\\u00e9\\x41\\101' == 'éAA'",
        "'''a\nb''' == 'a\\nb'",
        "b'\\xff'.size() == 1 && b'é'.size() == 2",
        "!false && --1 == 1 && !!true",
        "true ? (false ? false : true) : false",
        "1 < 2 && 'a' < 'b' && b'a' < b'b' && false < true",
        "1 in [1, 2] && 'a' in {'a': 1} && !('c' in ['a', 'b'])",
        "[1] + [2, 3] == [1, 2, 3]",
        "{'a': 1}.a == 1 && {'a': 1}['a'] == 1",
        "dyn(1) == 1.0 && dyn(1u) == 1 && 1 < 1.5 && 2u > 1 && 1.0 >= 1u && 1 in dyn([1.0])",
        "dyn('a') != 1 && dyn(null) == null && [1] != dyn([1.5])",
        "size('héllo') == 5 && 'héllo'.size() == 5 && size([1, 2]) == 2 && {'a': 1}.size() == 1",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map && type(null) == null_type && type(int) == type",
        "// a comment\n true // another",
        "[1, 2, 3,][1] == 2 && {'a': 1,}.size() == 1",
        "dynamic.int == 5 && dynamic.text == 'héllo' && dynamic.list[2] == 3 && dynamic.map['b.c'] == 2",
        "has(dynamic.int) && !has(dynamic.missing) && has(dynamic.map.a) && has(dynamic.nothing)",
        "dynamic.double > dynamic.list[0]",
    ]);
}

#[test]
fn errors_when_evaluated() {
    all_fail(&[
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("-9223372036854775808 - 1 == 0", "integer overflow"),
        ("9223372036854775807 * 2 == 0", "integer overflow"),
        ("-(-9223372036854775808) == 0", "integer overflow"),
        ("-9223372036854775808 / -1 == 0", "integer overflow"),
        ("0u - 1u == 0u", "unsigned integer overflow"),
        ("1 / 0 == 0", "division by zero"),
        ("1 % 0 == 0", "modulus by zero"),
        ("[1][1] == 1", "index out of bounds: 1"),
        ("{'a': 1}.b == 1", "no such key: b"),
        ("{1: 1}[2] == 1", "no such key: 2"),
        ("dynamic.missing == 1", "no such key: missing"),
        ("dynamic.int.x == 1", "no such overload"),
        ("dynamic.int + 'a' == ''", "no such overload"),
        ("dynamic.text.size() + dynamic.text == 1", "no such overload"),
        ("dynamic.text && true", "no such overload"),
        ("{'a': 1, 'a': 2}.size() == 1", "repeated key"),
        ("int('x') == 1", "type conversion error from 'string' to 'int'"),
        ("int(1e300) == 1", "integer overflow"),
        ("uint(-1) == 1u", "unsigned integer overflow"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("string(b'\\xff') == ''", "invalid UTF-8"),
    ]);
}

#[test]
fn errors_that_do_not_matter() {
    all_true(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "[1, 0].exists(x, 1 / x == 1)",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 2].all(x, 1 / x == 1)",
        "false ? 1 / 0 == 1 : true",
    ]);
    all_fail(&[
        ("false || 1 / 0 == 1", "division by zero"),
        ("1 / 0 == 1 && true", "division by zero"),
        ("[0].exists(x, 1 / x == 1)", "division by zero"),
        ("[1, 0].exists_one(x, 1 / x == 1)", "division by zero"),
    ]);
}

#[test]
fn macros() {
    all_true(&[
        "[1, 2, 3].all(x, x > 0) && [].all(x, x > 0)",
        "[1, 2, 3].exists(x, x == 2) && ![].exists(x, x == 2)",
        "[1, 2, 2].exists_one(x, x == 1) && ![1, 2, 2].existsOne(x, x == 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1, 'b': 2}.all(k, k < 'c') && {'a': 1}.map(k, k) == ['a']",
        "[[1, 2], [3]].map(x, x.map(y, x.size() + y)) == [[3, 4], [4]]",
        "[1].all(x, [2].all(x, x == 2) && x == 1)",
        "[5, 6].all(i, v, v == i + 5) && {'a': 1}.all(k, v, k == 'a' && v == 1)",
        "[5, 6].exists(i, v, i == 1 && v == 6) && {'a': 1}.existsOne(k, v, v == 1)",
        "[5, 6].transformList(i, v, i * v) == [0, 6] && [5, 6].transformList(i, v, i > 0, v) == [6]",
        "{'a': 1}.transformList(k, v, k) == ['a']",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 2) == {'b': 4}",
        "['x', 'y'].transformMap(i, v, v) == {0: 'x', 1: 'y'}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "dynamic.list.all(x, x > 0) && dynamic.map.all(k, k != 'z')",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1] && ['bb', 'a'].sortBy(x, x.size()) == ['a', 'bb']",
    ]);
    all_fail(&[
        ("[1].all(x.y, true)", "argument must be a simple name"),
        ("[1].map(1, true)", "argument is not an identifier"),
        ("has(1)", "invalid argument to has() macro"),
        ("[1].all(x, y, y > x", "missing ')' at '<EOF>'"),
        ("[1].all(x, x, true)", "duplicate variable name: x"),
        ("1.all(x, true)", "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"),
        ("[1].all(x, x)", "expected type 'bool' but found 'int'"),
        ("[1].all(__result__, true)", "iteration variable overwrites accumulator variable"),
        ("{'a': 1, 'b': 1}.transformMapEntry(k, v, {v: k}).size() == 1", "already exists"),
        ("cel.bind(x, 1, x == 1)", "undeclared reference to 'cel'"),
    ]);
    let env = Env::new().with_bind();
    assert_eq!(env.compile("cel.bind(x, [1, 2], x + x)").unwrap().output_type().to_string(), "list(int)");
}

#[test]
fn optionals() {
    all_true(&[
        "optional.of(1).value() == 1 && optional.of(1).hasValue() && !optional.none().hasValue()",
        "!optional.ofNonZeroValue('').hasValue() && optional.ofNonZeroValue('a').hasValue()",
        "{'a': 1}[?'a'].orValue(2) == 1 && {'a': 1}[?'b'].orValue(2) == 2",
        "[1][?0].orValue(5) == 1 && [1][?1].orValue(5) == 5",
        "{'a': {'b': 1}}.?a.?b.orValue(0) == 1 && {'a': {'b': 1}}.?x.?b.orValue(7) == 7",
        "dynamic.?map.?a.orValue(0) == 1 && !dynamic.?missing.?a.hasValue() && dynamic.?missing.a.orValue(3) == 3",
        "optional.none().or(optional.of(2)).value() == 2 && optional.of(1).or(optional.of(1 / 0)).value() == 1",
        "optional.of(2).optMap(x, x * 3).value() == 6 && !{'a': 1}[?'b'].optMap(x, x + 1).hasValue()",
        "optional.of({'k': 1}).optFlatMap(x, x[?'k']).value() == 1",
        "[1, ?{'a': 2}[?'a'], ?{'a': 2}[?'b']] == [1, 2]",
        "{?'a': optional.of(1), ?'b': optional.none()} == {'a': 1}",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()",
        "[optional.of(1), optional.none()].unwrapOpt() == [1] && optional.unwrap([optional.of(1)]) == [1]",
        "optional.none() == optional.none() && optional.of(1) == optional.of(1) && optional.of(1) != optional.of(2)",
    ]);
}

#[test]
fn time() {
    all_true(&[
        "duration('1h') + duration('30m') == duration('90m') && duration('90m').getMinutes() == 90",
        "timestamp('2023-01-02T03:04:05.678Z').getFullYear() == 2023",
        "timestamp('2023-01-02T03:04:05Z').getMonth() == 0 && timestamp('2023-01-02T03:04:05Z').getDate() == 2",
        "timestamp('2023-01-02T03:04:05Z').getDayOfMonth() == 1 && timestamp('2023-01-02T03:04:05Z').getDayOfWeek() == 1",
        "timestamp('2023-02-01T03:04:05.678Z').getDayOfYear() == 31 && timestamp('2023-02-01T03:04:05.678Z').getMilliseconds() == 678",
        "timestamp('2023-01-01T00:30:00Z').getHours('+01:30') == 2 && timestamp('2023-01-01T00:30:00Z').getHours('-02:00') == 22",
        "timestamp('2023-01-01T00:00:00Z') + duration('24h') == timestamp('2023-01-02T00:00:00Z')",
        "timestamp('2023-01-02T00:00:00Z') - timestamp('2023-01-01T00:00:00Z') == duration('24h')",
        "timestamp(0) == timestamp('1970-01-01T00:00:00Z') && int(timestamp('1970-01-01T00:01:00Z')) == 60",
        "string(duration('1h')) == '3600s' && string(timestamp('2023-01-01T00:00:00.500Z')) == '2023-01-01T00:00:00.5Z'",
        "timestamp('2023-01-01T00:00:00Z') < timestamp('2024-01-01T00:00:00Z') && duration('1s') > duration('999ms')",
    ]);
    all_fail(&[
        ("duration('1') == duration('1s')", "invalid duration argument"),
        ("timestamp('2023-01-01') == timestamp(0)", "invalid timestamp argument"),
        ("timestamp('9999-12-30T00:00:00Z') + duration('48h') == timestamp(0)", "timestamp overflow"),
        ("timestamp('2023-01-01T00:00:00Z').getHours('Nowhere/City') == 1", "unknown time zone"),
        ("duration('2562047h') + duration('2562047h') == duration('1h')", "duration overflow"),
    ]);
}

#[test]
fn conversions() {
    all_true(&[
        "string(1.0) == '1' && string(1.5) == '1.5' && string(true) == 'true' && string(-3) == '-3' && string(b'ab') == 'ab'",
        "string(1e21) == '1e+21' && string(0.00001) == '1e-05'",
        "int('12') == 12 && int(1.9) == 1 && int(-1.9) == -1 && int(5u) == 5",
        "uint('12') == 12u && uint(3) == 3u && double('1.5') == 1.5 && double(3) == 3.0",
        "bool('true') && !bool('0') && bytes('é') == b'é'",
        "dyn(1) == 1",
    ]);
}

#[test]
fn what_does_not_type_check() {
    all_fail(&[
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("'a'.foo()", "undeclared reference to 'foo' (in container '')"),
        ("nothing == 1", "undeclared reference to 'nothing' (in container '')"),
        ("foo(1)", "undeclared reference to 'foo' (in container '')"),
        ("'a'.size(1) == 1", "found no matching overload for 'size' applied to 'string.(int)'"),
        ("1 == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("1 in ['a']", "found no matching overload for '@in' applied to '(int, list(string))'"),
        ("[1, 'a'].size() == 2", "expected type 'int' but found 'string'"),
        ("{'a': 1, 2: 2}.size() == 2", "expected type 'string' but found 'int'"),
        ("'a'.b == 1", "type 'string' does not support field selection"),
        ("!1", "found no matching overload for '!_' applied to '(int)'"),
        ("1 && true", "expected type 'bool' but found 'int'"),
        ("true ? 1 : 'a'", "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("Object{a: 1}.a == 1", "undeclared reference to 'Object'"),
        ("namespace == 1", "reserved identifier: namespace"),
        ("dynamic.`a-b` == 1", "unsupported syntax"),
    ]);
}

#[test]
fn syntax_errors_are_shown_in_place() {
    for (expression, shown) in [
        ("self.", "ERROR: <input>:1:6: Syntax error: no viable alternative at input '.'\n | self.\n | .....^"),
        ("1 +\n  x y", "ERROR: <input>:2:5: Syntax error: extraneous input 'y' expecting <EOF>\n |   x y\n | ....^"),
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^"),
        ("'é' + nope", "ERROR: <input>:1:7: undeclared reference to 'nope' (in container '')\n | 'é' + nope\n | .．....^"),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"),
        ("9223372036854775808", "ERROR: <input>:1:1: invalid int literal\n | 9223372036854775808\n | ^"),
    ] {
        assert_eq!(compile(expression).unwrap_err().to_string(), shown);
    }
    for wrong in ["", "(", "[1", "{1}", "a.b.", "1 ? 2", "'a", "\"", "@", "a b", "1 +", "if", "{'a'}", "f(,)", "a.1", "🐈", "'\\q'", "0x", "true.in"]
    {
        assert!(compile(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn nesting_is_bounded() {
    for deep in [
        "(".repeat(10_000),
        "[".repeat(10_000),
        "-".repeat(3) + &"!".repeat(100_000),
        "a.".repeat(50_000) + "a",
        "1+".repeat(50_000) + "1",
        "f(".repeat(300),
    ] {
        assert!(compile(&deep).is_err());
    }
    assert!(compile(&(("(".repeat(200)) + "1" + &")".repeat(200))).is_ok());
    // Long chains of `&&` are flat.
    assert!(compile(&("true && ".repeat(2_000) + "true")).is_ok());
    let long = compile(&format!("'{}' == ''", "a".repeat(200_000))).unwrap_err();
    assert!(long.to_string().contains("expression code point size exceeds limit"));
}

#[test]
fn output_types_and_references() {
    let env = Env::new().variable("self", DeclType::list(DeclType::string(), None)).variable("oldSelf", DeclType::dyn_());
    for (expression, ty) in [
        ("self", "list(string)"),
        ("self[0]", "string"),
        ("self.map(x, x.size())", "list(int)"),
        ("{'a': self}", "map(string, list(string))"),
        ("optional.of(1)", "optional_type(int)"),
        ("oldSelf.x", "dyn"),
        ("[]", "list(dyn)"),
        ("timestamp(0)", "google.protobuf.Timestamp"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("type(1)", "type(int)"),
        ("null", "null_type"),
    ] {
        assert_eq!(env.compile(expression).unwrap().output_type().to_string(), ty, "{expression}");
    }
    let program = env.compile("self.size() > 1 && oldSelf.x == 1").unwrap();
    assert!(program.references("oldSelf") && program.references("self") && !program.references("other"));
    assert!(!env.compile("self.size() > 1").unwrap().references("oldSelf"));
}

/// Upstream works constants out when it makes the program, and does not make it then.
#[test]
fn conversions_that_can_only_fail_are_refused() {
    for (expression, wanted) in [
        ("double('x') == 1.0", "program instantiation failed: type conversion error from 'string' to 'double'"),
        ("int('a') == 1", "program instantiation failed: type conversion error from 'string' to 'int'"),
        ("uint(-1) == 1u", "program instantiation failed: unsigned integer overflow"),
    ] {
        let told = Env::new().compile(expression).map(|_| ()).map_err(|errors| errors.detail());
        assert_eq!(told, Err(wanted.to_owned()), "{expression}");
    }
}

/// What the lexer cannot read, and what comes after.
#[test]
fn half_signs_and_open_strings() {
    for (expression, wanted) in [
        ("1 = 1", "ERROR: <input>:1:3: Syntax error: token recognition error at: '= '\n | 1 = 1\n | ..^\nERROR: <input>:1:5: Syntax error: extraneous input '1' expecting <EOF>\n | 1 = 1\n | ....^"),
        ("1 === 1", "ERROR: <input>:1:5: Syntax error: token recognition error at: '= '\n | 1 === 1\n | ....^"),
        ("r'abc", "ERROR: <input>:1:2: Syntax error: token recognition error at: ''abc'\n | r'abc\n | .^"),
        ("\"a\\qb", "ERROR: <input>:1:1: Syntax error: token recognition error at: '\"a\\q'\n | \"a\\qb\n | ^"),
    ] {
        let told = Env::new().compile(expression).map(|_| ()).map_err(|errors| errors.to_string());
        assert_eq!(told, Err(wanted.to_owned()), "{expression}");
    }
}
