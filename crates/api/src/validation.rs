//! Field errors with upstream's wording, and the validation of `metadata`, which the server runs for every kind.
//!
//! Texts and cause reasons follow k8s.io/apimachinery/pkg/util/validation/field and pkg/api/validation/objectmeta.go; clients match on them.

use std::fmt;

use serde_json::Value;

use crate::names::{self, NameRule};
use crate::resource::Resource;
use crate::status::Cause;

pub const IMMUTABLE: &str = "field is immutable";
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const TOTAL_ANNOTATION_SIZE_MAX: usize = 256 * 1024;
const FIELD_MANAGER_MAX: usize = 128;

/// Where a field is. Lives on the stack and becomes text only when something is wrong.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    Root(&'a str),
    Child(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    /// `name` may hold dots.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path::Child(self, name)
    }

    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(name) => f.write_str(name),
            Path::Child(Path::Root(""), name) => f.write_str(name),
            Path::Child(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// A value as `field.Error` shows it: strings quoted, the rest as JSON.
pub trait Shown {
    fn shown(&self) -> String;
}

/// Go's `%q`.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for ch in text.chars() {
        match ch {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            ch if u32::from(ch) < 0x20 || ch == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(ch))),
            ch if ch.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(ch))),
            ch => out.push(ch),
        }
    }
    out.push('"');
    out
}

impl Shown for str {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

/// Go's `json.Marshal` escapes what HTML could trip over.
impl Shown for Value {
    fn shown(&self) -> String {
        match self {
            Value::String(text) => go_quote(text),
            other => other.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
        }
    }
}

/// A label selector in the order of upstream's struct (`matchLabels` first).
pub struct ShownSelector<'a>(pub &'a Value);

impl Shown for ShownSelector<'_> {
    fn shown(&self) -> String {
        let Some(map) = self.0.as_object() else { return "null".to_owned() };
        let mut parts = Vec::new();
        for name in ["matchLabels", "matchExpressions"] {
            if let Some(value) = map.get(name) {
                parts.push(format!("\"{name}\":{}", value.shown()));
            }
        }
        format!("{{{}}}", parts.join(","))
    }
}

/// Text that is already as it should be shown.
pub struct Raw<'a>(pub &'a str);

impl Shown for Raw<'_> {
    fn shown(&self) -> String {
        self.0.to_owned()
    }
}

