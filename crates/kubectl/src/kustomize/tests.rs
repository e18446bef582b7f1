//! Folders built as the real kustomize of kubectl 1.36 built them (`cases/*/expected.yaml`), and what it says of wrong ones (`cases/wrong.txt`).

use super::{Options, build, text};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kustomize/cases");

#[test]
fn as_the_real_one_builds() {
    for case in ["base", "overlay", "components", "replacements", "old"] {
        let built = build(&format!("{CASES}/{case}"), Options::default()).map(|objects| text(&objects)).unwrap_or_else(|error| panic!("{case}: {error}"));
        let expected = std::fs::read_to_string(format!("{CASES}/{case}/expected.yaml")).unwrap();
        let diff = similar::TextDiff::from_lines(&expected, &built);
        assert!(built == expected, "{case}: - real, + ours\n{}", diff.unified_diff().context_radius(3));
    }
}

#[test]
fn what_is_wrong_is_told_as_upstream_tells_it() {
    let expected = std::fs::read_to_string(format!("{CASES}/wrong.txt")).unwrap();
    let mut told = String::new();
    for line in expected.lines() {
        let Some((case, _)) = line.split_once(": error: ") else { continue };
        let error = build(&format!("{CASES}/wrong/{case}"), Options::default()).err().map_or("no error\n".to_owned(), |error| error.told());
        told.push_str(&format!("{case}: {}", error.replace(CASES, "ROOT")));
    }
    let diff = similar::TextDiff::from_lines(&expected, &told);
    assert!(told == expected, "- real, + ours\n{}", diff.unified_diff().context_radius(1));
}
