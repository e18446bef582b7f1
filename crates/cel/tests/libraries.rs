//! The function libraries, one table each.

mod common;

use common::{all_fail, all_true};

#[test]
fn strings() {
    all_true(&[
        "'tacocat'.charAt(3) == 'o' && 'abc'.charAt(3) == ''",
        "'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('ello', 2) == 7 && 'hello'.indexOf('x') == -1 && 'hello'.indexOf('') == 0",
        "'héllo'.indexOf('l') == 2 && 'héllo'.lastIndexOf('l') == 3 && 'héllo'.substring(1, 2) == 'é'",
        "'hello mellow'.lastIndexOf('ello') == 7 && 'hello mellow'.lastIndexOf('ello', 6) == 1 && 'hello'.lastIndexOf('') == 5 && 'a'.lastIndexOf('ab') == -1",
        "'TacoCat'.lowerAscii() == 'tacocat' && 'TacoCÆt'.upperAscii() == 'TACOCÆT'",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello' && 'ab'.replace('', '-') == '-a-b-'",
        "'a b c'.split(' ') == ['a', 'b', 'c'] && 'a b c'.split(' ', 2) == ['a', 'b c'] && 'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc']",
        "'a b'.split(' ', 0) == [] && 'a b'.split(' ', -1) == ['a', 'b'] && ''.split('') == []",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && '  x \\n'.trim() == 'x'",
        "['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b' && [].join('-') == ''",
        "strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "'abc'.matches('^[a-c]+$') && matches('abc', 'b') && 'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')",
        "'%s is %d'.format(['x', 3]) == 'x is 3' && '%%'.format([]) == '%' && '%s'.format([[1, 'a']]) == '[1, \"a\"]'",
        "'%x %X %o %b'.format([255, 255, 8, 5]) == 'ff FF 10 101' && '%x'.format(['ab']) == '6162' && '%b'.format([true]) == '1'",
        "'%.2f'.format([3.14159]) == '3.14' && '%e'.format([3.14]) == '3.140000×10⁰⁰'",
        "'%s %s %s'.format([true, null, duration('1s')]) == 'true null 1s'",
    ]);
    all_fail(&[
        ("'a'.charAt(2) == ''", "index out of range: 2"),
        ("'a'.substring(2) == ''", "index out of range: 2"),
        ("'abc'.substring(2, 1) == ''", "invalid substring range. start: 2, end: 1"),
        ("'abc'.indexOf('a', -1) == 0", "index out of range: -1"),
        ("'%d'.format(['x']) == ''", "decimal clause"),
        ("'%s'.format([]) == ''", "index 0 out of range"),
        ("'%z'.format([1]) == ''", "unrecognized formatting clause"),
        ("'abc'.reverse() == 'cba'", "found no matching overload for 'reverse'"),
    ]);
}

#[test]
fn lists_and_sets() {
    all_true(&[
        "[1, 2, 3].isSorted() && ![2, 1].isSorted() && ['a', 'b'].isSorted() && [].isSorted()",
        "[1, 2].sum() == 3 && [1.5, 0.5].sum() == 2.0 && [duration('1s'), duration('2s')].sum() == duration('3s') && [1u].sum() == 1u",
        "[1, 3, 2].max() == 3 && [1, 3, 2].min() == 1 && ['b', 'a'].min() == 'a'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [1, 2].reverse() == [2, 1] && lists.range(3) == [0, 1, 2]",
        "[[1], [2, 3]].flatten() == [1, 2, 3] && [dyn(1), dyn([2, 3])].flatten(2) == [1, 2, 3]",
        "[1, 2, 1].distinct() == [1, 2] && [3, 1, 2].sort() == [1, 2, 3] && ['b', 'a'].sort() == ['a', 'b']",
        "sets.contains([1, 2, 3], [2]) && !sets.contains([1], [1, 2]) && sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1, 2], [2, 3])",
    ]);
    all_fail(&[
        ("[].max() == 1", "max called on empty list"),
        ("[1].slice(0, 2) == []", "cannot slice(0, 2), list is length 1"),
        ("[1].slice(-1, 0) == []", "negative indexes not supported"),
        ("[9223372036854775807, 1].sum() == 0", "integer overflow"),
        ("lists.range(100000000).size() == 1", "cost limit exceeded"),
    ]);
}