/// The errors found so far: `field.ErrorList`.
#[derive(Debug, Default)]
pub struct Errors {
    causes: Vec<Cause>,
}

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.causes.len()
    }

    pub fn extend(&mut self, causes: Vec<Cause>) {
        self.causes.extend(causes);
    }

    /// For a field that is called otherwise where it was found wrong.
    pub fn rename_last(&mut self, field: &str) {
        if let Some(last) = self.causes.last_mut() {
            last.field = field.to_owned();
        }
    }

    fn push(&mut self, reason: &str, path: &Path, mut message: String, detail: &str) {
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        self.causes.push(Cause { reason: reason.to_owned(), message, field: path.to_string() });
    }

    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueRequired", path, "Required value".to_owned(), detail);
    }

    pub fn invalid(&mut self, path: &Path, value: &(impl Shown + ?Sized), detail: &str) {
        self.push("FieldValueInvalid", path, format!("Invalid value: {}", value.shown()), detail);
    }

    /// A value of the wrong type.
    pub fn type_invalid(&mut self, path: &Path, value: &(impl Shown + ?Sized), detail: &str) {
        self.push("FieldValueTypeInvalid", path, format!("Invalid value: {}", value.shown()), detail);
    }

    /// An invalid value that is not worth showing.
    pub fn push_omitting(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueInvalid", path, "Invalid value".to_owned(), detail);
    }

    /// One error for each message.
    pub fn invalid_each(&mut self, path: &Path, value: &(impl Shown + ?Sized), details: Vec<String>) {
        for detail in details {
            self.invalid(path, value, &detail);
        }
    }

    pub fn not_supported(&mut self, path: &Path, value: &(impl Shown + ?Sized), supported: &[&str]) {
        let listed = supported.iter().map(|one| go_quote(one)).collect::<Vec<_>>().join(", ");
        let detail = if supported.is_empty() { String::new() } else { format!("supported values: {listed}") };
        self.push("FieldValueNotSupported", path, format!("Unsupported value: {}", value.shown()), &detail);
    }

    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueForbidden", path, "Forbidden".to_owned(), detail);
    }

    /// Not the value's fault, as upstream sees it.
    pub fn internal(&mut self, path: &Path, detail: &str) {
        self.push("InternalError", path, "Internal error".to_owned(), detail);
    }

    pub fn duplicate(&mut self, path: &Path, value: &(impl Shown + ?Sized)) {
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {}", value.shown()), "");
    }

    /// A duplicate that is not worth showing.
    pub fn duplicate_omitting(&mut self, path: &Path) {
        self.push("FieldValueDuplicate", path, "Duplicate value".to_owned(), "");
    }

    pub fn not_found(&mut self, path: &Path, value: &(impl Shown + ?Sized)) {
        self.push("FieldValueNotFound", path, format!("Not found: {}", value.shown()), "");
    }

    pub fn too_long(&mut self, path: &Path, max: usize) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.push("FieldValueTooLong", path, "Too long".to_owned(), &format!("may not be more than {max} {unit}"));
    }

    pub fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.push("FieldValueTooMany", path, format!("Too many: {actual}"), &format!("must have at most {max} {unit}"));
    }

    /// `ValidateNonnegativeField`.
    pub fn not_negative(&mut self, path: &Path, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.invalid(path, &value, NOT_NEGATIVE);
        }
    }

    /// `ValidateImmutableField`; absent, null and empty are the same.
    pub fn immutable(&mut self, path: &Path, new: Option<&Value>, old: Option<&Value>) {
        if !same(new, old) {
            self.invalid(path, new.unwrap_or(&Value::Null), IMMUTABLE);
        }
    }

    /// Runs a whole-value name check (`names::dns_label` and friends).
    pub fn name(&mut self, path: &Path, value: &str, rule: fn(&str) -> Vec<String>) {
        self.invalid_each(path, value, rule(value));
    }

    /// `ValidateLabels`.
    pub fn labels(&mut self, path: &Path, labels: Option<&Value>) {
        for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
            self.invalid_each(path, key, names::qualified_name(key));
            let value = value.as_str().unwrap_or_default();
            self.invalid_each(path, value, names::label_value(value));
        }
    }

    /// `ValidateAnnotations`.
    pub fn annotations(&mut self, path: &Path, annotations: Option<&Value>) {
        let mut size = 0;
        for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
            self.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
            size += key.len() + value.as_str().map_or(0, str::len);
        }
        if size > TOTAL_ANNOTATION_SIZE_MAX {
            self.too_long(path, TOTAL_ANNOTATION_SIZE_MAX);
        }
    }

    /// `ValidateLabelSelector`; null is fine.
    pub fn label_selector(&mut self, path: &Path, selector: Option<&Value>) {
        let Some(selector) = selector.and_then(Value::as_object) else { return };
        self.labels(&path.child("matchLabels"), selector.get("matchLabels"));
        let list = path.child("matchExpressions");
        for (index, expression) in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let path = list.index(index);
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let values = expression.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            match text("operator") {
                "In" | "NotIn" => {
                    if values.is_empty() {
                        self.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
                    }
                }
                "Exists" | "DoesNotExist" => {
                    if !values.is_empty() {
                        self.forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                    }
                }
                other => self.invalid(&path.child("operator"), other, "not a valid selector operator"),
            }
            self.name(&path.child("key"), text("key"), names::qualified_name);
            let list = path.child("values");
            for (index, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                self.name(&list.index(index), value, names::label_value);
            }
        }
    }
}

/// Whether a value is absent for Go: missing, null, or an empty string, list or map.
pub fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// `apiequality.Semantic.DeepEqual`: a missing list or map equals an empty one, at every depth. Quantities are canonical already.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.iter().all(|(key, value)| same(Some(value), y.get(key))) && y.iter().all(|(key, value)| x.contains_key(key) || is_empty(Some(value)))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(Some(x), Some(y))),
        _ if is_empty(a) => is_empty(b),
        _ => a == b,
    }
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What is wrong with the metadata of an object to be created. The server has set the namespace from the path and the name from `generateName`.
pub fn object_meta(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = object_meta_with(NameRule::of(resource), resource.namespaced(), object);
    if !resource.schema.is_empty() && !takes_any_finalizer(resource) {
        causes.extend(known_finalizers(object));
    }
    causes
}

