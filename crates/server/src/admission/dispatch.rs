//! The webhooks that are for a request, asked: mutating ones one after the other, validating ones all at once.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go, with its order, its reinvocation and its words.

use std::collections::HashSet;
use std::time::Instant;

use ::api::{Resource, Status};
use futures_util::future::join_all;
use serde_json::Value;

use super::asked::Asked;
use super::expressions::{Input, Verdict};
use super::forms;
use super::index::Index;
use super::webhook::{Refusal, Webhook};
use crate::api::{Api, Context, FieldValidation};
use crate::decode;
use crate::http::spent;
use crate::registry::policy;

/// What one round of mutation leaves for the next. Who is asked is known by place.
#[derive(Default)]
pub struct Rounds {
    again: bool,
    /// Something has changed the object since: another round is due.
    pub wanted: bool,
    /// Who may be asked a second time.
    invoked: HashSet<usize>,
    due: HashSet<usize>,
    left: Option<Value>,
}

impl Rounds {
    pub fn second(&mut self) {
        self.again = true;
    }

    pub fn begin(&mut self, object: Option<&Value>) {
        if self.again && self.left.as_ref() != object {
            // Others have changed it meanwhile.
            self.due.extend(self.invoked.drain());
        }
    }

    pub fn skips(&self, at: usize) -> bool {
        self.again && !self.due.contains(&at)
    }

    pub fn changed(&mut self) {
        self.due.extend(self.invoked.drain());
        self.wanted = true;
    }

    pub fn invoked(&mut self, at: usize) {
        self.invoked.insert(at);
    }

    pub fn end(&mut self, object: Option<&Value>) {
        self.left = object.cloned();
    }
}

/// Asks the mutating webhooks, and changes `object` as they say.
pub async fn mutate(api: &Api, index: &Index, asked: &Asked<'_>, mut object: Option<&mut Value>, old: Option<&Value>, rounds: &mut Rounds) -> Result<(), Status> {
    rounds.begin(object.as_deref());
    for (at, hook) in index.mutating.iter().enumerate() {
        if rounds.skips(at) {
            continue;
        }
        let Some(target) = hook.selection.target(api, asked, object.as_deref(), old)? else { continue };
        let target = target.row(asked);
        let shown = Shown::of(api, asked, target, object.as_deref(), old).await?;
        if !hook.wanted(api, asked, target, &shown)? {
            continue;
        }
        let begun = Instant::now();
        let outcome = hook.counted(api, asked, target, shown.object.as_ref(), shown.old.as_ref(), true).await;
        spent::aside(begun.elapsed());
        match outcome {
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
            rounds.invoked(at);
        }
    }
    rounds.end(object.as_deref());
    Ok(())
}

/// The patched object, as what it is to be.
async fn patched(api: &Api, asked: &Asked<'_>, target: &Resource, mut shown: Value, patch: &Value) -> Result<Value, Status> {
    ::patch::json(&mut shown, patch).map_err(Status::internal)?;
    settled(api, asked, target, shown).await
}

/// A changed object in `target`'s form: decoded anew, its defaults filled in, in the form it is judged in.
pub async fn settled(api: &Api, asked: &Asked<'_>, target: &Resource, mut shown: Value) -> Result<Value, Status> {
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
        Ok(Self { object: forms::of(api, asked, target, object).await?, old: forms::of(api, asked, target, old).await? })
    }
}

/// Asks the validating webhooks.
pub async fn validate(api: &Api, index: &Index, asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let mut calls = Vec::new();
    for hook in &index.validating {
        let Some(target) = hook.selection.target(api, asked, object, old)? else { continue };
        let shown = Shown::of(api, asked, target.row(asked), object, old).await?;
        if hook.wanted(api, asked, target.row(asked), &shown)? {
            calls.push((hook, target, shown));
        }
    }
    let outcomes = join_all(calls.iter().map(|(hook, target, shown)| async move {
        match hook.counted(api, asked, target.row(asked), shown.object.as_ref(), shown.old.as_ref(), false).await {
            Ok(_) => Ok(()),
            Err(refusal) => hook.settle(refusal),
        }
    }));
    let begun = Instant::now();
    let outcomes = outcomes.await;
    if !outcomes.is_empty() {
        spent::aside(begun.elapsed());
    }
    outcomes.into_iter().collect()
}

impl Webhook {
    /// What its `matchConditions` say.
    fn wanted(&self, api: &Api, asked: &Asked<'_>, target: &Resource, shown: &Shown) -> Result<bool, Status> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let request = asked.request(target);
        match self.conditions.judge(&Input::new(api, asked, &request, shown.object.as_ref(), shown.old.as_ref())) {
            Verdict::Wanted => Ok(true),
            Verdict::Unwanted => Ok(false),
            Verdict::Failed(why) => Err(Status::forbidden(&asked.row.group, &asked.row.plural, &asked.name, &why)),
        }
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
