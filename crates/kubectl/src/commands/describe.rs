//! `kubectl describe`: finds the objects and fetches what belongs to them; the texts are made in `crate::describe`.

use api::Status;
use futures_util::future::BoxFuture;
use http::Method;
use jiff::Zoned;
use serde_json::Value;

use crate::builder::{self, FILES, Found};
use crate::command::command;
use crate::describe::{self, Fetch};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, on, switch, text};
use crate::output;
use crate::session::{Query, Session};

/// Objects asked for at a time.
const CHUNK: &str = "500";

const FLAGS: &[Flag] = &[
    switch("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    text("chunk-size", CHUNK, "Return large lists in chunks rather than all at once."),
    text("selector", "", "Selector (label query) to filter on.").short('l'),
    on("show-events", "If true, display events related to the described object."),
];
command!(DESCRIBE, "describe", [], "(-f FILENAME | TYPE [NAME_PREFIX | -l label] | TYPE/NAME) [options]", "Show details of a specific resource or group of resources", [FLAGS, FILES], run);

struct Lists<'s> {
    http: &'s client::HttpClient,
}

impl Fetch for Lists<'_> {
    fn list<'a>(&'a self, path: &'a str, query: &'a [(String, String)]) -> BoxFuture<'a, Result<Vec<Value>, Status>> {
        Box::pin(async move {
            let mut items = Vec::new();
            let mut token = String::new();
            loop {
                let mut page = Query::of(path).with("limit", CHUNK).with("continue", &token);
                for (key, value) in query {
                    page = page.with(key, value);
                }
                let response = self.http.request(Method::GET, &page.end(), &[("accept", "application/json")], Vec::new()).await.map_err(|error| Status::unavailable(error.to_string()))?;
                let bytes = client::remote::success(response).await?;
                let mut list: Value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
                token = list.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or("").to_owned();
                items.append(list["items"].as_array_mut().unwrap_or(&mut Vec::new()));
                if token.is_empty() {
                    return Ok(items);
                }
            }
        })
    }
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    if args.positional.is_empty() && !builder::has_files(args) {
        return fail("You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources.");
    }
    let mut errors = Vec::new();
    let mut found: Vec<Found> = Vec::new();
    if builder::has_files(args) {
        for one in builder::resolve(session, args, &args.positional).await? {
            match one {
                Ok(one) => found.push(one),
                Err(error) => errors.push(error),
            }
        }
    } else {
        if args.given("selector").is_some() && args.positional.iter().any(|word| word.contains('/')) {
            return fail("selectors and the all flag cannot be used when passing resource/name arguments");
        }
        for wanted in builder::arguments(session, &args.positional, args.on("all-namespaces")).await? {
            match &wanted.name {
                Some(name) => match session.get(&wanted.path()).await {
                    Ok(object) => found.push(Found { namespace: wanted.namespace.clone(), ..Found::of(&wanted.resource, object, "") }),
                    Err(error) if error.is_not_found() => {
                        // A name that is nobody's may be the beginning of some.
                        let list = session.get(&wanted.resource.collection(wanted.namespace.as_deref())).await?;
                        let before = found.len();
                        found.extend(items(&wanted.resource, &list).filter(|one| one.name.starts_with(name.as_str())));
                        if found.len() == before {
                            errors.push(error);
                        }
                    }
                    Err(error) => errors.push(error),
                },
                None => match session.get(&Query::of(wanted.path()).with("labelSelector", args.text("selector")).end()).await {
                    Ok(list) => found.extend(items(&wanted.resource, &list)),
                    Err(error) => errors.push(error),
                },
            }
        }
    }
    if found.is_empty() && errors.is_empty() {
        if args.on("all-namespaces") {
            output::complain("No resources found");
        } else {
            output::complain(format!("No resources found in {} namespace.", session.namespace()?));
        }
        return Ok(());
    }
    let lists = Lists { http: session.http()? };
    let now = Zoned::now();
    for (at, one) in found.iter().enumerate() {
        if at > 0 {
            output::write(b"\n\n");
        }
        match describe::command(&lists, &one.resource.group, &one.resource.kind, &one.object, args.on("show-events"), &now).await {
            Ok(text) => output::write(text.as_bytes()),
            Err(status) => errors.push(status.into()),
        }
    }
    builder::gather(errors)
}

fn items<'a>(resource: &'a crate::resources::Resource, list: &'a Value) -> impl Iterator<Item = Found> + 'a {
    list["items"].as_array().into_iter().flatten().map(|item| {
        let mut item = item.clone();
        item["apiVersion"] = resource.api_version().into();
        item["kind"] = resource.kind.clone().into();
        Found::of(resource, item, "")
    })
}