/// Kinds that upstream judges without core's ValidateObjectMeta.
fn takes_any_finalizer(resource: &Resource) -> bool {
    matches!(
        (&*resource.group, &*resource.plural),
        ("apiregistration.k8s.io" | "apiextensions.k8s.io" | "admissionregistration.k8s.io", _)
            | ("", "events")
            | ("coordination.k8s.io", "leases")
            | ("policy", "poddisruptionbudgets")
            | ("node.k8s.io", "runtimeclasses")
    )
}

/// Of a built-in kind, a finalizer without a domain has to be one of the API's own (core's ValidateObjectMeta).
fn known_finalizers(object: &Value) -> Vec<Cause> {
    let mut errors = Errors::new();
    let path = Path::Root("metadata.finalizers");
    let names = object.get("metadata").map(|meta| strings(meta, "finalizers")).unwrap_or_default();
    for (index, name) in names.into_iter().enumerate().filter(|(_, name)| !name.contains('/') && !matches!(*name, "kubernetes" | "orphan" | "foregroundDeletion")) {
        errors.invalid(&path.index(index), name, "name is neither a standard finalizer name nor is it fully qualified");
    }
    errors.into_causes()
}

/// What holds for the metadata of any kind.
pub fn object_meta_with(rule: NameRule, namespaced: bool, object: &Value) -> Vec<Cause> {
    let mut errors = Errors::new();
    let path = Path::Root("metadata");
    let meta = object.get("metadata").unwrap_or(&Value::Null);
    let (generate_name, name, namespace) = (text(meta, "generateName"), text(meta, "name"), text(meta, "namespace"));
    if !generate_name.is_empty() {
        errors.invalid_each(&path.child("generateName"), generate_name, rule.check(generate_name, true));
    }
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        errors.invalid_each(&path.child("name"), name, rule.check(name, false));
    }
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.required(&path.child("namespace"), ""),
        (true, false) => errors.name(&path.child("namespace"), namespace, names::dns_label),
        (false, false) => errors.forbidden(&path.child("namespace"), "not allowed on this type"),
        (false, true) => {}
    }
    errors.not_negative(&path.child("generation"), meta.get("generation").and_then(Value::as_i64));
    common_meta(&mut errors, &path, meta);
    finalizers(&mut errors, &path.child("finalizers"), meta);
    managed_fields(&mut errors, &path.child("managedFields"), meta);
    errors.into_causes()
}

/// What an update may leave out and cannot change is put back before it is judged: uid and times (upstream's rest.BeforeUpdate).
pub fn carry_over_meta(new: &mut Value, old: &Value) {
    let Some(before) = old.get("metadata").and_then(Value::as_object) else { return };
    let Some(meta) = new.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for name in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = before.get(name).filter(|value| !value.is_null()) {
            meta.insert(name.to_owned(), value.clone());
        }
    }
    for name in ["uid", "deletionGracePeriodSeconds"] {
        if let Some(value) = before.get(name)
            && is_empty(meta.get(name))
        {
            meta.insert(name.to_owned(), value.clone());
        }
    }
    // Counting is the strategy's.
    match before.get("generation") {
        Some(value) => meta.insert("generation".to_owned(), value.clone()),
        None => meta.remove("generation"),
    };
    meta.remove("selfLink");
}

/// Which of the checks of metadata a kind makes again of its own, after those that hold for every update. Nothing new is found but finalizers without a
/// domain and what no name of the kind can begin with; what was found is told once more, and so often clients find it among the causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataAgain {
    Neither,
    /// `ValidateObjectMetaUpdate`
    Change,
    /// `ValidateObjectMeta`
    Whole,
    /// PersistentVolumes
    WholeTwice,
    Both,
}

