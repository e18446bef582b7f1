//! A watch as commands use it: events one by one, until something is true.

use http::Method;
use serde_json::Value;

use client::remote::Lines;

use crate::error::{Error, Result};
use crate::session::{Query, Session};

pub struct Watch(Lines);

/// `query` names the collection, its selectors and the version to start from.
pub async fn open(session: &Session, query: Query) -> Result<Watch> {
    let path = query.with("watch", "true").end();
    let response = session.open(Method::GET, &path, &[("accept", "application/json")], Vec::new()).await?;
    Ok(Watch(Lines::new(response)))
}

impl Watch {
    /// Kind of the event and its object; None when the server ends the watch.
    pub async fn next(&mut self) -> Result<Option<(String, Value)>> {
        while let Some(line) = self.0.next().await {
            // A connection that breaks ends the watch like the server's own timeout: whoever needs more asks again.
            let Ok(line) = line else { return Ok(None) };
            let mut event: Value = serde_json::from_slice(&line).map_err(|error| Error::Message(format!("unable to decode an event from the watch stream: {error}")))?;
            let object = event["object"].take();
            match event["type"].as_str().unwrap_or("") {
                "BOOKMARK" => {}
                "ERROR" => return Err(serde_json::from_value::<api::Status>(object).unwrap_or_default().into()),
                kind => return Ok(Some((kind.to_owned(), object))),
            }
        }
        Ok(None)
    }
}

/// Was the watch's version too old, so that listing again helps?
pub fn expired(error: &Error) -> bool {
    error.status().is_some_and(|status| status.code == 410)
}
