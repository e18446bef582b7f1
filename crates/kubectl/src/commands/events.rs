//! `kubectl events`: what happened, oldest first, once or as it happens.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/events.

use api::columns::since;
use serde_json::{Value, json};

use super::pods::{array, text as at};
use super::watching;
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::output;
use crate::printers::{OUTPUT, Printer, hide_managed_fields};
use crate::session::{Query, Session};
use crate::tabwriter::Columns;

const FLAGS: &[Flag] = &[
    switch("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    text("chunk-size", "500", "Return large lists in chunks rather than all at once. Pass 0 to disable."),
    text("for", "", "Filter events to only those pertaining to the specified resource."),
    switch("no-headers", "When using the default output format, don't print headers."),
    list("types", "Output only events of given types."),
    switch("watch", "After listing the requested events, watch for more events.").short('w'),
];

command!(EVENTS, "events", [], "[(-o|--output=)json|yaml|name|...] [--for TYPE/NAME] [--watch] [--types=Normal,Warning] [options]", "List events", [FLAGS, OUTPUT], run);

/// When it was last seen, for sorting.
fn last(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp"].into_iter().map(|pointer| at(event, pointer)).find(|time| !time.is_empty()).unwrap_or("")
}

fn interval(event: &Value, now: jiff::Timestamp) -> String {
    let age = |time: &str| if time.is_empty() { "<unknown>".to_owned() } else { since(time, now) };
    let first = age(if at(event, "/eventTime").is_empty() { at(event, "/firstTimestamp") } else { at(event, "/eventTime") });
    if event["series"].is_object() {
        return format!("{} (x{} over {first})", age(at(event, "/series/lastObservedTime")), event["series"]["count"]);
    }
    match event["count"].as_i64() {
        Some(count) if count > 1 => format!("{} (x{count} over {first})", age(at(event, "/lastTimestamp"))),
        _ => first,
    }
}

fn row(event: &Value, all: bool, now: jiff::Timestamp) -> Vec<String> {
    let mut row = vec![
        interval(event, now),
        at(event, "/type").to_owned(),
        at(event, "/reason").to_owned(),
        format!("{}/{}", at(event, "/involvedObject/kind"), at(event, "/involvedObject/name")),
        at(event, "/message").trim().to_owned(),
    ];
    if all {
        row.insert(0, at(event, "/metadata/namespace").to_owned());
    }
    row
}

/// `Pod/web-0` from `pod/web-0`, by the server's names.
async fn about(session: &Session, args: &Args) -> Result<Option<(String, String, String)>> {
    let Some(word) = args.given("for") else { return Ok(None) };
    let Some((kind, name)) = word.split_once('/') else { return fail("--for must be in resource/name form") };
    let resource = session.resource(kind).await?;
    Ok(Some((resource.api_version(), resource.kind, name.to_owned())))
}

fn wanted(event: &Value, about: Option<&(String, String, String)>, types: &[String]) -> bool {
    let of = about.is_none_or(|(_, kind, name)| at(event, "/involvedObject/kind") == kind && at(event, "/involvedObject/name") == name);
    of && (types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(at(event, "/type"))))
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    args.none()?;
    let types = args.slice("types");
    if let Some(other) = types.iter().find(|kind| !["normal", "warning"].contains(&kind.to_lowercase().as_str())) {
        return fail(format!("valid --types are Normal or Warning, not {other}"));
    }
    let printer = Printer::of(args)?;
    let all = args.on("all-namespaces");
    let about = about(session, args).await?;
    let path = if all { "/api/v1/events".to_owned() } else { format!("/api/v1/namespaces/{}/events", session.namespace()?) };
    let selector = about.as_ref().map(|(_, kind, name)| format!("involvedObject.kind={kind},involvedObject.name={name}")).unwrap_or_default();
    let listed = session.get(&Query::of(&path).with("fieldSelector", &selector).end()).await?;
    let mut events: Vec<Value> = array(&listed, "/items").filter(|event| wanted(event, about.as_ref(), &types)).cloned().collect();
    events.sort_by(|a, b| last(a).cmp(last(b)));
    let mut columns = Columns::default();
    let header = || {
        let mut header = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned).to_vec();
        if all {
            header.insert(0, "NAMESPACE".to_owned());
        }
        header
    };
    let headed = !args.on("no-headers");
    match &printer {
        Some(printer) => {
            let items: Vec<Value> = events.iter().map(whole).collect();
            printer.print(&json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": items}), "")?;
        }
        None if events.is_empty() && !args.on("watch") => {
            output::complain(if all { "No events found.".to_owned() } else { format!("No events found in {} namespace.", session.namespace()?) });
            return Ok(());
        }
        None => {
            let now = jiff::Timestamp::now();
            let rows: Vec<Vec<String>> = headed.then(header).into_iter().chain(events.iter().map(|event| row(event, all, now))).collect();
            output::write(columns.rows(&rows).as_bytes());
        }
    }
    if !args.on("watch") {
        return Ok(());
    }
    let mut version = at(&listed, "/metadata/resourceVersion").to_owned();
    loop {
        let mut watch = watching::open(session, Query::of(&path).with("fieldSelector", &selector).with("resourceVersion", &version)).await?;
        while let Some((kind, event)) = watch.next().await? {
            version = at(&event, "/metadata/resourceVersion").to_owned();
            if kind == "DELETED" || !wanted(&event, about.as_ref(), &types) {
                continue;
            }
            match &printer {
                Some(printer) => printer.print(&whole(&event), &format!("event/{}", at(&event, "/metadata/name")))?,
                None => output::write(columns.rows(&[row(&event, all, jiff::Timestamp::now())]).as_bytes()),
            }
        }
    }
}

fn whole(event: &Value) -> Value {
    let mut event = event.clone();
    event["apiVersion"] = "v1".into();
    event["kind"] = "Event".into();
    hide_managed_fields(&mut event);
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often() {
        let now: jiff::Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        for (event, want) in [
            (json!({"firstTimestamp": "2026-01-01T00:00:00Z", "count": 1}), "60s"),
            (json!({"firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:56Z", "count": 13}), "4s (x13 over 60s)"),
            (json!({"eventTime": "2026-01-01T00:00:30Z", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:59Z"}}), "1s (x2 over 30s)"),
        ] {
            assert_eq!(interval(&event, now), want);
        }
    }
}