/// What is wrong with the metadata of an update (registry/rest's validateCommonFields, and what the kind adds).
pub fn object_meta_update(resource: &Resource, new: &Value, old: &Value, again: MetadataAgain) -> Vec<Cause> {
    let mut whole = object_meta_with(NameRule::PathSegment, resource.namespaced(), new);
    let change = object_meta_change(new, old, !whole.is_empty());
    let judged = again != MetadataAgain::Neither && !resource.schema.is_empty() && !takes_any_finalizer(resource);
    let known = if judged { known_finalizers(new) } else { Vec::new() };
    let mut causes = whole.clone();
    causes.extend(change.iter().cloned());
    // Only the kind itself knows how its names are made.
    let named = new.pointer("/metadata/generateName").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if named && !resource.schema.is_empty() && !matches!(again, MetadataAgain::Neither | MetadataAgain::Change) {
        whole = object_meta_with(NameRule::of(resource), resource.namespaced(), new);
    }
    if causes.is_empty() && known.is_empty() && whole.is_empty() {
        return causes;
    }
    if matches!(again, MetadataAgain::Change | MetadataAgain::Both) {
        causes.extend(change.into_iter().chain(known.iter().cloned()));
    }
    if again == MetadataAgain::WholeTwice {
        causes.extend(whole.iter().chain(&known).cloned());
    }
    if matches!(again, MetadataAgain::Whole | MetadataAgain::WholeTwice | MetadataAgain::Both) {
        causes.extend(whole.into_iter().chain(known));
    }
    causes
}

/// `ValidateObjectMetaAccessorUpdate`; `common` says whether what holds for any metadata is still to be looked at.
fn object_meta_change(new: &Value, old: &Value, common: bool) -> Vec<Cause> {
    let mut errors = Errors::new();
    let path = Path::Root("metadata");
    let (new, old) = (new.get("metadata").unwrap_or(&Value::Null), old.get("metadata").unwrap_or(&Value::Null));
    if !is_empty(old.get("deletionTimestamp")) {
        let before = strings(old, "finalizers");
        let mut added: Vec<&str> = strings(new, "finalizers").into_iter().filter(|one| !before.contains(one)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let listed = added.iter().map(|one| go_quote(one)).collect::<Vec<_>>().join(", ");
            errors.forbidden(
                &path.child("finalizers"),
                &format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"),
            );
        }
    }
    if text(new, "resourceVersion").is_empty() {
        errors.invalid(&path.child("resourceVersion"), "", "must be specified for an update");
    }
    let generation = |meta: &Value| meta.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation(new) < generation(old) {
        errors.invalid(&path.child("generation"), &generation(new), "must not be decremented");
    }
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if !same(new.get(name), old.get(name)) {
            let shown = match name {
                "name" | "namespace" | "uid" => new.get(name).cloned().unwrap_or_else(|| Value::String(String::new())),
                _ => new.get(name).cloned().unwrap_or(Value::Null),
            };
            errors.invalid(&path.child(name), &shown, IMMUTABLE);
        }
    }
    if common {
        common_meta(&mut errors, &path, new);
        managed_fields(&mut errors, &path.child("managedFields"), new);
    }
    errors.into_causes()
}

fn strings<'a>(meta: &'a Value, name: &str) -> Vec<&'a str> {
    meta.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn common_meta(errors: &mut Errors, path: &Path, meta: &Value) {
    errors.labels(&path.child("labels"), meta.get("labels"));
    errors.annotations(&path.child("annotations"), meta.get("annotations"));
    owner_references(errors, &path.child("ownerReferences"), meta.get("ownerReferences"));
}

