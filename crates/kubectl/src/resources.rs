//! What the server serves, by all the names people use: plural, singular, short, kind, `deployments.apps`, `deployments.v1.apps`, and categories.
//!
//! From aggregated discovery; from the legacy documents where a server has no other.

use serde_json::Value;

use crate::error::{Error, Result, fail};
use crate::session::Session;

const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub verbs: Vec<String>,
    pub categories: Vec<String>,
    pub subresources: Vec<String>,
    /// Is this the version its group prefers?
    pub preferred: bool,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `deployment.apps`: before a name in what commands print.
    pub fn label(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        let name: String = percent_encoding::utf8_percent_encode(name, ESCAPED).collect();
        format!("{}/{name}", self.collection(namespace))
    }

    /// The type's name in the schema facts, when it is built in.
    pub fn schema(&self) -> Option<&'static api::schema::TypeInfo> {
        api::table::table().find(&self.group, &self.version, &self.plural).and_then(|row| api::schema::of(&row.schema))
    }
}

const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'/').add(b'?').add(b'#').add(b'%').add(b'"').add(b'<').add(b'>').add(b'\\');

pub struct Mapper {
    pub resources: Vec<Resource>,
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn array<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

impl Mapper {
    pub async fn discover(session: &Session) -> Result<Self> {
        let mut resources = Vec::new();
        for path in ["/api", "/apis"] {
            let document = session.get_as(path, DISCOVERY).await?;
            match document.get("kind").and_then(Value::as_str) {
                Some("APIGroupDiscoveryList") => aggregated(&document, &mut resources),
                _ => legacy(session, path, &document, &mut resources).await?,
            }
        }
        Ok(Self { resources })
    }

    #[cfg(test)]
    pub fn of(resources: Vec<Resource>) -> Self {
        Self { resources }
    }

