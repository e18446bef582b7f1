//! `kubectl get`: tables from the server, or objects in any form; once, or as they change.

use http::Method;
use serde_json::{Value, json};

use crate::builder::{self, FILES, Wanted};
use crate::classic;
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, on, switch, text};
use crate::jsonpath::JsonPath;
use crate::output;
use crate::printers::{OUTPUT, Printer, hide_managed_fields, table};
use crate::session::{Query, Session};
use crate::tabwriter::Columns;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
/// Objects asked for at a time.
const CHUNK: &str = "500";

const FLAGS: &[Flag] = &[
    switch("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    text("chunk-size", CHUNK, "Return large lists in chunks rather than all at once."),
    text("field-selector", "", "Selector (field query) to filter on."),
    switch("ignore-not-found", "If set to true, suppresses NotFound error for specific objects that do not exist."),
    list("label-columns", "Accepts a comma separated list of labels that are going to be presented as columns.").short('L'),
    switch("no-headers", "When using the default or custom-column output format, don't print headers."),
    switch("output-watch-events", "Output watch event objects when --watch or --watch-only is used."),
    text("raw", "", "Raw URI to request from the server."),
    text("selector", "", "Selector (label query) to filter on.").short('l'),
    on("server-print", "If true, have the server return the appropriate table output."),
    switch("show-kind", "If present, list the resource type for the requested object(s)."),
    switch("show-labels", "When printing, show all labels as the last column."),
    text("sort-by", "", "If non-empty, sort list types using this field specification."),
    text("subresource", "", "If specified, gets the subresource of the requested object."),
    switch("watch", "After listing/getting the requested object, watch for changes.").short('w'),
    switch("watch-only", "Watch for changes to the requested object(s), without listing/getting first."),
];

command!(GET, "get", [], "[(-o|--output=)json|yaml|name|...] (TYPE[.VERSION][.GROUP] [NAME | -l label] | TYPE[.VERSION][.GROUP]/NAME ...) [flags] [options]", "Display one or many resources", [FLAGS, FILES, OUTPUT], run);

async fn run(session: &Session, args: &Args) -> Result<()> {
    if let Some(raw) = args.given("raw") {
        output::write(&session.text(raw).await?);
        return Ok(());
    }
    if args.positional.is_empty() && !builder::has_files(args) {
        let told = "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.\n\nerror: Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).\nSee 'kubectl get -h' for help and examples";
        output::complain(told);
        return Err(Error::Silent(1));
    }
    let printer = Printer::of(args)?;
    if args.on("export") {
        classic::deprecated_flag("export");
    }
    let mut wanted = Vec::new();
    if builder::has_files(args) {
        for document in builder::documents(session, args).await? {
            wanted.push(builder::place(session, document?).await?);
        }
    } else {
        if args.given("selector").is_some() && (args.positional.len() > 1 || args.positional.iter().any(|word| word.contains('/'))) {
            return fail("name cannot be provided when a selector is specified");
        }
        wanted = builder::arguments(session, &args.positional, args.on("all-namespaces")).await?;
    }
    if args.on("watch") || args.on("watch-only") {
        return watch(session, args, &wanted, printer.as_ref()).await;
    }
    match printer {
        Some(printer) => objects(session, args, &wanted, &printer).await,
        None => tables(session, args, &wanted).await,
    }
}

fn query(wanted: &Wanted, args: &Args) -> Query {
    match &wanted.name {
        Some(_) if args.given("subresource").is_some() => Query::of(format!("{}/{}", wanted.path(), args.text("subresource"))),
        Some(_) => Query::of(wanted.path()),
        None => Query::of(wanted.path()).with("labelSelector", args.text("selector")).with("fieldSelector", args.text("field-selector")),
    }
}

/// All pages of a list as one; a single object as it is.
async fn fetch(session: &Session, args: &Args, wanted: &Wanted, accept: &str, include: &str) -> Result<Value> {
    let items = if accept == TABLE { "rows" } else { "items" };
    let mut whole: Option<Value> = None;
    let mut token = String::new();
    loop {
        let mut query = query(wanted, args);
        if wanted.name.is_none() {
            query = query.with("limit", if args.text("chunk-size") == "0" { "" } else { args.text("chunk-size") }).with("continue", &token);
        }
        let mut page = session.get_as(&query.with("includeObject", include).end(), accept).await.map_err(|error| builder::list_error(error, wanted, args))?;
        token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or("").to_owned();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                if let (Some(all), Some(more)) = (whole.get_mut(items).and_then(Value::as_array_mut), page.get_mut(items).and_then(Value::as_array_mut)) {
                    all.append(more);
                }
            }
        }
        if token.is_empty() {
            return Ok(whole.unwrap_or_default());
        }
    }
}