fn owner_references(errors: &mut Errors, path: &Path, references: Option<&Value>) {
    let mut controller: Option<String> = None;
    for reference in references.and_then(Value::as_array).into_iter().flatten() {
        let (api_version, kind) = (text(reference, "apiVersion"), text(reference, "kind"));
        // With more than one slash it is none.
        let version = match api_version.split_once('/') {
            Some((_, version)) if version.contains('/') => "",
            Some((_, version)) => version,
            None => api_version,
        };
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), api_version, "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if text(reference, name).is_empty() {
                errors.invalid(&path.child(name), "", "must not be empty");
            }
        }
        if (api_version, kind) == ("v1", "Event") {
            errors.invalid(path, reference, "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{kind}/{}", text(reference, "name"));
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    references.unwrap_or(&Value::Null),
                    &format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(errors: &mut Errors, path: &Path, meta: &Value) {
    let all = strings(meta, "finalizers");
    for one in &all {
        errors.name(path, one, names::qualified_name);
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        errors.invalid(path, meta.get("finalizers").unwrap_or(&Value::Null), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn managed_fields(errors: &mut Errors, path: &Path, meta: &Value) {
    for (index, entry) in meta.get("managedFields").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = path.index(index);
        let operation = text(entry, "operation");
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        let fields_type = text(entry, "fieldsType");
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`");
        }
        if text(entry, "manager").len() > FIELD_MANAGER_MAX {
            errors.too_long(&path.child("manager"), FIELD_MANAGER_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(|cause| format!("{} {}: {}", cause.reason, cause.field, cause.message)).collect()
    }

    #[test]
    fn metadata_on_create() {
        let cases = [
            (json!({"name": "web", "namespace": "default", "labels": {"app": "web"}, "annotations": {"A/B": "x"}}), vec!["FieldValueInvalid metadata.annotations: Invalid value: \"A/B\": XX"]),
            (json!({"namespace": "default"}), vec!["FieldValueRequired metadata.name: Required value: name or generateName is required"]),
            (json!({"name": "a.b"}), vec!["FieldValueRequired metadata.namespace: Required value"]),
            (
                json!({"name": "a", "namespace": "b", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]}),
                vec!["FieldValueInvalid metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
            ),
        ];
        for (meta, expected) in cases {
            let got = lines(&object_meta_with(NameRule::DnsSubdomain, true, &json!({"metadata": meta})));
            if expected == ["FieldValueInvalid metadata.annotations: Invalid value: \"A/B\": XX"] {
                assert!(got.is_empty(), "annotation keys are judged in lower case: {got:?}");
            } else {
                assert_eq!(got, expected);
            }
        }
        let big = json!({"metadata": {"name": "a", "annotations": {"a": "x".repeat(TOTAL_ANNOTATION_SIZE_MAX)}}});
        assert_eq!(lines(&object_meta_with(NameRule::DnsSubdomain, false, &big)), ["FieldValueTooLong metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[test]
    fn finalizers_of_built_in_kinds_have_domains() {
        let object = json!({"metadata": {"finalizers": ["a.io/b", "mine", "orphan"]}});
        assert_eq!(lines(&known_finalizers(&object)), ["FieldValueInvalid metadata.finalizers[1]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"]);
    }

    #[test]
    fn metadata_on_update() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "finalizers": ["x.io/y"], "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(
            lines(&object_meta_change(&new, &old, true)),
            [
                "FieldValueForbidden metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/y\"}",
                "FieldValueInvalid metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "FieldValueInvalid metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }

    #[test]
    fn kinds_tell_it_again() {
        let row = crate::table::table().rows().iter().find(|row| row.plural == "configmaps").unwrap();
        let meta = |more: Value| {
            let mut meta = json!({"name": "a", "namespace": "b", "uid": "1", "resourceVersion": "5"});
            meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"metadata": meta})
        };
        let old = meta(json!({}));
        // How often a label, a finalizer without a domain and a deletion are told.
        for (again, times) in [(MetadataAgain::Neither, [2, 0, 1]), (MetadataAgain::Change, [3, 1, 2]), (MetadataAgain::Whole, [3, 1, 1]), (MetadataAgain::Both, [4, 2, 2])] {
            let told = [json!({"labels": {"a b": "c"}}), json!({"finalizers": ["x"]}), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})];
            assert_eq!(told.map(|more| object_meta_update(row, &meta(more), &old, again).len()), times, "{again:?}");
        }
        assert!(object_meta_update(row, &old, &old, MetadataAgain::Both).is_empty());
    }

    #[test]
    fn equality_is_semantic() {
        for (a, b, equal) in [
            (json!({"a": []}), json!({}), true),
            (json!({"a": {"b": null}}), json!({"a": {}}), true),
            (json!({"a": 1}), json!({}), false),
            (json!([{"a": ""}]), json!([{}]), true),
            (json!([1]), json!([1, 2]), false),
        ] {
            assert_eq!(same(Some(&a), Some(&b)), equal, "{a} {b}");
        }
    }
}
