//! Custom kinds: the rows of a CustomResourceDefinition, and what one of its versions says of its objects.
//!
//! A definition is made rows when it is served; everything larger (schema, columns, paths) is read out of the stored bytes when first needed, so that a thousand
//! definitions that nobody uses cost little more than those bytes. Mirrors apiextensions-apiserver's customresource_handler.go and registry/customresource.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::go;
use crate::jsonpath::JsonPath;
use crate::kinds::json::{child, flag, list, strings, text};
use crate::kinds::{CUSTOM, CUSTOM_WITH_STATUS};
use crate::object::Object;
use crate::resource::{Resource, Scope, Subresource, Verb};
use crate::status::Cause;
use crate::strategy::{Context, Strategy};
use crate::structural::{Schema, check, defaults, lists, metadata};
use crate::validation::{Errors, Path};

/// As discovery of custom kinds lists them.
const VERBS: &[Verb] = &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Create, Verb::Update, Verb::Watch];
/// While the definition is being deleted, nothing new comes.
const TERMINATING_VERBS: &[Verb] = &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Watch];
const CHANGE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// How objects come from one version to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// Only `apiVersion` differs.
    None,
    Webhook,
}

/// Where the Scale of a custom object is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scale {
    /// `.spec.replicas`
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// One entry of `additionalPrinterColumns`.
pub struct Column {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    /// None: no path at all; the cell stays empty.
    pub path: Option<JsonPath>,
}

/// What is read of a version when it is first used.
pub struct Facts {
    pub schema: Schema,
    pub has_defaults: bool,
    pub columns: Vec<Column>,
    pub scale: Option<Scale>,
    /// By name (`spec.color`), in the order of the definition.
    pub selectable: Vec<(String, Option<JsonPath>)>,
}

/// A definition with all its versions, shared by their rows.
struct Definition {
    object: Arc<Object>,
    versions: Box<[(Box<str>, OnceLock<Facts>)]>,
}

/// One version of a custom kind.
pub struct Custom {
    definition: Arc<Definition>,
    version: Box<str>,
    status: bool,
    pub conversion: Conversion,
    /// `Warning:` for whoever uses a deprecated version.
    pub deprecation: Option<String>,
    /// Objects stored later than this were written under this very definition: they need no second look.
    pub settled: u64,
    /// What other floors have made of the definition (compiled rules).
    pub made: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meta = self.definition.object.meta();
        write!(f, "{} {} {:?}", meta.uid, self.version, meta.generation)
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.definition.object.resource_version() == other.definition.object.resource_version() && self.version == other.version
    }
}

fn version_of<'a>(definition: &'a Value, version: &str) -> Option<&'a Value> {
    list(definition, "spec.versions").iter().find(|candidate| text(candidate, "name") == version)
}

/// Whether a condition of the definition is true.
pub fn has_condition(definition: &Value, condition: &str) -> bool {
    list(definition, "status.conditions").iter().any(|candidate| text(candidate, "type") == condition && text(candidate, "status") == "True")
}

/// The rows of a definition: one for each served version, under the names that were accepted. None of them before that.
pub fn rows(object: &Arc<Object>, definition: &Value, settled: u64) -> Vec<Arc<Resource>> {
    if !has_condition(definition, "Established") && !has_condition(definition, "NamesAccepted") {
        return Vec::new();
    }
    let shared = Definition::of(object, definition);
    list(definition, "spec.versions").iter().filter(|version| flag(version, "served")).map(|version| Arc::new(row(&shared, definition, version, settled))).collect()
}

/// The row of the storage version, served or not: for those who clean up.
pub fn storage_row(object: &Arc<Object>, definition: &Value) -> Option<Resource> {
    let version = list(definition, "spec.versions").iter().find(|version| flag(version, "storage"))?;
    Some(row(&Definition::of(object, definition), definition, version, 0))
}

impl Definition {
    fn of(object: &Arc<Object>, definition: &Value) -> Arc<Self> {
        let versions = list(definition, "spec.versions").iter().map(|version| (text(version, "name").into(), OnceLock::new())).collect();
        Arc::new(Self { object: object.clone(), versions })
    }
}

