//! Metadata as controllers read and write it: names, owners, labels, times.

use std::collections::BTreeMap;
use std::time::Duration;

use api::k8s::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use api::k8s::{Metadata, Resource};
use jiff::Timestamp;

pub use api::reference;

pub type Labels = BTreeMap<String, String>;

pub fn name<T: Metadata<Ty = ObjectMeta>>(object: &T) -> &str {
    object.metadata().name.as_deref().unwrap_or("")
}

pub fn namespace<T: Metadata<Ty = ObjectMeta>>(object: &T) -> &str {
    object.metadata().namespace.as_deref().unwrap_or("")
}

pub fn uid<T: Metadata<Ty = ObjectMeta>>(object: &T) -> &str {
    object.metadata().uid.as_deref().unwrap_or("")
}

pub fn deleting<T: Metadata<Ty = ObjectMeta>>(object: &T) -> bool {
    object.metadata().deletion_timestamp.is_some()
}

pub fn generation<T: Metadata<Ty = ObjectMeta>>(object: &T) -> i64 {
    object.metadata().generation.unwrap_or(0)
}

pub fn created<T: Metadata<Ty = ObjectMeta>>(object: &T) -> Timestamp {
    object.metadata().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

pub fn label<'a, T: Metadata<Ty = ObjectMeta>>(object: &'a T, key: &str) -> Option<&'a str> {
    object.metadata().labels.as_ref()?.get(key).map(String::as_str)
}

pub fn annotation<'a, T: Metadata<Ty = ObjectMeta>>(object: &'a T, key: &str) -> Option<&'a str> {
    object.metadata().annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn has_finalizer<T: Metadata<Ty = ObjectMeta>>(object: &T, finalizer: &str) -> bool {
    object.metadata().finalizers.iter().flatten().any(|one| one == finalizer)
}

/// The owner that manages this object, if any.
pub fn controller_of<T: Metadata<Ty = ObjectMeta>>(object: &T) -> Option<&OwnerReference> {
    object.metadata().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn controlled_by<T: Metadata<Ty = ObjectMeta>>(object: &T, owner_uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner.uid == owner_uid)
}

/// The reference by which `owner` manages an object.
pub fn controller_reference<T: Metadata<Ty = ObjectMeta>>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: <T as Resource>::API_VERSION.to_owned(),
        kind: <T as Resource>::KIND.to_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// `metav1.LabelSelector` on labels; an empty one matches everything, one with an unknown operator nothing.
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    selector.match_labels.iter().flatten().all(|(key, value)| get(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let (have, values) = (get(&requirement.key), requirement.values.as_deref().unwrap_or(&[]));
            match requirement.operator.as_str() {
                "In" => have.is_some_and(|have| values.contains(have)),
                "NotIn" => !have.is_some_and(|have| values.contains(have)),
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}

/// A selector that selects everything is refused by controllers.
pub fn selects_all(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A plain map of labels (Service, ReplicationController).
pub fn selects_map(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// As it is written: whole seconds.
pub fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// From `now` until `at`; none when that has passed.
pub fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(at.duration_since(now)).ok().filter(|left| !left.is_zero())
}

pub fn plus_seconds(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Go leaves zero out.
pub fn non_zero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
