//! GET and LIST: from memory, by resourceVersion, in pages, by selectors.
//!
//! Semantics of resourceVersion and resourceVersionMatch: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions

use std::sync::Arc;
use std::time::Duration;

use ::api::selector::{FieldSelector, LabelSelector};
use ::api::{Cause, Fields, Object, Reason, Resource, Status};
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use client::ListOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{CommitError, WatchItem};

use crate::api::Api;
use crate::custom::conversion;
use crate::registry::policy;
use crate::special::{components, convert};

/// How many keys one step of a selective list reads, so that a page with a selector does not hold everything at once.
const SELECTIVE_STEP: usize = 2_000;

/// Upstream's cacher: for so long a revision is waited for.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// Below this everything lies.
const EVERYTHING: &str = "/registry/";

/// Which objects of a collection a request is about.
pub struct Selection {
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
}

impl Selection {
    pub fn parse(row: &Resource, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = match labels {
            "" => None,
            text => Some(LabelSelector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?),
        };
        let fields = match fields {
            "" => None,
            text => {
                let selector = FieldSelector::parse(text).map_err(Status::bad_request)?;
                for field in selector.terms().iter().map(|term| term.field.as_str()) {
                    if !matches!(field, "metadata.name" | "metadata.namespace") && !row.selectable_fields.iter().any(|known| known == field) {
                        return Err(Status::bad_request(unknown_field(row, field)));
                    }
                }
                Some(selector)
            }
        };
        Ok(Self { labels, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    pub fn matches(&self, row: &Resource, object: &Object) -> bool {
        let meta = object.meta();
        if let Some(labels) = &self.labels
            && !labels.matches(&meta.labels)
        {
            return false;
        }
        let Some(fields) = &self.fields else { return true };
        let find = |value: &Value| -> Fields { row.selectable_fields.iter().map(|field| ((**field).into(), policy(row).selectable(value, field).unwrap_or_default().into())).collect() };
        fields.matches(|field| match field {
            "metadata.name" => meta.name.clone(),
            "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
            other => match object.fields(find).iter().find(|(field, _)| **field == *other) {
                Some((_, value)) => value.to_string(),
                // Another version of the kind, with other fields, was asked first.
                None => object.value().ok().and_then(|value| policy(row).selectable(&value, other)).unwrap_or_default(),
            },
        })
    }
}

/// What a kind that cannot be selected by a field says; each has its own words.
fn unknown_field(row: &Resource, field: &str) -> String {
    match (&*row.group, &*row.plural) {
        ("batch", "jobs") => format!("field label {field:?} not supported for Job"),
        ("apps", "replicasets") => format!("field label {field:?} not supported for appsv1.ReplicaSet"),
        _ if row.custom.is_some() => format!("field label not supported: {field}"),
        ("", _) | ("certificates.k8s.io", _) if row.selectable_fields.iter().any(|known| !known.starts_with("metadata.")) => format!("field label not supported: {field}"),
        _ => format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
    }
}

/// What LIST answers, before it is encoded.
pub struct Listed {
    pub items: Vec<Arc<Object>>,
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

/// A continue token: where the next page starts, as of which revision.
#[derive(Serialize, Deserialize)]
struct Continue {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

/// As Go's base64.RawURLEncoding reads: it does not look at bits beyond the last byte.
const TOKENS: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone).with_decode_allow_trailing_bits(true));

/// In place of a revision: go on in the present, whatever has changed.
const INCONSISTENT: i64 = -1;

impl Continue {
    fn encode(revision: i64, start: &str) -> String {
        let token = Self { v: "meta.k8s.io/v1".into(), rv: revision, start: start.into() };
        TOKENS.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let refused = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let raw = TOKENS.decode(text).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) => at,
                DecodeError::InvalidLastSymbol { offset, .. } => offset,
                // The last group's first letter, as Go counts.
                DecodeError::InvalidLength(length) => length / 4 * 4,
                DecodeError::InvalidPadding => text.len(),
            };
            refused(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token: Self = serde_json::from_slice(&raw).map_err(|error| refused(&crate::decode::go_json_error(&raw, &error)))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(refused(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(refused("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(refused("encoded start key empty (version meta.k8s.io/v1)"));
        }
        if token.start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refused(&token.start));
        }
        Ok(token)
    }
}

pub(crate) fn parse_version(text: &str) -> Result<Option<u64>, Status> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }),
    }
}

/// A revision that has not come yet; clients know it by its cause.
pub(crate) fn too_large(asked: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {asked}, current: {current}"), 1);
    status.details.causes.push(Cause { reason: "ResourceVersionTooLarge".into(), message: "Too large resource version".into(), field: String::new() });
    status
}

impl Api {
    /// Reads that follow see whatever was acknowledged to anyone before, by whichever API server.
    pub(crate) async fn fresh(&self) -> Result<(), Status> {
        if !self.store.is_shared() {
            return Ok(());
        }
        self.store.barrier().await.map(drop).map_err(|error| match error {
            CommitError::Unknown(why) => Status::failure(500, Reason::Unknown, why),
            error => Status::unavailable(format!("the store cannot be read: {error}")),
        })
    }

    /// Waits until reads can see `version`, for as long as upstream does.
    pub(crate) async fn reached(&self, version: u64) -> Result<(), Status> {
        if version > self.store.revision() {
            self.fresh().await?;
        }
        if version > self.store.revision()
            && let Ok(mut news) = self.store.watch(EVERYTHING, self.store.revision())
        {
            let coming = async { while self.store.revision() < version && matches!(news.next().await, Some(WatchItem::Event(_) | WatchItem::Progress(_))) {} };
            // Whether it has come is looked at below.
            let _ = tokio::time::timeout(BLOCK_TIMEOUT, coming).await;
        }
        if version > self.store.revision() { Err(too_large(version, self.store.revision())) } else { Ok(()) }
    }

