//! The table of events at the end of a description.

use api::kinds::json::{child, text};
use jiff::Timestamp;
use serde_json::Value;

use super::Related;
use super::writer::{Writer, has, integer, line, or};

pub fn events(related: &Related, w: &mut Writer) {
    let Some(events) = &related.events else { return };
    if events.is_empty() {
        line!(w, 0, "Events:\t<none>");
        return;
    }
    w.flush();
    let mut sorted: Vec<&Value> = events.iter().collect();
    sorted.sort_by_key(|event| text(event, "lastTimestamp").parse::<Timestamp>().ok());
    w.write(0, "Events:\n  Type\tReason\tAge\tFrom\tMessage\n");
    line!(w, 1, "----\t------\t----\t----\t-------");
    for event in sorted {
        let first = w.since(event, if has(event, "eventTime") { "eventTime" } else { "firstTimestamp" });
        let age = if child(event, "series").is_some() {
            format!("{} (x{} over {first})", w.since(event, "series.lastObservedTime"), integer(event, "series.count"))
        } else if integer(event, "count") > 1 {
            format!("{} (x{} over {first})", w.since(event, "lastTimestamp"), integer(event, "count"))
        } else {
            first
        };
        let source = or(text(event, "source.component"), text(event, "reportingComponent"));
        let field = text(event, "involvedObject.fieldPath");
        let message = text(event, "message").trim();
        let message = if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") };
        line!(w, 1, "{}\t{}\t{age}\t{source}\t{message}", text(event, "type"), text(event, "reason"));
    }
}