fn row(shared: &Arc<Definition>, definition: &Value, version: &Value, settled: u64) -> Resource {
    let group = text(definition, "spec.group");
    let names = child(definition, "status.acceptedNames").unwrap_or(&Value::Null);
    let (plural, kind, list_kind, name) = (text(names, "plural"), text(names, "kind"), text(names, "listKind"), text(version, "name"));
    let terminating = has_condition(definition, "Terminating") || child(definition, "metadata.deletionTimestamp").is_some();
    let storage = list(definition, "spec.versions").iter().find(|version| flag(version, "storage")).map_or("", |version| text(version, "name"));
    let words = |field: &str| -> Vec<std::borrow::Cow<'static, str>> { strings(names, field).map(|word| word.to_owned().into()).collect() };
    let status = child(version, "subresources.status").is_some();
    let mut subresources = Vec::new();
    let mut below = |sub: &'static str, group: &str, version: &str, kind: &str| {
        subresources.push(Subresource { name: sub.into(), group: group.to_owned().into(), version: version.to_owned().into(), kind: kind.to_owned().into(), verbs: CHANGE.into() });
    };
    if status {
        below("status", group, name, kind);
    }
    if child(version, "subresources.scale").is_some() {
        below("scale", "autoscaling", "v1", "Scale");
    }
    let custom = Custom {
        definition: shared.clone(),
        version: name.into(),
        status,
        conversion: if text(definition, "spec.conversion.strategy") == "Webhook" { Conversion::Webhook } else { Conversion::None },
        deprecation: flag(version, "deprecated").then(|| match text(version, "deprecationWarning") {
            "" => format!("{group}/{name} {kind} is deprecated"),
            given => given.to_owned(),
        }),
        settled,
        made: OnceLock::new(),
    };
    Resource {
        group: group.to_owned().into(),
        version: name.to_owned().into(),
        plural: plural.to_owned().into(),
        singular: text(names, "singular").to_owned().into(),
        kind: kind.to_owned().into(),
        list_kind: if list_kind.is_empty() { format!("{kind}List") } else { list_kind.to_owned() }.into(),
        short_names: words("shortNames").into(),
        categories: words("categories").into(),
        scope: if text(definition, "spec.scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: if terminating { TERMINATING_VERBS } else { VERBS }.into(),
        subresources: subresources.into(),
        schema: "".into(),
        prefix: format!("/registry/{group}/{plural}/").into(),
        storage_version: storage.to_owned().into(),
        selectable_fields: list(version, "selectableFields").iter().map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned().into()).collect(),
        custom: Some(Arc::new(custom)),
    }
}

impl Custom {
    pub fn definition(&self) -> &Arc<Object> {
        &self.definition.object
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// The version's `openAPIV3Schema` as it was written, for those who publish or compile it.
    pub fn json_schema(&self) -> Option<Value> {
        let definition = self.definition.object.value().ok()?;
        child(version_of(&definition, &self.version)?, "schema.openAPIV3Schema").cloned()
    }

    pub fn facts(&self) -> &Facts {
        static NOTHING: OnceLock<Facts> = OnceLock::new();
        self.facts_of(&self.version).unwrap_or_else(|| NOTHING.get_or_init(|| Facts::read(&Value::Null)))
    }

    /// Of any version of the kind, served or not.
    pub fn facts_of(&self, version: &str) -> Option<&Facts> {
        let (_, facts) = self.definition.versions.iter().find(|(name, _)| **name == *version)?;
        Some(facts.get_or_init(|| {
            let definition = self.definition.object.value().unwrap_or_default();
            Facts::read(version_of(&definition, version).unwrap_or(&Value::Null))
        }))
    }

    pub fn schema(&self) -> &Schema {
        &self.facts().schema
    }

    fn content(&self) -> &'static dyn Strategy {
        if self.status { &CUSTOM_WITH_STATUS } else { &CUSTOM }
    }

    fn judge(&self, errors: &mut Errors, new: &Value, old: Option<&Value>) {
        let root = Path::Root("");
        let facts = self.facts();
        check::check(errors, "", new, old, &facts.schema);
        if let Some(scale) = &facts.scale {
            scale.check_replicas(errors, new, &scale.spec_replicas);
            scale.check_status(errors, new);
        }
        metadata::check(errors, &root, new, &without_root(&facts.schema));
        self.judge_lists(errors, new, old);
    }

