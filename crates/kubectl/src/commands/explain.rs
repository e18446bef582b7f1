//! `kubectl explain`: finds what the words mean and fetches the OpenAPI v3 document; the text is made in `crate::explain`.

use api::Status;
use futures_util::future::BoxFuture;
use http::Method;
use serde_json::Value;

use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::explain::{self, Fetch, Subject};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[
    text("api-version", "", "Use given api-version (group/version) of the resource."),
    text("max-depth", "0", "When --recursive is specified, limit the depth of fields displayed."),
    text("output", "plaintext", "Format in which to render the schema.").short('o'),
    switch("recursive", "When true, print the name of all the fields recursively. Otherwise, print the available fields with their description.").short('R'),
];
command!(EXPLAIN, "explain", [], "TYPE [--recursive=FALSE|TRUE] [--api-version=api-version-group] [-o|--output=plaintext|plaintext-openapiv2] [options]", "Get documentation for a resource", [FLAGS], run);

struct Documents<'s> {
    http: &'s client::HttpClient,
}

impl Fetch for Documents<'_> {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let response = self.http.request(Method::GET, path, &[("accept", "application/json")], Vec::new()).await.map_err(|error| Status::unavailable(error.to_string()))?;
            serde_json::from_slice(&client::remote::success(response).await?).map_err(Status::internal)
        })
    }
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    let words = match args.positional.as_slice() {
        [] => return fail("You must specify the type of resource to explain. Use \"kubectl api-resources\" for a complete list of supported resources.\n"),
        [words] => words,
        _ => return fail("We accept only this format: explain RESOURCE\n"),
    };
    let mapper = session.mapper().await?;
    let trimmed = words.strip_suffix('.').unwrap_or(words);
    // `deployments.apps.spec` names the group; else what stands before the first dot is the resource.
    let qualified = mapper.resources.iter().find(|resource| {
        resource.preferred && !resource.group.is_empty() && trimmed.strip_prefix(&resource.qualified()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    let mut resource = match qualified {
        Some(resource) => resource.clone(),
        None => {
            let word = trimmed.split('.').next().unwrap_or(trimmed);
            let Some(found) = mapper.lookup(word) else {
                // The one place where upstream says this without `error:`.
                output::complain(format!("the server doesn't have a resource type {word:?}"));
                return Err(Error::Silent(1));
            };
            found.clone()
        }
    };
    let path = explain::fields(words, &resource.plural, &resource.group);
    if let Some(version) = args.given("api-version") {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        resource.group = group.to_owned();
        resource.version = version.to_owned();
    }
    let subject = Subject { group: &resource.group, version: &resource.version, resource: &resource.plural };
    match explain::command(&Documents { http: session.http()? }, subject, &path, args.on("recursive")).await {
        Ok(text) => {
            output::write(text.as_bytes());
            Ok(())
        }
        Err(error) => {
            output::write(error.head().as_bytes());
            Err(Error::Message(error.to_string()))
        }
    }
}
