//! explain: pure text of a kind's fields from its OpenAPI v3 document, as k8s.io/kubectl/pkg/explain/v2 prints it.
//!
//! Entry: [`command`], the thin shell that fetches the document through a [`Fetch`], then [`text`], which is pure; [`fields`] takes the words apart.

mod schema;
mod wrap;

use api::Status;
use futures_util::future::BoxFuture;
use serde_json::Value;

use schema::Schema;

/// Any JSON document of the server.
pub trait Fetch {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Status>>;
}

/// What is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub version: &'a str,
    /// The plural, as in the path.
    pub resource: &'a str,
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// Texts as upstream's, without the `error: ` in front; [`ExplainError::head`] goes to stdout before.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("failed to fetch list of groupVersions: {0}")]
    Index(String),
    #[error("couldn't find resource for \"{0}\"")]
    NoDocument(String),
    #[error("failed to fetch openapi schema for {path}: {message}")]
    Document { path: String, message: String },
    #[error("GVR ({0}) not found in OpenAPI schema")]
    NoResource(String),
    #[error("GVK {0} not found in OpenAPI schema")]
    NoKind(String),
    #[error("field \"{field}\" does not exist")]
    NoField { head: String, field: String },
}

impl ExplainError {
    /// What upstream has written to stdout by the time it fails.
    pub fn head(&self) -> &str {
        match self {
            ExplainError::NoField { head, .. } => head,
            _ => "",
        }
    }
}

/// The fields in `pods.spec.containers` or `deployments.apps.spec`, once it is known which resource the words mean.
pub fn fields<'a>(words: &'a str, plural: &str, group: &str) -> Vec<&'a str> {
    let words = words.strip_suffix('.').unwrap_or(words);
    let whole = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let rest = match words.strip_prefix(&whole) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => rest,
        _ => words.find('.').map_or("", |dot| &words[dot..]),
    };
    rest.split('.').filter(|field| !field.is_empty()).collect()
}

pub async fn command(fetch: &dyn Fetch, subject: Subject<'_>, path: &[&str], recursive: bool) -> Result<String, ExplainError> {
    let index = fetch.get("/openapi/v3").await.map_err(|status| ExplainError::Index(status.message))?;
    let name = if subject.group.is_empty() { format!("api/{}", subject.version) } else { format!("apis/{}/{}", subject.group, subject.version) };
    let entry = index.get("paths").and_then(|paths| paths.get(&name)).and_then(|entry| entry.get("serverRelativeURL")).and_then(Value::as_str);
    let Some(address) = entry else { return Err(ExplainError::NoDocument(subject.to_string())) };
    let document = fetch.get(address).await.map_err(|status| ExplainError::Document { path: name, message: status.message })?;
    text(&document, subject, path, recursive)
}

pub fn text(document: &Value, subject: Subject<'_>, path: &[&str], recursive: bool) -> Result<String, ExplainError> {
    let kind = kind_of(document, subject).ok_or_else(|| ExplainError::NoResource(subject.to_string()))?;
    let part = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or("");
    let mut out = String::new();
    if !part("group").is_empty() {
        out.push_str(&format!("GROUP:      {}\n", part("group")));
    }
    out.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", part("kind"), part("version")));
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object).into_iter().flatten();
    let of_kind = |schema: &Value| schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array).is_some_and(|kinds| kinds.contains(kind));
    let Some((_, schema)) = schemas.into_iter().find(|(_, schema)| of_kind(schema)) else {
        return Err(ExplainError::NoKind(format!("map[group:{} kind:{} version:{}]", part("group"), part("kind"), part("version"))));
    };
    let body = Schema { document, recursive }.explain(schema, path);
    if body.is_empty() {
        return Err(ExplainError::NoField { head: out, field: path.last().copied().unwrap_or("").to_owned() });
    }
    out.push_str(&body);
    out.push('\n');
    Ok(out)
}

