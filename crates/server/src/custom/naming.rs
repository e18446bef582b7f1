//! Which names a definition gets, and the conditions that say so. Pure.
//!
//! Mirrors pkg/controller/status/naming_controller.go, establish, nonstructuralschema and apiapproval. Names are taken within a group; whoever comes second waits.

use std::collections::BTreeSet;

use ::api::kinds::custom_resource_definition::{APPROVED_ANNOTATION, Approval, approval, is_protected, set_condition};
use ::api::structural::violations::violations;
use ::api::validation::Path;
use serde_json::{Value, json};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    short_names: Vec<String>,
    categories: Vec<String>,
}

impl Names {
    pub fn of(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Self { plural: text("plural"), singular: text("singular"), kind: text("kind"), list_kind: text("listKind"), short_names: list("shortNames"), categories: list("categories") }
    }

    fn json(&self) -> Value {
        let mut value = json!({"plural": self.plural, "kind": self.kind});
        for (name, text) in [("singular", &self.singular), ("listKind", &self.list_kind)] {
            if !text.is_empty() {
                value[name] = text.as_str().into();
            }
        }
        for (name, list) in [("shortNames", &self.short_names), ("categories", &self.categories)] {
            if !list.is_empty() {
                value[name] = list.clone().into();
            }
        }
        value
    }
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    definition.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Writes accepted names and conditions into a definition. `others` are the names that other definitions of its group hold.
pub fn settle(definition: &mut Value, others: &[&Names], now: &str) {
    if definition.pointer("/metadata/deletionTimestamp").is_some() {
        return;
    }
    names(definition, others, now);
    structure(definition, now);
    policy(definition, now);
    if is_true(definition, "NamesAccepted") && !is_true(definition, "Established") {
        set_condition(definition, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now);
    }
}

fn names(definition: &mut Value, others: &[&Names], now: &str) {
    let wanted = definition.pointer("/spec/names").map(Names::of).unwrap_or_default();
    let accepted = definition.pointer("/status/acceptedNames").map(Names::of).unwrap_or_default();
    if wanted == accepted && is_true(definition, "NamesAccepted") {
        return;
    }
    let mut resources: BTreeSet<&str> = BTreeSet::new();
    let mut kinds: BTreeSet<&str> = BTreeSet::new();
    for other in others {
        resources.extend([other.plural.as_str(), other.singular.as_str()]);
        resources.extend(other.short_names.iter().map(String::as_str));
        kinds.extend([other.kind.as_str(), other.list_kind.as_str()]);
    }
    let free = |name: &str, held: &str, taken: &BTreeSet<&str>| if name == held || name.is_empty() || !taken.contains(name) { Ok(()) } else { Err(format!("{name:?} is already in use")) };
    let mut new = accepted.clone();
    let mut conflict: Option<(&str, String)> = None;
    let mut settle = |slot: &mut String, name: &str, held: &str, taken: &BTreeSet<&str>, reason: &'static str| match free(name, held, taken) {
        Ok(()) => *slot = name.to_owned(),
        Err(why) => conflict = Some((reason, why)),
    };
    settle(&mut new.plural, &wanted.plural, &accepted.plural, &resources, "PluralConflict");
    settle(&mut new.singular, &wanted.singular, &accepted.singular, &resources, "SingularConflict");
    settle(&mut new.kind, &wanted.kind, &accepted.kind, &kinds, "KindConflict");
    settle(&mut new.list_kind, &wanted.list_kind, &accepted.list_kind, &kinds, "ListKindConflict");
    let wrong: Vec<String> = wanted.short_names.iter().filter(|name| !accepted.short_names.contains(name)).filter_map(|name| free(name, "", &resources).err()).collect();
    match wrong.as_slice() {
        [] => new.short_names = wanted.short_names.clone(),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    new.categories = wanted.categories.clone();
    definition["status"]["acceptedNames"] = new.json();
    match conflict {
        Some((reason, why)) => {
            set_condition(definition, "NamesAccepted", "False", reason, &why, now);
            if condition(definition, "Established").is_none() {
                set_condition(definition, "Established", "False", "NotAccepted", "not all names are accepted", now);
            }
        }
        None => set_condition(definition, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
    }
}

fn remove(definition: &mut Value, kind: &str) {
    if let Some(conditions) = definition.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != kind);
    }
}

/// Schemas that were let in before they had to be structural.
fn structure(definition: &mut Value, now: &str) {
    let mut wrong = Vec::new();
    if definition.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)) {
        wrong.push("spec.preserveUnknownFields: Invalid value: true: must be false".to_owned());
    }
    let versions = Path::Root("spec.versions");
    for (index, version) in definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object()) {
            wrong.extend(violations(&versions.index(index).child("schema.openAPIV3Schema"), schema).into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)));
        }
    }
    match wrong.as_slice() {
        [] => remove(definition, "NonStructuralSchema"),
        [one] => set_condition(definition, "NonStructuralSchema", "True", "Violations", one, now),
        many => set_condition(definition, "NonStructuralSchema", "True", "Violations", &format!("[{}]", many.join(", ")), now),
    }
}

/// The project's own groups want an approval.
fn policy(definition: &mut Value, now: &str) {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    if !is_protected(definition.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default()) {
        return;
    }
    let annotation = definition.pointer("/metadata/annotations").and_then(|annotations| annotations.get(APPROVED_ANNOTATION)).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (state, why) = approval(&annotation);
    let (status, reason) = match state {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    set_condition(definition, KIND, status, reason, &why, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short}}})
    }

    fn conditions(definition: &Value) -> Vec<String> {
        definition["status"]["conditions"].as_array().into_iter().flatten().map(|c| format!("{}={} {} {}", c["type"].as_str().unwrap(), c["status"].as_str().unwrap(), c["reason"].as_str().unwrap(), c["message"].as_str().unwrap())).collect()
    }

    #[test]
    fn the_first_gets_the_name() {
        let mut first = definition("foos", "Foo", &["f"]);
        settle(&mut first, &[], NOW);
        assert_eq!(conditions(&first), ["NamesAccepted=True NoConflicts no conflicts found", "Established=True InitialNamesAccepted the initial names have been accepted"]);
        let held = Names::of(&first["status"]["acceptedNames"]);
        let mut second = definition("bars", "Foo", &["f", "b"]);
        second["spec"]["names"]["listKind"] = "BarList".into();
        settle(&mut second, &[&held], NOW);
        assert_eq!(conditions(&second), ["NamesAccepted=False ShortNamesConflict \"f\" is already in use", "Established=False NotAccepted not all names are accepted"]);
        assert_eq!(second["status"]["acceptedNames"]["plural"], "bars");
        assert_eq!(second["status"]["acceptedNames"]["kind"], "");
        let before = first.clone();
        settle(&mut first, &[], "2026-01-02T00:00:00Z");
        assert_eq!(first, before, "settled is settled");
    }

    #[test]
    fn old_schemas_are_told_of() {
        let mut old = definition("foos", "Foo", &[]);
        old["spec"]["versions"] = json!([{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}}]);
        settle(&mut old, &[], NOW);
        assert!(conditions(&old).contains(&"NonStructuralSchema=True Violations spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields".to_owned()));
        let mut protected = definition("foos", "Foo", &[]);
        protected["spec"]["group"] = "a.k8s.io".into();
        settle(&mut protected, &[], NOW);
        assert!(conditions(&protected)[1].starts_with("KubernetesAPIApprovalPolicyConformant=False MissingAnnotation"));
    }
}
