//! What is served beside objects: discovery, the version, and whom service-account tokens are verified by.

use serde_json::{Map, Value, json};

use super::Style;
use super::paths::{identifier, short};
use super::schemas::reference;

pub(super) const API_GROUP: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup";
pub(super) const API_GROUPS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList";
pub(super) const API_RESOURCES: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
pub(super) const API_VERSIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions";
const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";
const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const JSON: &[&str] = &["application/json"];
const KEYS: &[&str] = &["application/jwk-set+json"];

/// A document that is always there, by its path.
pub(super) struct Page {
    pub path: String,
    tag: String,
    id: String,
    description: &'static str,
    /// Empty: text.
    pub answer: &'static str,
    types: &'static [&'static str],
    consumes: &'static [&'static str],
}

/// `groups` are those of built-in kinds; empty is the core's.
pub(super) fn all<'a>(groups: impl IntoIterator<Item = &'a str>, versions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Page> {
    let page = |path: &str, tag: &str, id: String, description, answer, types, consumes| Page { path: path.to_owned(), tag: tag.to_owned(), id, description, answer, types, consumes };
    let mut pages = vec![
        page("/.well-known/openid-configuration/", "WellKnown", "getServiceAccountIssuerOpenIDConfiguration".into(), "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", "", JSON, &[]),
        page("/openid/v1/jwks/", "openid", "getServiceAccountIssuerOpenIDKeyset".into(), "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", "", KEYS, &[]),
        page("/version/", "version", "getCodeVersion".into(), "get the version information for this server", VERSION_INFO, JSON, JSON),
        page("/api/", "core", "getCoreAPIVersions".into(), "get available API versions", API_VERSIONS, OBJECTS, OBJECTS),
        page("/apis/", "apis", "getAPIVersions".into(), "get available API versions", API_GROUPS, OBJECTS, OBJECTS),
    ];
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        let id = format!("get{}APIGroup", identifier(short(group), true));
        pages.push(page(&format!("/apis/{group}/"), &identifier(short(group), false), id, "get information of a group", API_GROUP, OBJECTS, OBJECTS));
    }
    for (group, version) in versions {
        let tag = format!("{}_{}", identifier(short(group), false), identifier(version, false));
        let id = format!("get{}{}APIResources", identifier(short(group), true), identifier(version, true));
        pages.push(page(&format!("/{}/", super::path(group, version)), &tag, id, "get available resources", API_RESOURCES, OBJECTS, OBJECTS));
    }
    pages
}

impl Page {
    pub fn add(&self, paths: &mut Map<String, Value>, style: Style) {
        let mut ok = json!({"description": "OK"});
        let schema = if self.answer.is_empty() { json!({"type": "string"}) } else { reference(style, self.answer) };
        let mut get = json!({"description": self.description, "operationId": self.id, "tags": [self.tag]});
        match style {
            Style::V2 => {
                ok["schema"] = schema;
                get["produces"] = json!(self.types);
                get["schemes"] = json!(["https"]);
                if !self.consumes.is_empty() {
                    get["consumes"] = json!(self.consumes);
                }
            }
            Style::V3 => ok["content"] = self.types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect::<Map<String, Value>>().into(),
        }
        get["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
        paths.insert(self.path.clone(), json!({"get": get}));
    }
}