    /// By plural, singular, short name or kind; `name.group` and `name.version.group` too.
    pub fn lookup(&self, name: &str) -> Option<&Resource> {
        let lower = name.to_lowercase();
        let (word, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let matching = |name: &str, group: &str, version: &str, exact: bool| {
            let fits = |resource: &&Resource| {
                (!exact || resource.group == group || (!group.is_empty() && resource.group.starts_with(&format!("{group}."))))
                    && (version.is_empty() || resource.version == version)
                    && (version.is_empty() && resource.preferred || !version.is_empty())
            };
            let found = |what: &dyn Fn(&Resource) -> bool| self.resources.iter().filter(|resource| what(resource)).find(fits);
            found(&|resource| resource.plural == name)
                .or_else(|| found(&|resource| resource.short_names.iter().any(|short| short == name)))
                .or_else(|| found(&|resource| resource.singular == name || resource.kind.to_lowercase() == name))
        };
        if rest.is_empty() {
            return matching(word, "", "", false);
        }
        matching(word, rest, "", true).or_else(|| {
            let (version, group) = rest.split_once('.').unwrap_or((rest, ""));
            matching(word, group, version, true)
        })
    }

    pub fn find(&self, name: &str) -> Result<Resource> {
        match self.lookup(name) {
            Some(resource) => Ok(resource.clone()),
            None => fail(format!("the server doesn't have a resource type \"{name}\"")),
        }
    }

    pub fn category(&self, name: &str) -> Vec<Resource> {
        self.resources.iter().filter(|resource| resource.preferred && resource.categories.iter().any(|category| category == name)).cloned().collect()
    }

    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    pub fn require_kind(&self, api_version: &str, kind: &str, name: &str, namespace: &str, source: &str) -> Result<Resource> {
        self.of_kind(api_version, kind).cloned().ok_or_else(|| {
            Error::Message(format!(
                "resource mapping not found for name: \"{name}\" namespace: \"{namespace}\" from \"{source}\": no matches for kind \"{kind}\" in version \"{api_version}\"\nensure CRDs are installed first"
            ))
        })
    }
}

fn aggregated(document: &Value, resources: &mut Vec<Resource>) {
    for group in array(document, "items") {
        let group_name = group.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
        let mut seen: Vec<String> = Vec::new();
        for version in array(group, "versions") {
            let mut here = Vec::new();
            for entry in array(version, "resources") {
                let plural = text(entry, "resource");
                let preferred = !seen.contains(&plural);
                here.push(plural.clone());
                resources.push(Resource {
                    group: group_name.to_owned(),
                    version: text(version, "version"),
                    singular: text(entry, "singularResource"),
                    kind: entry.pointer("/responseKind/kind").and_then(Value::as_str).unwrap_or("").to_owned(),
                    namespaced: text(entry, "scope") == "Namespaced",
                    short_names: texts(entry, "shortNames"),
                    verbs: texts(entry, "verbs"),
                    categories: texts(entry, "categories"),
                    subresources: array(entry, "subresources").map(|subresource| text(subresource, "subresource")).collect(),
                    preferred,
                    plural,
                });
            }
            seen.extend(here);
        }
    }
}

async fn legacy(session: &Session, path: &str, document: &Value, resources: &mut Vec<Resource>) -> Result<()> {
    let mut versions: Vec<(String, String, String)> = texts(document, "versions").into_iter().map(|version| (String::new(), version.clone(), format!("{path}/{version}"))).collect();
    for group in array(document, "groups") {
        let name = text(group, "name");
        let preferred = group.pointer("/preferredVersion/version").and_then(Value::as_str).unwrap_or("").to_owned();
        let mut of_group: Vec<String> = array(group, "versions").map(|version| text(version, "version")).collect();
        of_group.sort_by_key(|version| *version != preferred);
        versions.extend(of_group.into_iter().map(|version| (name.clone(), version.clone(), format!("/apis/{name}/{version}"))));
    }
    let mut seen: Vec<(String, String)> = Vec::new();
    for (group, version, path) in versions {
        // One broken aggregated API must not hide the rest.
        let Ok(list) = session.get(&path).await else { continue };
        let mut here = Vec::new();
        for entry in array(&list, "resources") {
            let name = text(entry, "name");
            if let Some((parent, subresource)) = name.split_once('/') {
                if let Some(resource) = resources.iter_mut().rev().find(|resource| resource.plural == parent && resource.group == group && resource.version == version) {
                    resource.subresources.push(subresource.to_owned());
                }
                continue;
            }
            let preferred = !seen.contains(&(group.clone(), name.clone()));
            here.push((group.clone(), name.clone()));
            resources.push(Resource {
                group: group.clone(),
                version: version.clone(),
                singular: match text(entry, "singularName") {
                    empty if empty.is_empty() => text(entry, "kind").to_lowercase(),
                    singular => singular,
                },
                kind: text(entry, "kind"),
                namespaced: entry.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
                short_names: texts(entry, "shortNames"),
                verbs: texts(entry, "verbs"),
                categories: texts(entry, "categories"),
                subresources: Vec::new(),
                preferred,
                plural: name,
            });
        }
        seen.extend(here);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let mut resources = Vec::new();
        let entry = |plural: &str, kind: &str, short: &[&str]| json!({"resource": plural, "singularResource": kind.to_lowercase(), "responseKind": {"kind": kind}, "scope": "Namespaced", "shortNames": short, "verbs": ["get"]});
        aggregated(
            &json!({"items": [
                {"metadata": {}, "versions": [{"version": "v1", "resources": [entry("events", "Event", &["ev"])]}]},
                {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [entry("deployments", "Deployment", &["deploy"])]}]},
                {"metadata": {"name": "autoscaling"}, "versions": [{"version": "v2", "resources": [entry("hpas", "Hpa", &[])]}, {"version": "v1", "resources": [entry("hpas", "Hpa", &[])]}]},
                {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [entry("events", "Event", &["ev"])]}]}
            ]}),
            &mut resources,
        );
        let mapper = Mapper::of(resources);
        for (name, want) in [
            ("deploy", Some("deployments.apps v1")), ("Deployment", Some("deployments.apps v1")), ("deployments.apps", Some("deployments.apps v1")), ("deployments.v1.apps", Some("deployments.apps v1")), ("ev", Some("events v1")),
            ("events.events.k8s.io", Some("events.events.k8s.io v1")), ("hpas", Some("hpas.autoscaling v2")), ("hpas.v1.autoscaling", Some("hpas.autoscaling v1")), ("foo", None), ("deployments.nope", None),
        ] {
            assert_eq!(mapper.lookup(name).map(|resource| format!("{} {}", resource.qualified(), resource.version)).as_deref(), want, "{name}");
        }
    }
}
