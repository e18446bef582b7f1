//! A kind's other versions, as server-side apply needs them: an object in the version a manager wrote.

use ::api::custom::Conversion;
use ::api::structural::prune;
use ::api::table::table;
use ::api::{Resource, schema};
use ::patch::apply::{Facts, Form, Versions};
use serde_json::Value;

use crate::special::convert;

#[derive(Debug)]
pub(super) struct KindVersions<'a>(pub &'a Resource);

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
        match custom.facts_of(version).filter(|_| group == row.group) {
            None => Form::Gone,
            Some(_) if custom.conversion == Conversion::Webhook && version != row.version => Form::Untold,
            Some(facts) => {
                let mut object = object.clone();
                object["apiVersion"] = api_version.into();
                prune::resource(&mut object, &facts.schema);
                Form::Known(object, Facts::Custom(&facts.schema))
            }
        }
    }
}
