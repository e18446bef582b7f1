//! The webhooks that are for a request, asked: mutating ones one after the other, validating ones all at once.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go, with its order, its reinvocation and its words.

use std::collections::HashSet;

use ::api::{Resource, Status};
use futures_util::future::join_all;
use serde_json::Value;

use super::asked::Asked;
use super::forms;
use super::index::Index;
use super::webhook::{Refusal, Webhook};
use crate::api::{Api, Context, FieldValidation};
use crate::decode;
use crate::registry::policy;

/// What one round of mutation leaves for the next.
#[derive(Default)]
pub struct Rounds {
    pub again: bool,
    /// Something has changed the object since: another round is due.
    pub wanted: bool,
    /// Webhooks that may be asked a second time, by place.
    invoked: HashSet<usize>,
    due: HashSet<usize>,
    left: Option<Value>,
}

impl Rounds {
    pub fn changed(&mut self) {
        self.due.extend(self.invoked.drain());
        self.wanted = true;
    }
}

/// Asks the mutating webhooks, and changes `object` as they say.
pub async fn mutate(api: &Api, index: &Index, asked: &Asked<'_>, mut object: Option<&mut Value>, old: Option<&Value>, rounds: &mut Rounds) -> Result<(), Status> {
    if rounds.again && rounds.left.as_ref() != object.as_deref() {
        // What is built in has changed it meanwhile.
        rounds.due.extend(rounds.invoked.drain());
    }
    for (at, hook) in index.mutating.iter().enumerate() {
        if rounds.again && !rounds.due.contains(&at) {
            continue;
        }
        let Some(target) = hook.selection.target(api, asked, object.as_deref(), old)? else { continue };
        let target = target.row(asked);
        let shown = Shown::of(api, asked, target, object.as_deref(), old).await?;
        if !hook.wanted(asked)? {
            continue;
        }
        match hook.call(api, asked, target, shown.object.as_ref(), shown.old.as_ref(), true).await {
            Ok(None) => {}
            Ok(Some(patch)) if patch.as_array().is_some_and(Vec::is_empty) => {}
            Ok(Some(patch)) => {
                let (Some(shown), Some(object)) = (shown.object, object.as_deref_mut()) else {
                    return Err(Status::internal(format!("admission webhook {:?} attempted to modify the object, which is not supported for this operation", hook.name)));
                };
                let changed = patched(api, asked, target, shown, &patch).await?;
                if changed != *object {
                    *object = changed;
                    rounds.changed();
                }
            }
            Err(refusal) => hook.settle(refusal)?,
        }
        if hook.reinvocable {
            rounds.invoked.insert(at);
        }
    }
    rounds.left = object.as_deref().cloned();
    Ok(())
}

/// The patched object, as what it is to be: decoded anew, its defaults filled in.
async fn patched(api: &Api, asked: &Asked<'_>, target: &Resource, mut shown: Value, patch: &Value) -> Result<Value, Status> {
    ::patch::json(&mut shown, patch).map_err(Status::internal)?;
    if !asked.is_foreign() {
        let lenient = Context { field_validation: FieldValidation::Ignore, ..Context::default() };
        shown = decode::shape(target, shown, &[], &lenient).map_err(|status| Status::internal(status.message))?;
    }
    let mut judged = forms::judged(api, asked, target, shown).await?;
    if !asked.is_foreign() {
        policy(asked.row).default(&mut judged);
    }
    Ok(judged)
}

/// The objects in the form a webhook knows.
struct Shown {
    object: Option<Value>,
    old: Option<Value>,
}

impl Shown {
    async fn of(api: &Api, asked: &Asked<'_>, target: &Resource, object: Option<&Value>, old: Option<&Value>) -> Result<Self, Status> {
        let form = async |value: Option<&Value>| match value {
            Some(value) => forms::shown(api, asked, target, value).await.map(Some),
            None => Ok(None),
        };
        Ok(Self { object: form(object).await?, old: form(old).await? })
    }
}

/// Asks the validating webhooks.
pub async fn validate(api: &Api, index: &Index, asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let mut calls = Vec::new();
    for hook in &index.validating {
        let Some(target) = hook.selection.target(api, asked, object, old)? else { continue };
        let shown = Shown::of(api, asked, target.row(asked), object, old).await?;
        if hook.wanted(asked)? {
            calls.push((hook, target, shown));
        }
    }
    let outcomes = join_all(calls.iter().map(|(hook, target, shown)| async move {
        match hook.call(api, asked, target.row(asked), shown.object.as_ref(), shown.old.as_ref(), false).await {
            Ok(_) => Ok(()),
            Err(refusal) => hook.settle(refusal),
        }
    }));
    outcomes.await.into_iter().collect()
}

impl Webhook {
    /// What its `matchConditions` say.
    fn wanted(&self, asked: &Asked<'_>) -> Result<bool, Status> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        if self.lenient { Ok(false) } else { Err(Status::forbidden(&asked.row.group, &asked.row.plural, &asked.name, "match conditions cannot be evaluated")) }
    }

    /// What its failure policy makes of a call that failed.
    fn settle(&self, refusal: Refusal) -> Result<(), Status> {
        match refusal {
            Refusal::Calling(why) if self.lenient => {
                tracing::warn!(webhook = self.name, why, "a webhook failed, which its policy says to ignore");
                Ok(())
            }
            Refusal::Calling(why) => Err(self.failed(&why)),
            Refusal::Status(status) => Err(status),
        }
    }
}