    /// What was wrong before stays so unpunished.
    fn judge_lists(&self, errors: &mut Errors, new: &Value, old: Option<&Value>) {
        let root = Path::Root("");
        let mut before = Errors::new();
        if let Some(old) = old {
            lists::check(&mut before, &root, old, self.schema());
        }
        if before.is_empty() {
            lists::check(errors, &root, new, self.schema());
        }
    }
}

/// The object itself is no embedded resource, whatever its schema says.
fn without_root(schema: &Schema) -> std::borrow::Cow<'_, Schema> {
    if !schema.embedded_resource {
        return std::borrow::Cow::Borrowed(schema);
    }
    let mut plain = schema.clone();
    plain.embedded_resource = false;
    std::borrow::Cow::Owned(plain)
}

/// The value at `.spec.replicas`; Err says what stands in the way.
fn at<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut value = object;
    let names: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    for (index, name) in names.iter().enumerate() {
        let Value::Object(map) = value else {
            let way = names[..index].join(".");
            return Err(format!(".{way} accessor error: {value} is of the type {}, expected map[string]interface {{}}", go::type_of(value)));
        };
        match map.get(*name) {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

fn wrong_type(path: &str, value: &Value, wanted: &str) -> String {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!(".{} accessor error: {shown} is of the type {}, expected {wanted}", path.trim_start_matches('.'), go::type_of(value))
}

impl Scale {
    pub fn number(object: &Value, path: &str) -> Result<Option<i64>, String> {
        match at(object, path)? {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong_type(path, value, "int64")),
        }
    }

    pub fn selector(&self, object: &Value) -> Result<Option<String>, String> {
        let Some(path) = self.label_selector.as_deref().filter(|path| !path.is_empty()) else { return Ok(None) };
        match at(object, path)? {
            None => Ok(None),
            Some(value) => value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| wrong_type(path, value, "string")),
        }
    }

    fn check_replicas(&self, errors: &mut Errors, object: &Value, path: &str) {
        let at = Path::Root(path);
        match Self::number(object, path) {
            Err(error) => errors.invalid(&at, &0i64, &error),
            Ok(Some(count)) if count < 0 => errors.invalid(&at, &count, "should be a non-negative integer"),
            Ok(Some(count)) if count > i64::from(i32::MAX) => errors.invalid(&at, &count, &format!("should be less than or equal to {}", i32::MAX)),
            Ok(_) => {}
        }
    }

    fn check_status(&self, errors: &mut Errors, object: &Value) {
        self.check_replicas(errors, object, &self.status_replicas);
        if let Err(error) = self.selector(object) {
            errors.invalid(&Path::Root(self.label_selector.as_deref().unwrap_or_default()), "", &error);
        }
    }
}

impl Facts {
    fn read(version: &Value) -> Self {
        let schema = child(version, "schema.openAPIV3Schema").map(Schema::parse).unwrap_or_else(|| Schema { preserve_unknown_fields: true, ..Schema::default() });
        let path = |text: &str| JsonPath::parse(&format!("{{{text}}}")).ok().map(JsonPath::allow_missing);
        let mut columns: Vec<Column> = list(version, "additionalPrinterColumns")
            .iter()
            .map(|column| Column {
                name: text(column, "name").to_owned(),
                kind: text(column, "type").to_owned(),
                format: text(column, "format").to_owned(),
                description: match text(column, "description") {
                    "" => format!("Custom resource definition column (in JSONPath format): {}", text(column, "jsonPath")),
                    given => given.to_owned(),
                },
                priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
                path: path(text(column, "jsonPath")),
            })
            .collect();
        if columns.is_empty() {
            columns.push(Column {
                name: "Age".into(),
                kind: "date".into(),
                format: String::new(),
                description: "When the object was created.".into(),
                priority: 0,
                path: path(".metadata.creationTimestamp"),
            });
        }
        Self {
            has_defaults: defaults::has_defaults(&schema),
            schema,
            columns,
            scale: child(version, "subresources.scale").map(|scale| Scale {
                spec_replicas: text(scale, "specReplicasPath").to_owned(),
                status_replicas: text(scale, "statusReplicasPath").to_owned(),
                label_selector: child(scale, "labelSelectorPath").and_then(Value::as_str).map(str::to_owned),
            }),
            selectable: list(version, "selectableFields")
                .iter()
                .map(|field| (text(field, "jsonPath").trim_start_matches('.').to_owned(), path(text(field, "jsonPath"))))
                .collect(),
        }
    }
}

