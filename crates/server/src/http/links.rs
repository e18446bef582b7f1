//! Links of an HTML page that came through a `proxy` subresource: those to the page's own server are made to go through the proxy too.
//!
//! Mirrors `Transport.rewriteHTML` of k8s.io/apimachinery/pkg/util/proxy: attributes that hold one URL, by element; everything else stays byte for byte.

/// Elements and their attributes that hold a URL.
const ATTRIBUTES: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is no HTML.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Where a search went on from `at`.
fn find(page: &[u8], at: usize, wanted: &[u8]) -> Option<usize> {
    page.get(at..)?.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted)).map(|found| at + found)
}

/// `page`, with each URL replaced for which `moved` knows another.
pub fn rewrite(page: &[u8], moved: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut at = 0;
    while let Some(start) = page[at..].iter().position(|byte| *byte == b'<').map(|found| at + found) {
        out.extend_from_slice(&page[at..start]);
        at = start;
        if page[at..].starts_with(b"<!--") {
            let end = find(page, at + 4, b"-->").map_or(page.len(), |end| end + 3);
            out.extend_from_slice(&page[at..end]);
            at = end;
            continue;
        }
        let name_end = at + 1 + page[at + 1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let name = String::from_utf8_lossy(&page[at + 1..name_end]).to_ascii_lowercase();
        out.extend_from_slice(&page[at..name_end]);
        at = name_end;
        if name.is_empty() {
            // No start of an element: `</p>`, `<!doctype`, or a bare `<`.
            continue;
        }
        let wanted = ATTRIBUTES.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, attributes)| attributes);
        at = attributes(page, at, wanted, &moved, &mut out);
        if RAW.contains(&name.as_str()) {
            let end = find(page, at, format!("</{name}").as_bytes()).unwrap_or(page.len());
            out.extend_from_slice(&page[at..end]);
            at = end;
        }
    }
    out.extend_from_slice(&page[at..]);
    out
}

/// Copies a start tag's attributes up to and with its `>`.
fn attributes(page: &[u8], mut at: usize, wanted: &[&str], moved: &impl Fn(&str) -> Option<String>, out: &mut Vec<u8>) -> usize {
    loop {
        let gap = page[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'/').count();
        out.extend_from_slice(&page[at..at + gap]);
        at += gap;
        match page.get(at) {
            None => return at,
            Some(b'>') => {
                out.push(b'>');
                return at + 1;
            }
            Some(_) => {}
        }
        let length = page[at..].iter().enumerate().take_while(|(index, byte)| !(byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/') || (**byte == b'=' && *index > 0))).count().max(1);
        let name = String::from_utf8_lossy(&page[at..at + length]).to_ascii_lowercase();
        out.extend_from_slice(&page[at..at + length]);
        at += length;
        let gap = page[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if page.get(at + gap) != Some(&b'=') {
            continue;
        }
        let after = page[at + gap + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let value = at + gap + 1 + after;
        out.extend_from_slice(&page[at..value]);
        let (open, end, close) = match page.get(value) {
            Some(quote @ (b'"' | b'\'')) => {
                let end = page[value + 1..].iter().position(|byte| byte == quote).map_or(page.len(), |found| value + 1 + found);
                (value + 1, end, (end + 1).min(page.len()))
            }
            _ => {
                let end = value + page[value..].iter().take_while(|byte| !byte.is_ascii_whitespace() && **byte != b'>').count();
                (value, end, end)
            }
        };
        out.extend_from_slice(&page[value..open]);
        let new = wanted.contains(&name.as_str()).then(|| std::str::from_utf8(&page[open..end]).ok()).flatten().and_then(moved);
        match new {
            Some(new) => out.extend_from_slice(new.as_bytes()),
            None => out.extend_from_slice(&page[open..end]),
        }
        out.extend_from_slice(&page[end..close]);
        at = close;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let moved = |url: &str| url.strip_prefix('/').map(|rest| format!("/proxy/{rest}"));
        for (page, want) in [
            ("<a href=\"/x\">/x</a>", "<a href=\"/proxy/x\">/x</a>"),
            ("<A CLASS=b HREF='/x'/><p href=\"/x\">", "<A CLASS=b HREF='/proxy/x'/><p href=\"/x\">"),
            ("<img src=/a.png alt>< <b", "<img src=/proxy/a.png alt>< <b"),
            ("<!doctype html><!-- <a href=\"/x\"> --><link href = \"/s.css\">", "<!doctype html><!-- <a href=\"/x\"> --><link href = \"/proxy/s.css\">"),
            ("<script src=\"/j.js\">'<a href=\"/x\">'</script><a href=\"y\">", "<script src=\"/proxy/j.js\">'<a href=\"/x\">'</script><a href=\"y\">"),
            ("<video poster=\"/p\" src=\"/v\"><a href=\"/x", "<video poster=\"/proxy/p\" src=\"/proxy/v\"><a href=\"/proxy/x"),
            ("<a href=", "<a href="),
            ("a<", "a<"),
        ] {
            assert_eq!(String::from_utf8(rewrite(page.as_bytes(), moved)).unwrap(), want);
        }
    }

    /// Whatever a page is: nothing panics, and without a link to move it stays as it was.
    #[test]
    fn nothing_is_lost() {
        let pieces = ["<", ">", "a", " ", "=", "\"", "'", "/", "<!--", "-->", "href", "<script", "</script>", "\u{e9}", "<a "];
        let mut state = 1u32;
        for _ in 0..20_000 {
            let mut page = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                page.push_str(pieces[(state >> 16) as usize % pieces.len()]);
            }
            assert_eq!(String::from_utf8_lossy(&rewrite(page.as_bytes(), |_| None)), page);
        }
    }
}