fn sort_rows(rows: &mut [Value], by: &str, inside: &str) -> Result<()> {
    let path = JsonPath::relaxed(by).map_err(Error::Message)?.allow_missing();
    let mut keyed: Vec<(Option<Value>, Value)> = rows.iter().map(|row| (path.find(if inside.is_empty() { row } else { row.get(inside).unwrap_or(&Value::Null) }).ok().and_then(|found| found.into_iter().next()), row.clone())).collect();
    if !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none()) {
        return fail(format!("couldn't find any field with path \"{{{}}}\" in the list of objects", by.trim_start_matches('{').trim_end_matches('}')));
    }
    keyed.sort_by(|(a, _), (b, _)| order(a.as_ref(), b.as_ref()));
    rows.iter_mut().zip(keyed).for_each(|(row, (_, sorted))| *row = sorted);
    Ok(())
}

fn order(a: Option<&Value>, b: Option<&Value>) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Some(Value::String(a)), Some(Value::String(b))) => match (api::quantity::Quantity::parse(a), api::quantity::Quantity::parse(b)) {
            (Ok(a), Ok(b)) => a.as_f64().total_cmp(&b.as_f64()),
            _ => a.cmp(b),
        },
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (a, b) => a.map(Value::to_string).cmp(&b.map(Value::to_string)),
    }
}

fn table_options(args: &Args, prefix: String, namespaced: bool) -> table::Options {
    table::Options {
        wide: args.text("output") == "wide",
        no_headers: args.on("no-headers"),
        namespace: args.on("all-namespaces") && namespaced,
        show_labels: args.on("show-labels"),
        label_columns: args.slice("label-columns"),
        prefix,
    }
}

fn many_kinds(args: &Args, wanted: &[Wanted]) -> bool {
    args.on("show-kind") || wanted.iter().any(|one| one.resource != wanted[0].resource) || args.positional.first().is_some_and(|word| word == "all")
}

async fn tables(session: &Session, args: &Args, wanted: &[Wanted]) -> Result<()> {
    let kinds = many_kinds(args, wanted);
    let mut errors = Vec::new();
    let mut groups: Vec<(&Wanted, Vec<Vec<String>>)> = Vec::new();
    let include = if args.given("sort-by").is_some() { "Object" } else { "" };
    for one in wanted {
        let mut table = match fetch(session, args, one, TABLE, include).await {
            Ok(table) => table,
            Err(error) if error.is_not_found() && one.name.is_some() && args.on("ignore-not-found") => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        if table.get("kind").and_then(Value::as_str) != Some("Table") {
            table = plain_table(table);
        }
        if let (Some(by), Some(rows)) = (args.given("sort-by"), table.get_mut("rows").and_then(Value::as_array_mut)) {
            sort_rows(rows, by, "object")?;
        }
        let prefix = if kinds { one.resource.label() } else { String::new() };
        let options = table_options(args, prefix, one.resource.namespaced);
        let same = groups.last().is_some_and(|(last, _)| last.resource == one.resource);
        let lines = table::lines(&table, &options, !same);
        if lines.len() == usize::from(!same && !options.no_headers) {
            continue;
        }
        match groups.last_mut() {
            Some((_, known)) if same => known.extend(lines),
            _ => groups.push((one, lines)),
        }
    }
    for (at, (_, lines)) in groups.iter().enumerate() {
        if at > 0 && !args.on("no-headers") {
            output::line("");
        }
        output::write(Columns::default().rows(lines).as_bytes());
    }
    if groups.is_empty() && errors.is_empty() && !args.on("ignore-not-found") {
        nothing(session, args, wanted)?;
    }
    builder::gather(errors)
}

fn nothing(session: &Session, args: &Args, wanted: &[Wanted]) -> Result<()> {
    let namespaced = wanted.iter().any(|one| one.resource.namespaced);
    if namespaced && !args.on("all-namespaces") {
        output::complain(format!("No resources found in {} namespace.", session.namespace()?));
    } else {
        output::complain("No resources found");
    }
    Ok(())
}

/// For a server that makes no tables of a kind: name and age.
fn plain_table(object: Value) -> Value {
    let items = match object.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![object],
    };
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = items.into_iter().map(|item| json!({"cells": [item["metadata"]["name"], api::columns::age(&item, now)], "object": item})).collect();
    json!({"kind": "Table", "columnDefinitions": [{"name": "Name"}, {"name": "Age"}], "rows": rows})
}