impl Strategy for Custom {
    fn default(&self, object: &mut Value) {
        defaults::apply(object, self.schema());
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        self.content().prepare_create(object, cx);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        self.content().prepare_update(new, old, cx);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, cx: &Context) {
        self.content().prepare_status(new, old, cx);
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut errors = Errors::new();
        self.judge(&mut errors, object, None);
        errors.into_causes()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let mut errors = Errors::new();
        self.judge(&mut errors, new, Some(old));
        errors.into_causes()
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let mut errors = Errors::new();
        let facts = self.facts();
        if let (Some(status), Some(schema)) = (new.get("status"), facts.schema.property("status")) {
            check::check(&mut errors, "status", status, old.get("status"), schema);
        }
        if let Some(scale) = &facts.scale {
            scale.check_status(&mut errors, new);
        }
        self.judge_lists(&mut errors, new, Some(old));
        errors.into_causes()
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        strings(object, "metadata.finalizers").flat_map(finalizer_warnings).collect()
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        let before: Vec<&str> = strings(old, "metadata.finalizers").collect();
        strings(new, "metadata.finalizers").filter(|name| !before.contains(name)).flat_map(finalizer_warnings).collect()
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        let (_, path) = self.facts().selectable.iter().find(|(name, _)| name == field)?;
        let found = path.as_ref()?.find(object).ok()?;
        Some(found.first().map(crate::jsonpath::shown).unwrap_or_default())
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    const PLACE: &str = "metadata.finalizers";
    let mut warnings: Vec<String> = crate::names::qualified_name(name).into_iter().map(|why| format!("{PLACE}: {name:?}: {why}")).collect();
    if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
        let how = if name.contains('.') { " including a path (/)" } else { "" };
        warnings.push(format!("{PLACE}: {name:?}: prefer a domain-qualified finalizer name{how} to avoid accidental conflicts with other finalizer writers"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.stable.example.com", "uid": "u", "generation": 1}, "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "default": 1}, "color": {"type": "string"}}},
                "status": {"type": "object", "properties": {"replicas": {"type": "integer", "minimum": 0}, "selector": {"type": "string"}}}}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}], "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v0", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            "status": {"acceptedNames": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"]},
                "conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]}})
    }

    fn made() -> Vec<Arc<Resource>> {
        let value = definition();
        rows(&Arc::new(Object::new(value.to_string().into(), 7)), &value, 7)
    }

    #[test]
    fn a_row_for_each_served_version() {
        let rows = made();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].key(Some("default"), "a"), "/registry/stable.example.com/crontabs/default/a");
        assert_eq!(rows[0].subresources.iter().map(|sub| &*sub.name).collect::<Vec<_>>(), ["status", "scale"]);
        assert_eq!(rows[1].custom.as_ref().unwrap().deprecation.as_deref(), Some("stable.example.com/v1beta1 CronTab is deprecated"));
        assert_eq!((&*rows[1].storage_version, rows[1].subresources.len()), ("v1", 0));
        let mut before = definition();
        before["status"]["conditions"] = json!([]);
        assert!(super::rows(&Arc::new(Object::new(before.to_string().into(), 7)), &before, 7).is_empty());
    }

    #[test]
    fn defaults_selects_and_judges() {
        let rows = made();
        let custom = rows[0].custom.as_ref().unwrap();
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"color": "red"}, "status": {"replicas": -1, "selector": 3}});
        custom.default(&mut object);
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(custom.selectable(&object, "spec.color").as_deref(), Some("red"));
        assert_eq!(custom.selectable(&json!({}), "spec.color").as_deref(), Some(""));
        let causes = custom.validate_status(&object, &json!({}));
        let lines: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(
            lines,
            [
                "status.replicas: Invalid value: -1: replicas in body should be greater than or equal to 0",
                "status.selector: Invalid value: \"integer\": selector in body must be of type string: \"integer\"",
                ".status.replicas: Invalid value: -1: should be a non-negative integer",
                ".status.selector: Invalid value: \"\": .status.selector accessor error: 3 is of the type int64, expected string",
            ]
        );
        assert_eq!(custom.warnings(&json!({"metadata": {"finalizers": ["mine"]}})).len(), 1);
    }
}