#[test]
fn regular_expressions_and_urls() {
    all_true(&[
        "'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''",
        "'1 2 3'.findAll('[0-9]') == ['1', '2', '3'] && '1 2 3'.findAll('[0-9]', 2) == ['1', '2'] && '1'.findAll('x') == []",
        "url('https://user:pass@example.com:80/path/x?k=1&k=2#f').getScheme() == 'https'",
        "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://example.com:80/').getPort() == '80'",
        "url('https://example.com:80/').getHostname() == 'example.com' && url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://example.com/with space/').getEscapedPath() == '/with%20space/' && url('/a/b').getEscapedPath() == '/a/b'",
        "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
        "isURL('https://a.b:80/') && isURL('/absolute') && !isURL('a.b') && !isURL('../x') && !isURL('https://a:b:c/') && !isURL('')",
        "url('https://a.b/') == url('https://a.b/') && url('https://a.b/') != url('https://a.c/')",
    ]);
    all_fail(&[
        ("url('x y').getHost() == ''", "URL parse error"),
        ("'a'.find('(') == ''", "error parsing regexp"),
        ("'a'.matches(dynamic.text + '(')", "error parsing regexp"),
    ]);
}

#[test]
fn quantities_and_versions() {
    all_true(&[
        "quantity('1Mi') == quantity('1024Ki') && isQuantity('50k') && !isQuantity('1x')",
        "quantity('1').isGreaterThan(quantity('500m')) && quantity('1').isLessThan(quantity('2')) && quantity('1').compareTo(quantity('1000m')) == 0",
        "quantity('50k').asInteger() == 50000 && !quantity('0.5').isInteger() && quantity('9999999999999999999G').isInteger() == false",
        "quantity('1500m').asApproximateFloat() == 1.5 && sign(quantity('-5')) == -1",
        "quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').sub(20000) == quantity('30k') && quantity('1').add(1) == quantity('2')",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3-alpha.1').patch() == 3",
        "semver('1.2.3').isGreaterThan(semver('1.2.3-rc.1')) && semver('1.0.0-2').isLessThan(semver('1.0.0-10')) && semver('1.0.0+a') == semver('1.0.0+b')",
        "isSemver('1.0.0') && !isSemver('v1.0') && isSemver('v1.0', true) && semver('v01.02', true) == semver('1.2.0') && !isSemver('1.0.0.0')",
        "semver('1.2.3').compareTo(semver('2.0.0')) == -1",
    ]);
    all_fail(&[
        ("quantity('x') == quantity('1')", "quantities must match"),
        ("quantity('0.5').asInteger() == 0", "cannot convert value to integer"),
        ("semver('1') == semver('1.0.0')", "No Major.Minor.Patch elements found"),
    ]);
}

#[test]
fn addresses() {
    all_true(&[
        "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6 && isIP('10.0.0.1') && !isIP('10.0.0.256') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
        "ip('127.0.0.1').isLoopback() && ip('::').isUnspecified() && ip('224.0.0.1').isLinkLocalMulticast() && ip('fe80::1').isLinkLocalUnicast()",
        "ip('10.0.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast() && !ip('127.0.0.1').isGlobalUnicast()",
        "ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1') && string(ip('2001:DB8::1')) == '2001:db8::1'",
        "ip('::1') == ip('0:0:0:0:0:0:0:1') && type(ip('::1')) == net.IP",
        "cidr('192.168.0.0/24').containsIP('192.168.0.7') && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.7'))",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && !cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/16'))",
        "cidr('192.168.1.5/24').ip() == ip('192.168.1.5') && cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24') && cidr('::/0').prefixLength() == 0",
        "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0/08') && string(cidr('::1/64')) == '::1/64'",
    ]);
    all_fail(&[
        ("ip('x') == ip('::1')", "parse error during conversion from string"),
        ("cidr('10.0.0.0') == cidr('::/0')", "network address parse error"),
        ("cidr('10.0.0.0/8').containsIP('x')", "parse error"),
    ]);
}

#[test]
fn named_formats() {
    all_true(&[
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My_Name').hasValue()",
        "format.named('dns1123Label').hasValue() && !format.named('nonsense').hasValue()",
        "!format.named('dns1123Subdomain').value().validate('a.b').hasValue() && !format.dns1123LabelPrefix().validate('a-').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.uuid().validate('x').value() == ['does not match the UUID format']",
        "!format.date().validate('2021-01-01').hasValue() && format.datetime().validate('2021').hasValue() && !format.byte().validate('aGk=').hasValue()",
        "!format.uri().validate('https://a.b').hasValue() && format.uri().validate('x y').hasValue() && !format.labelValue().validate('').hasValue()",
        "!format.qualifiedName().validate('a.b/c').hasValue() && format.dns1035Label().validate('1a').hasValue()",
    ]);
}