    pub async fn get(&self, row: &Resource, namespace: Option<&str>, name: &str) -> Result<Arc<Object>, Status> {
        if components::is(row) {
            return components::one(name);
        }
        self.fresh().await?;
        convert::shown(&self.outbound, row, self.stored(row, namespace, name)?).await
    }

    pub async fn list(&self, row: &Resource, namespace: Option<&str>, options: &ListOptions) -> Result<Listed, Status> {
        let selection = Selection::parse(row, &options.label_selector, &options.field_selector)?;
        if components::is(row) {
            let items = components::all().into_iter().filter(|object| selection.matches(row, object)).collect();
            return Ok(Listed { items, revision: self.store.revision(), continue_token: String::new(), remaining: None });
        }
        let prefix = row.key_prefix(namespace);
        let wanted = parse_version(&options.resource_version)?;
        // Any state will do for version 0, and a page goes on from where the one before was.
        if options.continue_token.is_empty() && wanted.is_none_or(|version| version > self.store.revision()) {
            self.fresh().await?;
        }
        if let Some(version) = wanted.filter(|_| options.continue_token.is_empty() && options.resource_version_match != "Exact") {
            self.reached(version).await?;
        }
        let (at, mut after) = self.starting_point(&prefix, options, wanted)?;
        let limit = options.limit;
        let mut items = Vec::new();
        let expired = |compacted: store::Compacted| {
            if options.continue_token.is_empty() {
                Status::expired(format!("The resourceVersion for the provided list is too old. {compacted}"))
            } else {
                self.inconsistent_continue(options)
            }
        };
        let step = if limit == 0 {
            0
        } else if selection.is_everything() {
            limit
        } else {
            SELECTIVE_STEP.max(limit)
        };
        let mut at = at;
        let mut fetched = 0;
        loop {
            let page = self.store.list(&prefix, at, after.as_deref(), step).map_err(expired)?;
            at = Some(page.revision);
            let count = page.items.len();
            fetched += count;
            let mut read = page.items;
            if let Some(custom) = &row.custom {
                // A page at a time: a webhook is asked once for all of it. Custom fields are selected in the form that is shown.
                let (keys, objects): (Vec<_>, Vec<_>) = read.into_iter().unzip();
                read = keys.into_iter().zip(conversion::shown(&self.outbound, row, custom, objects).await?).collect();
            }
            for (index, (key, object)) in read.into_iter().enumerate() {
                if !selection.matches(row, &object) {
                    continue;
                }
                items.push(if row.custom.is_some() { object } else { convert::from_storage(row, object)? });
                if limit > 0 && items.len() == limit {
                    let left = page.remaining + (count - index - 1) as u64;
                    let more = page.more || index + 1 < count;
                    let token = if more { Continue::encode(page.revision as i64, key.strip_prefix(prefix.as_str()).unwrap_or(&key)) } else { String::new() };
                    let remaining = (more && selection.is_everything()).then_some(left);
                    self.measured.listed(row, fetched, items.len());
                    return Ok(Listed { items, revision: page.revision, continue_token: token, remaining });
                }
                after = Some(key.to_string());
            }
            if !page.more {
                self.measured.listed(row, fetched, items.len());
                return Ok(Listed { items, revision: page.revision, continue_token: String::new(), remaining: None });
            }
        }
    }

    /// The revision to read at and the key to start after.
    fn starting_point(&self, prefix: &str, options: &ListOptions, wanted: Option<u64>) -> Result<(Option<u64>, Option<String>), Status> {
        if !options.continue_token.is_empty() {
            if wanted.is_some_and(|version| version != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = Continue::decode(&options.continue_token)?;
            let after = Some(format!("{prefix}{}", token.start));
            return Ok((u64::try_from(token.rv).ok(), after));
        }
        let Some(version) = wanted else { return Ok((None, None)) };
        if version > self.store.revision() {
            return Err(too_large(version, self.store.revision()));
        }
        match options.resource_version_match.as_str() {
            "Exact" if version == 0 => Err(Status::bad_request("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
            "Exact" => Ok((Some(version), None)),
            // Upstream reads a page with a limit and no match exactly at the version.
            "" if options.limit > 0 && version > 0 => Ok((Some(version), None)),
            "" | "NotOlderThan" => Ok((None, None)),
            other => Err(Status::bad_request(format!("resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""))),
        }
    }

    /// 410 with a token that goes on from the same key in the present.
    fn inconsistent_continue(&self, options: &ListOptions) -> Status {
        let start = Continue::decode(&options.continue_token).map(|token| token.start).unwrap_or_default();
        Status::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
            .with_continue(Continue::encode(INCONSISTENT, &start))
    }

    /// Every object a collection delete is about.
    pub async fn delete_collection(&self, row: &Resource, namespace: Option<&str>, options: &client::DeleteOptions, list: &ListOptions, cx: &crate::api::Context) -> Result<Vec<Arc<Object>>, Status> {
        let listed = self.list(row, namespace, list).await?;
        for object in &listed.items {
            let meta = object.meta();
            match self.delete(row, meta.namespace.as_deref(), &meta.name, options, cx).await {
                Ok(_) => {}
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(listed.items)
    }
}