async fn objects(session: &Session, args: &Args, wanted: &[Wanted], printer: &Printer) -> Result<()> {
    let mut errors = Vec::new();
    let mut found: Vec<(Value, String)> = Vec::new();
    let single = wanted.len() == 1 && wanted[0].name.is_some();
    for one in wanted {
        let object = match fetch(session, args, one, "application/json", "").await {
            Ok(object) => object,
            Err(error) if error.is_not_found() && one.name.is_some() && args.on("ignore-not-found") => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let items = match (one.name.is_none(), object.get("items").and_then(Value::as_array)) {
            (true, Some(items)) => items.clone(),
            _ => vec![object],
        };
        for mut item in items {
            if item.get("kind").is_none() {
                item["apiVersion"] = one.resource.api_version().into();
                item["kind"] = one.resource.kind.clone().into();
            }
            if !args.on("show-managed-fields") {
                hide_managed_fields(&mut item);
            }
            if args.on("export") {
                classic::export(&mut item);
            }
            let label = format!("{}/{}", one.resource.label(), item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(""));
            found.push((item, label));
        }
    }
    if let Some(by) = args.given("sort-by") {
        let mut rows: Vec<Value> = found.iter().map(|(item, label)| json!({"object": item, "label": label})).collect();
        sort_rows(&mut rows, by, "object")?;
        found = rows.into_iter().map(|mut row| (row["object"].take(), row["label"].as_str().unwrap_or("").to_owned())).collect();
    }
    if let Printer::Name = printer {
        found.iter().for_each(|(_, label)| output::line(label));
    } else if single {
        if let Some((object, label)) = found.first() {
            printer.print(object, label)?;
        }
    } else if !errors.is_empty() && found.is_empty() {
    } else {
        let items: Vec<Value> = found.into_iter().map(|(object, _)| object).collect();
        printer.print(&json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}), "")?;
    }
    builder::gather(errors)
}

async fn watch(session: &Session, args: &Args, wanted: &[Wanted], printer: Option<&Printer>) -> Result<()> {
    let [one] = wanted else { return fail("you may only specify a single resource type") };
    let accept = if printer.is_none() { TABLE } else { "application/json" };
    let mut columns = Columns::default();
    let mut header = true;
    let mut definitions = Value::Null;
    let events = args.on("output-watch-events");
    let mut options = table_options(args, if args.on("show-kind") { one.resource.label() } else { String::new() }, one.resource.namespaced);
    let mut show = |kind: &str, value: &Value| -> Result<()> {
        match printer {
            None => {
                // Only the first table of a watch says what its columns are.
                let mut value = value.clone();
                match value.get("columnDefinitions").and_then(Value::as_array).filter(|columns| !columns.is_empty()) {
                    Some(_) => definitions = value["columnDefinitions"].clone(),
                    None => value["columnDefinitions"] = definitions.clone(),
                }
                let mut lines = table::lines(&value, &options, header);
                if events {
                    for (at, line) in lines.iter_mut().enumerate() {
                        line.insert(0, if header && !options.no_headers && at == 0 { "EVENT".to_owned() } else { kind.to_owned() });
                    }
                }
                if lines.len() > usize::from(header && !options.no_headers) {
                    output::write(columns.rows(&lines).as_bytes());
                    header = false;
                    options.no_headers = options.no_headers || !header;
                }
                Ok(())
            }
            Some(printer) => {
                let mut value = value.clone();
                if !args.on("show-managed-fields") {
                    hide_managed_fields(&mut value);
                }
                let label = format!("{}/{}", one.resource.label(), value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(""));
                if let Printer::Yaml = printer {
                    output::line("---");
                }
                printer.print(&value, &label)
            }
        }
    };
    let list = fetch(session, args, one, accept, "").await?;
    if !args.on("watch-only") {
        match (printer.is_some(), list.get("items").and_then(Value::as_array)) {
            (true, Some(items)) if one.name.is_none() => items.iter().try_for_each(|item| {
                let mut item = item.clone();
                item["apiVersion"] = one.resource.api_version().into();
                item["kind"] = one.resource.kind.clone().into();
                show("ADDED", &item)
            })?,
            _ => show("ADDED", &list)?,
        }
    }
    let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("");
    let field = match &one.name {
        Some(name) => format!("metadata.name={name}"),
        None => args.text("field-selector").to_owned(),
    };
    let path = Query::of(one.resource.collection(one.namespace.as_deref()))
        .with("watch", "true")
        .with("labelSelector", args.text("selector"))
        .with("fieldSelector", &field)
        .with("resourceVersion", version)
        .end();
    let response = session.open(Method::GET, &path, &[("accept", accept)], Vec::new()).await?;
    let mut lines = client::remote::Lines::new(response);
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| Error::Message(error.to_string()))?;
        let event: Value = serde_json::from_slice(&line).map_err(|error| Error::Message(format!("unable to decode an event from the watch stream: {error}")))?;
        match event["type"].as_str().unwrap_or("") {
            "BOOKMARK" => {}
            "ERROR" => return Err(serde_json::from_value::<api::Status>(event["object"].clone()).unwrap_or_default().into()),
            kind => show(kind, &event["object"])?,
        }
    }
    Ok(())
}
