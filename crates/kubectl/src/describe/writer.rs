//! What all layouts share: indented lines, tab stops, labels, annotations, times.

use api::columns::human_duration;
use api::kinds::json::{child, entry, list, map, text};
use jiff::{Timestamp, Zoned};
use serde_json::Value;

use crate::tabwriter::DESCRIBE;

/// Longer annotations get lines of their own.
const ANNOTATION_WIDTH: usize = 140;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const UNKNOWN: &str = "<unknown>";
/// Go's zero time.
const ZERO_TIME: &str = "Mon, 01 Jan 0001 00:00:00 +0000";

/// `line!(w, 1, "Name:\t{}", name)`: a line at an indentation level of two spaces each.
macro_rules! line {
    ($w:expr, $level:expr, $($arg:tt)*) => { $w.write($level, &format!("{}\n", format_args!($($arg)*))) };
}
pub(super) use line;

pub struct Writer<'a> {
    done: String,
    open: String,
    pub now: &'a Zoned,
    /// Levels added to all that is written.
    pub nested: usize,
}

impl<'a> Writer<'a> {
    pub fn new(now: &'a Zoned) -> Self {
        Self { done: String::new(), open: String::new(), now, nested: 0 }
    }

    /// Control characters would reach the terminal: they are shown instead.
    pub fn write(&mut self, level: usize, text: &str) {
        self.open.extend(std::iter::repeat_n("  ", level + self.nested));
        self.open.push_str(&text.replace('\x1b', "^[").replace('\r', "\\r"));
    }

    /// Tab stops start anew.
    pub fn flush(&mut self) {
        if !self.open.is_empty() {
            self.done.push_str(&DESCRIBE.format(&self.open));
            self.open.clear();
        }
    }

    /// What was written since the last flush, its tabs not yet columns.
    pub fn tabbed(self) -> String {
        self.open
    }

    pub fn finish(mut self) -> String {
        self.flush();
        self.done
    }

    /// `title: a=b`, one a line, sorted.
    pub fn pairs(&mut self, indent: &str, title: &str, pairs: Option<&serde_json::Map<String, Value>>) {
        self.each(indent, title, pairs.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))));
    }

    /// A title and one line for each, `<none>` for none.
    pub fn each(&mut self, indent: &str, title: &str, lines: impl IntoIterator<Item = String>) {
        self.write(0, &format!("{indent}{title}:\t"));
        let mut any = false;
        for text in lines {
            if any {
                self.write(0, indent);
                self.write(0, "\t");
            }
            self.write(0, &format!("{text}\n"));
            any = true;
        }
        if !any {
            self.write(0, "<none>\n");
        }
    }

    pub fn labels(&mut self, object: &Value) {
        self.pairs("", "Labels", map(object, "metadata.labels"));
    }

    pub fn annotations(&mut self, object: &Value) {
        self.annotations_as("Annotations", map(object, "metadata.annotations"));
    }

    pub fn annotations_as(&mut self, title: &str, annotations: Option<&serde_json::Map<String, Value>>) {
        let lines = annotations.into_iter().flatten().filter(|(key, _)| *key != LAST_APPLIED).map(|(key, value)| {
            let value = value.as_str().unwrap_or("");
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + key.len() + 2 <= ANNOTATION_WIDTH && !value.contains('\n') {
                return format!("{key}: {value}");
            }
            let rest: String = value.split('\n').map(|part| format!("\n\t  {}", shorten(part, ANNOTATION_WIDTH - 2))).collect();
            format!("{key}:{rest}")
        });
        self.each("", title, lines);
    }

    /// Name, namespace, labels, annotations.
    pub fn head(&mut self, object: &Value) {
        line!(self, 0, "Name:\t{}", text(object, "metadata.name"));
        line!(self, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
        self.labels(object);
        self.annotations(object);
    }

    /// The same of an object of no namespace.
    pub fn cluster_head(&mut self, object: &Value) {
        line!(self, 0, "Name:\t{}", text(object, "metadata.name"));
        self.labels(object);
        self.annotations(object);
    }

    /// RFC 1123 with a numeric zone.
    pub fn time(&self, object: &Value, path: &str) -> String {
        match zoned(self.now, text(object, path)) {
            Some(at) => at.strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
            None => ZERO_TIME.to_owned(),
        }
    }

    pub fn since(&self, object: &Value, path: &str) -> String {
        match text(object, path).parse::<Timestamp>() {
            Ok(at) => human_duration(self.now.timestamp().duration_since(at).as_secs()),
            Err(_) => UNKNOWN.to_owned(),
        }
    }

    /// `Status: Terminating (lasts 5s)` for what is being deleted.
    pub fn terminating(&self, object: &Value) -> Option<String> {
        has(object, "metadata.deletionTimestamp").then(|| format!("Terminating (lasts {})", self.since(object, "metadata.deletionTimestamp")))
    }
}

pub fn zoned(now: &Zoned, time: &str) -> Option<Zoned> {
    time.parse::<Timestamp>().ok().map(|at| at.to_zoned(now.time_zone().clone()))
}

pub fn has(object: &Value, path: &str) -> bool {
    child(object, path).is_some()
}

pub fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

pub fn integer(object: &Value, path: &str) -> i64 {
    child(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// Go's `True` and `False` of this program.
pub fn capital(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

pub fn capital_or_unset(object: &Value, path: &str) -> &'static str {
    child(object, path).and_then(Value::as_bool).map_or("<unset>", capital)
}

/// A value as Go's `%v` prints it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => format!("map[{}]", fields.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// The value at a path, or other words where there is none.
pub fn shown_or(object: &Value, path: &str, otherwise: &str) -> String {
    child(object, path).map_or_else(|| otherwise.to_owned(), shown)
}

/// `a,b` of a list of strings.
pub fn joined(object: &Value, path: &str, separator: &str) -> String {
    list(object, path).iter().map(shown).collect::<Vec<_>>().join(separator)
}

/// Go's `labels.FormatLabels`: `a=b,c=d`, or `<none>`.
pub fn format_labels(object: &Value, path: &str) -> String {
    let pairs: Vec<String> = map(object, path).into_iter().flatten().map(|(key, value)| format!("{key}={}", shown(value))).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A label selector as a command line would write it; empty for none.
pub fn selector(object: &Value, path: &str) -> String {
    child(object, path).and_then(|selector| api::selector::LabelSelector::from_json(selector).ok()).map(|selector| selector.to_string()).unwrap_or_default()
}

/// The same, `<none>` for none: Go's `metav1.FormatLabelSelector`.
pub fn format_selector(object: &Value, path: &str) -> String {
    or(&selector(object, path), "<none>").to_owned()
}

/// `Kind/name` of the owner that controls it.
pub fn controller(object: &Value) -> Option<String> {
    let owner = list(object, "metadata.ownerReferences").iter().find(|owner| api::kinds::json::flag(owner, "controller"))?;
    Some(format!("{}/{}", text(owner, "kind"), text(owner, "name")))
}

/// The name of a storage class: the old annotation wins.
pub fn storage_class<'a>(object: &'a Value) -> &'a str {
    entry(object, "metadata.annotations", "volume.beta.kubernetes.io/storage-class").unwrap_or_else(|| text(object, "spec.storageClassName"))
}

fn shorten(text: &str, width: usize) -> String {
    if text.len() <= width {
        return text.to_owned();
    }
    let end = (0..=width).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &text[..end])
}
