//! Keeps the configuration objects as they should be, makes seats of them, and says on FlowSchemas whether their level is there.
//!
//! Watches and writes: FlowSchemas, PriorityLevelConfigurations. Mirrors kube-apiserver's registry/flowcontrol/ensurer (mandatory objects are put right, suggested ones too
//! unless the administrator took them over, `apf.kubernetes.io/autoupdate-spec`) and apf_controller.go (the `Dangling` condition; seats are balanced every ten seconds while
//! there are requests).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::api::{Object, Resource, Status, strategy};
use client::DeleteOptions;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::defaults::{self, AUTO_UPDATE, Bootstrap};
use super::demand::PERIOD_SECONDS;
use super::levels;
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::decode;
use crate::follow::follow;
use crate::registry::{Part, metadata, text};
use crate::special::pods::set_condition;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "/registry/flowschemas/";
const LEVELS: &str = "/registry/prioritylevelconfigurations/";
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";

fn context(manager: &str) -> Context {
    Context { field_manager: manager.into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) }
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    if !api.flow_control.fair {
        return;
    }
    tokio::join!(configure(&api, shutdown.clone()), balance(&api, shutdown));
}

async fn configure(api: &Arc<Api>, shutdown: watch::Receiver<bool>) {
    let (mut of_levels, mut of_schemas) = (follow(&api.store, LEVELS, shutdown.clone()), follow(&api.store, SCHEMAS, shutdown));
    loop {
        let news = tokio::select! {
            news = of_levels.next() => news,
            news = of_schemas.next() => news,
        };
        if news.is_none() {
            return;
        }
        keep(api, LEVELS, "prioritylevelconfigurations", defaults::priority_levels()).await;
        keep(api, SCHEMAS, "flowschemas", defaults::flow_schemas()).await;
        let (levels, schemas) = (values(api, LEVELS), values(api, SCHEMAS));
        api.flow_control.configure(&levels, &schemas);
        let Some(row) = api.serving.rows().find(GROUP, "v1", "flowschemas") else { continue };
        let known = |name: &str| levels.iter().any(|level| text(level, "/metadata/name") == name);
        join_all(schemas.iter().map(|schema| condition(api, &row, schema, known(text(schema, "/spec/priorityLevelConfiguration/name"))))).await;
    }
}

