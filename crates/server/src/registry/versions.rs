//! A kind's other versions, as server-side apply needs them: an object in the version a manager wrote.
//!
//! Mirrors apimachinery's `managedfields/internal/versionconverter.go`. Who is asked in between is the definition's webhook, which nobody can wait for amid a merge:
//! what it would have to tell is noted ([`Forms`]), asked for together, and the merge is made again with what it told.

use std::collections::BTreeMap;

use ::api::custom::Conversion;
use ::api::structural::prune;
use ::api::table::table;
use ::api::{Resource, schema};
use ::patch::apply::{Facts, Form, Versions};
use parking_lot::Mutex;
use serde_json::Value;

use super::text;
use crate::custom::conversion;
use crate::outbound::Outbound;
use crate::special::convert;

/// What an object is in a version, as the webhook told it.
#[derive(Debug)]
struct Told {
    object: Value,
    api_version: String,
    answer: Result<Value, String>,
}

/// What one request has learnt from the webhook, and what it has yet to ask. A handful: an object's versions, before and after.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    told: Mutex<Vec<Told>>,
    /// Objects with the version they are wanted in.
    open: Mutex<Vec<(Value, String)>>,
}

impl Forms {
    /// What is known; what is not will be asked for.
    fn look(&self, object: &Value, api_version: &str) -> Option<Result<Value, String>> {
        if let Some(told) = self.told.lock().iter().find(|told| told.api_version == api_version && told.object == *object) {
            return Some(told.answer.clone());
        }
        let mut open = self.open.lock();
        if !open.iter().any(|(asked, target)| target == api_version && asked == object) {
            open.push((object.clone(), api_version.to_owned()));
        }
        None
    }

    /// Asks whatever is open, in one request for each pair of versions; says whether there was anything. Failures are answers, too.
    pub async fn ask(&self, outbound: &Outbound, row: &Resource) -> bool {
        let open = std::mem::take(&mut *self.open.lock());
        let Some(custom) = row.custom.as_ref().filter(|_| !open.is_empty()) else { return false };
        let mut requests: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
        for (object, target) in open {
            requests.entry((text(&object, "/apiVersion").to_owned(), target)).or_default().push(object);
        }
        for ((_, target), objects) in requests {
            let answers = match conversion::ask(outbound, custom, &target, objects.clone()).await {
                Ok(converted) => converted.into_iter().map(Ok).collect(),
                // Told as it is, not as an answer of its own.
                Err(status) => vec![Err(status.message.trim_start_matches("Internal error occurred: ").to_owned()); objects.len()],
            };
            let told = objects.into_iter().zip(answers).map(|(object, answer)| Told { object, api_version: target.clone(), answer });
            self.told.lock().extend(told);
        }
        true
    }
}

#[derive(Debug)]
pub(crate) struct KindVersions<'a>(pub &'a Resource, pub &'a Forms);

impl KindVersions<'_> {
    pub fn any(&self) -> Option<&dyn Versions> {
        Some(self)
    }
}

impl Versions for KindVersions<'_> {
    fn form(&self, object: &Value, api_version: &str) -> Form<'_> {
        let row = self.0;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some(custom) = &row.custom else {
            let Some(target) = table().find(group, version, &row.plural) else { return Form::Gone };
            let mut object = object.clone();
            // Only what has several forms fails to be stored in one.
            if convert::to_storage(row, &mut object).is_err() {
                return Form::Untold;
            }
            convert::show(target, &mut object);
            return Form::Known(object, schema::of(&target.schema).into());
        };
        let Some(facts) = custom.facts_of(version).filter(|_| group == row.group) else { return Form::Gone };
        let mut object = if custom.conversion == Conversion::Webhook && text(object, "/apiVersion") != api_version {
            match self.1.look(object, api_version) {
                Some(Ok(object)) => object,
                Some(Err(why)) => return Form::Failed(why),
                None => return Form::Untold,
            }
        } else {
            object.clone()
        };
        object["apiVersion"] = api_version.into();
        prune::resource(&mut object, &facts.schema);
        Form::Known(object, Facts::Custom(&facts.schema))
    }
}
