//! Any kind: its fields as they come, names made readable.

use api::kinds::json::{map, text};
use serde_json::{Map, Value};

use super::writer::{Writer, line, shown};
use super::{Related, events};

/// Shown elsewhere, or not at all.
const SKIPPED: [&str; 5] = [".metadata.managedFields", ".metadata.name", ".metadata.namespace", ".metadata.labels", ".metadata.annotations"];
const ACRONYMS: [&str; 4] = ["API", "URL", "UID", "GUID"];

pub fn object(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    w.pairs("", "Labels", map(object, "metadata.labels"));
    w.annotations(object);
    if let Some(content) = object.as_object() {
        fields(content, 0, "", w);
    }
    events::events(related, w);
}

fn fields(content: &Map<String, Value>, level: usize, prefix: &str, w: &mut Writer) {
    for (name, value) in content {
        let path = format!("{prefix}.{name}");
        if SKIPPED.contains(&path.as_str()) {
            continue;
        }
        match value {
            Value::Object(inner) => {
                line!(w, level, "{}:", label(name));
                fields(inner, level + 1, &path, w);
            }
            Value::Array(items) => {
                line!(w, level, "{}:", label(name));
                for item in items {
                    match item.as_object() {
                        Some(inner) => fields(inner, level + 1, &path, w),
                        None => line!(w, level + 1, "{}", shown(item)),
                    }
                }
            }
            scalar => line!(w, level, "{}:\t{}", label(name), shown(scalar)),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Lower,
    Upper,
    Other,
}

/// `creationTimestamp` → `Creation Timestamp`; names with other than letters and dashes stay.
fn label(name: &str) -> String {
    if name.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return name.to_owned();
    }
    words(name).into_iter().map(|word| readable(&word)).collect::<Vec<_>>().join(" ")
}

fn readable(word: &str) -> String {
    let upper = word.to_uppercase();
    if ACRONYMS.contains(&upper.as_str()) {
        return upper;
    }
    let mut letters = word.chars();
    match letters.next() {
        Some(first) if word.to_lowercase() == word => first.to_uppercase().chain(letters).collect(),
        _ => word.to_owned(),
    }
}

/// Runs of one class; the last capital of a run belongs to the small letters after it.
fn words(name: &str) -> Vec<String> {
    let class = |c: char| match c {
        c if c.is_lowercase() => Class::Lower,
        c if c.is_uppercase() => Class::Upper,
        _ => Class::Other,
    };
    let mut runs: Vec<(Class, String)> = Vec::new();
    for c in name.chars() {
        match runs.last_mut() {
            Some((last, run)) if *last == class(c) => run.push(c),
            _ => runs.push((class(c), c.to_string())),
        }
    }
    for at in 1..runs.len() {
        if runs[at - 1].0 == Class::Upper && runs[at].0 == Class::Lower
            && let Some(capital) = runs[at - 1].1.pop()
        {
            runs[at].1.insert(0, capital);
        }
    }
    // An acronym stays with the capitalized word after it.
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for run in runs.into_iter().map(|(_, run)| run).filter(|run| !run.is_empty()) {
        match words.last_mut() {
            Some(last) if open && run.starts_with(char::is_uppercase) => {
                last.push_str(&run);
                open = false;
            }
            _ => {
                open = run.chars().count() > 1 && run.chars().all(|c| !c.is_alphabetic() || c.is_uppercase());
                words.push(run);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_readable() {
        for (name, want) in [("creationTimestamp", "Creation Timestamp"), ("apiVersion", "API Version"), ("uid", "UID"), ("f:spec", "f:spec"), ("holderIdentity", "Holder Identity"), ("HTTPRoute", "HTTPRoute"), ("clusterIPs", "Cluster I Ps"), ("nonResourceURLs", "Non Resource URLs"), ("x-y", "X - Y")] {
            assert_eq!(label(name), want);
        }
    }
}