async fn balance(api: &Api, mut shutdown: watch::Receiver<bool>) {
    let flow_control = &api.flow_control;
    loop {
        tokio::select! {
            () = flow_control.stir.notified() => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        loop {
            tokio::select! {
                () = sleep(Duration::from_secs_f64(PERIOD_SECONDS)) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            flow_control.stirred.store(false, Ordering::Relaxed);
            let digested = flow_control.digested.load_full();
            let fair_fraction = levels::rebalance(&digested.levels, flow_control.now());
            tracing::trace!(fair_fraction, "seats are balanced");
            if levels::is_settled(&digested.levels) && !flow_control.stirred.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

fn stored(api: &Api, prefix: &str) -> Vec<Arc<Object>> {
    api.store.list(prefix, None, None, 0).map(|page| page.items.into_iter().map(|(_, object)| object).collect()).unwrap_or_default()
}

fn values(api: &Api, prefix: &str) -> Vec<Value> {
    stored(api, prefix).iter().filter_map(|object| object.value().ok()).collect()
}

/// Makes what is missing, puts right what is not as it should be, takes away what was a default once.
async fn keep(api: &Api, prefix: &str, plural: &str, wanted: Vec<Bootstrap>) {
    let Some(row) = api.serving.rows().find(GROUP, "v1", plural) else { return };
    let obsolete = stored(api, prefix).into_iter().filter(|object| {
        let meta = object.meta();
        parsed(meta.annotations.get(AUTO_UPDATE).map(String::as_str)) == Some(true) && !wanted.iter().any(|default| text(&default.object, "/metadata/name") == meta.name)
    });
    let (cx, options) = (context(PRODUCER), DeleteOptions::default());
    let names: Vec<String> = obsolete.map(|object| object.meta().name.clone()).collect();
    let (row, cx) = (&*row, &cx);
    let outcomes = join_all(wanted.into_iter().map(|default| ensure(api, row, default, cx))).await;
    let removed = join_all(names.iter().map(|name| api.delete(row, None, name, &options, cx))).await;
    for error in outcomes.into_iter().filter_map(Result::err).chain(removed.into_iter().filter_map(Result::err)) {
        // Another API server on the same store may have been quicker.
        if !error.is_already_exists() && !error.is_not_found() && !error.is_conflict() {
            tracing::warn!(%error, plural, "cannot keep a default of priority and fairness");
        }
    }
}

/// `strconv.ParseBool`.
fn parsed(text: Option<&str>) -> Option<bool> {
    match text? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

async fn ensure(api: &Api, row: &Resource, default: Bootstrap, cx: &Context) -> Result<(), Status> {
    let name = text(&default.object, "/metadata/name").to_owned();
    let mut expected = decode::shape(row, default.object, &[], cx)?;
    let Some(current) = api.store.get(&row.key(None, &name)) else {
        return api.create(row, None, expected, cx).await.map(drop);
    };
    strategy::of(row).default(&mut expected);
    let Some(revised) = revise(&current.value().map_err(Status::internal)?, &expected, default.mandatory) else { return Ok(()) };
    tracing::info!(name, "a default of priority and fairness was not as it should be and was updated");
    api.update(row, None, &name, Part::Main, revised, cx).await.map(drop)
}

/// The object put right; `None` when it is, or is not ours to change.
fn revise(current: &Value, expected: &Value, mandatory: bool) -> Option<Value> {
    let annotation = parsed(current.pointer("/metadata/annotations").and_then(|annotations| annotations.get(AUTO_UPDATE)).and_then(Value::as_str));
    // Without a word: as long as nobody has changed it.
    let ours = mandatory || annotation.unwrap_or_else(|| current.pointer("/metadata/generation").and_then(Value::as_i64) == Some(1));
    let differs = ours && current.get("spec") != expected.get("spec");
    if annotation == Some(ours) && !differs {
        return None;
    }
    let mut revised = current.clone();
    if differs {
        revised["spec"] = expected["spec"].clone();
    }
    let metadata = metadata(&mut revised);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[AUTO_UPDATE] = ours.to_string().into();
    Some(revised)
}

/// The `Dangling` condition, as it should be.
fn dangling(level: &str, found: bool) -> (&'static str, &'static str, String) {
    let refers = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    if found { ("False", "Found", format!("{refers} and it exists")) } else { ("True", "NotFound", format!("{refers} but there is no such object")) }
}

async fn condition(api: &Api, row: &Resource, schema: &Value, found: bool) {
    let name = text(schema, "/metadata/name");
    let (status, reason, message) = dangling(text(schema, "/spec/priorityLevelConfiguration/name"), found);
    let is = |object: &Value| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|known| text(known, "/type") == "Dangling" && text(known, "/status") == status && text(known, "/reason") == reason && text(known, "/message") == message)
    };
    if is(schema) {
        return;
    }
    let (cx, now) = (context(CONSUMER), api.now());
    let changed = api.change(row, None, name, Part::Status, &cx, |old| {
        let mut new = old.clone();
        metadata(&mut new).remove("resourceVersion");
        // Another level than it was judged by: its own event brings the next pass.
        if !is(old) && old.pointer("/spec/priorityLevelConfiguration") == schema.pointer("/spec/priorityLevelConfiguration") {
            set_condition(&mut new, json!({"type": "Dangling", "status": status, "lastTransitionTime": now, "reason": reason, "message": message}));
        }
        Ok(new)
    });
    if let Err(error) = changed.await
        && !error.is_not_found()
    {
        tracing::warn!(%error, schema = name, "cannot write whether a FlowSchema has its level");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_the_defaults_are() {
        let object = |annotation: Option<&str>, generation: i64, shares: i64| {
            let mut object = json!({"metadata": {"name": "system", "generation": generation}, "spec": {"shares": shares}});
            if let Some(annotation) = annotation {
                object["metadata"]["annotations"] = json!({(AUTO_UPDATE): annotation});
            }
            object
        };
        let expected = object(Some("true"), 1, 30);
        // What is there, whether it is mandatory, then the shares and the annotation after.
        let table = [
            (object(Some("true"), 1, 30), false, None),
            (object(Some("true"), 2, 31), false, Some((30, "true"))),
            (object(Some("false"), 2, 31), false, None),
            (object(Some("false"), 2, 31), true, Some((30, "true"))),
            (object(None, 1, 30), false, Some((30, "true"))),
            (object(None, 2, 31), false, Some((31, "false"))),
            (object(Some("maybe"), 2, 31), false, Some((31, "false"))),
        ];
        for (current, mandatory, after) in table {
            let revised = revise(&current, &expected, mandatory);
            let seen = revised.as_ref().map(|object| (object["spec"]["shares"].as_i64().unwrap(), object["metadata"]["annotations"][AUTO_UPDATE].as_str().unwrap()));
            assert_eq!(seen, after, "{current} {mandatory}");
        }
    }
}