/// The kind that the paths of a resource are said to serve; of several the last counts, as upstream.
fn kind_of<'a>(document: &'a Value, subject: Subject<'_>) -> Option<&'a Value> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let Subject { group, version, resource } = subject;
    let prefix = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let paths = document.get("paths")?;
    ["", "/namespaces/{namespace}"]
        .iter()
        .flat_map(|scope| ["", "/{name}"].map(|name| format!("{prefix}{scope}/{resource}{name}")))
        .filter_map(|path| {
            let path = paths.get(&path)?;
            METHODS.iter().find_map(|method| path.get(method)?.get("x-kubernetes-group-version-kind"))
        })
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "paths": {"/apis/g.io/v1/namespaces/{namespace}/things": {"get": {"x-kubernetes-group-version-kind": {"group": "g.io", "version": "v1", "kind": "Thing"}}}},
            "components": {"schemas": {
                "io.g.Thing": {
                    "description": "Thing is a thing.", "type": "object", "required": ["spec"],
                    "x-kubernetes-group-version-kind": [{"group": "g.io", "version": "v1", "kind": "Thing"}],
                    "properties": {
                        "kind": {"type": "string", "description": "Kind.", "enum": ["", "b", "c", "d", "e"]},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "spec": {"description": "Own words.", "allOf": [{"$ref": "#/components/schemas/io.g.Spec"}]}
                    }
                },
                "io.g.Spec": {"description": "Spec words.", "type": "object", "properties": {
                    "again": {"allOf": [{"$ref": "#/components/schemas/io.g.Spec"}]},
                    "items": {"type": "array", "items": {"$ref": "#/components/schemas/io.g.Name"}}
                }},
                "io.g.Name": {"type": "string"}
            }}
        })
    }

    #[test]
    fn layouts() {
        let document = document();
        let subject = Subject { group: "g.io", version: "v1", resource: "things" };
        let head = "GROUP:      g.io\nKIND:       Thing\nVERSION:    v1\n\n";
        let cases: [(&[&str], bool, &str); 4] = [
            (
                &[],
                false,
                "DESCRIPTION:\n    Thing is a thing.\n    \nFIELDS:\n  kind\t<string>\n  enum: \"\", b, c, d, ....\n    Kind.\n\n  labels\t<map[string]string>\n    <no description>\n\n  spec\t<Spec> -required-\n    Own words.\n\n\n",
            ),
            (
                &[],
                true,
                "DESCRIPTION:\n    Thing is a thing.\n    \nFIELDS:\n  kind\t<string>\n  enum: \"\", b, c, d, ....\n  labels\t<map[string]string>\n  spec\t<Spec> -required-\n    again\t<Spec>\n    items\t<[]string>\n\n",
            ),
            (&["kind"], false, "FIELD: kind <string>\nENUM:\n    \"\"\n    b\n    c\n    d\n    e\n\nDESCRIPTION:\n    Kind.\n    \n\n"),
            (&["spec", "items"], false, "FIELD: items <[]string>\n\n\nDESCRIPTION:\n    <empty>\n\n"),
        ];
        for (path, recursive, want) in cases {
            assert_eq!(text(&document, subject, path, recursive).unwrap(), format!("{head}{want}"), "{path:?}");
        }
    }

    #[test]
    fn errors() {
        let document = document();
        let subject = Subject { group: "g.io", version: "v1", resource: "things" };
        assert_eq!(text(&document, subject, &["spec", "nope"], false).unwrap_err().to_string(), "field \"nope\" does not exist");
        assert_eq!(text(&document, subject, &["nope"], false).unwrap_err().head(), "GROUP:      g.io\nKIND:       Thing\nVERSION:    v1\n\n");
        let other = Subject { resource: "others", ..subject };
        assert_eq!(text(&document, other, &[], false).unwrap_err().to_string(), "GVR (g.io/v1, Resource=others) not found in OpenAPI schema");
    }

    #[test]
    fn words_come_apart() {
        for (words, plural, group, want) in [
            ("pods", "pods", "", vec![]),
            ("po.spec.containers", "pods", "", vec!["spec", "containers"]),
            ("deployments.apps.spec", "deployments", "apps", vec!["spec"]),
            ("deployments.spec", "deployments", "apps", vec!["spec"]),
            ("pods.spec.", "pods", "", vec!["spec"]),
        ] {
            assert_eq!(fields(words, plural, group), want, "{words}");
        }
    }
}
