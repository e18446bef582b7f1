//! What the client wants to get: in which encoding, and as what.
//!
//! Mirrors apiserver's endpoints/handlers/negotiation: clauses of `Accept` by weight, then by how definite they are; within a clause the server's own order of encodings; the first that
//! the endpoint allows wins. `Accept: application/json;as=Table;v=v1;g=meta.k8s.io, application/json`.

use std::borrow::Cow;

use ::api::{Reason, Status, cbor, protobuf};
use http::header::{ACCEPT, USER_AGENT};
use http::request::Parts;

use crate::path::Query;

/// An encoding of objects, in the server's order of preference. CBOR is one where the gate `CBORServingAndStorage` is open: it is alpha in 1.36.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Media {
    #[default]
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Media {
    const ALL: [Media; 4] = [Media::Json, Media::Yaml, Media::Protobuf, Media::Cbor];

    /// Those that are spoken.
    fn spoken(cbor: bool) -> impl Iterator<Item = Media> {
        Self::ALL.into_iter().filter(move |media| cbor || *media != Media::Cbor)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => protobuf::CONTENT_TYPE,
            Media::Cbor => cbor::CONTENT_TYPE,
        }
    }

    /// Whether watches can be sent in it.
    pub fn streams(self) -> bool {
        self != Media::Yaml
    }

    fn subtype(self) -> &'static str {
        let whole = self.content_type();
        &whole["application/".len()..]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    #[default]
    Whole,
    Table,
    /// `PartialObjectMetadata`
    Metadata,
    /// `PartialObjectMetadataList`
    MetadataList,
    /// `APIGroupDiscoveryList`
    Discovery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub shape: Shape,
    /// Of the shape's version, `v1beta1` is meant.
    pub beta: bool,
    pub media: Media,
    pub pretty: bool,
}

/// What an endpoint can give (`EndpointRestrictions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Objects of a built-in kind.
    BuiltIn,
    /// What is made for the answer and never stored (reviews): there are no tables of it.
    Transient,
    /// Objects of a custom kind, which have no protobuf of their own.
    Custom,
    /// The roots of discovery, in their aggregated form only: whoever names it gets it, wherever it stands in the list.
    Discovery,
    /// Statuses and everything else: as they are.
    Plain,
}

impl Endpoint {
    fn server_version(self, version: &str) -> bool {
        version.is_empty() || (!matches!(self, Endpoint::Discovery | Endpoint::Plain) && version == "v1")
    }

    fn shape(self, media: Media, target: Option<&Target<'_>>) -> Option<(Shape, bool)> {
        let tables = matches!(self, Endpoint::BuiltIn | Endpoint::Custom);
        let objects = tables || self == Endpoint::Transient;
        let Some(target) = target else {
            let whole = match self {
                Endpoint::BuiltIn | Endpoint::Transient | Endpoint::Plain => true,
                Endpoint::Custom => media != Media::Protobuf,
                Endpoint::Discovery => false,
            };
            return whole.then_some((Shape::Whole, false));
        };
        let shape = match (target.group, target.version, target.kind) {
            ("meta.k8s.io", "v1" | "v1beta1", "Table") if tables && media != Media::Protobuf => Shape::Table,
            ("meta.k8s.io", "v1" | "v1beta1", "PartialObjectMetadata") if objects => Shape::Metadata,
            ("meta.k8s.io", "v1" | "v1beta1", "PartialObjectMetadataList") if objects => Shape::MetadataList,
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") if self == Endpoint::Discovery => Shape::Discovery,
            _ => return None,
        };
        Some((shape, target.version == "v1beta1"))
    }
}

/// `as=…;g=…;v=…`
#[derive(Default)]
struct Target<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    weight: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn before(&self, other: &Self) -> bool {
        self.weight > other.weight || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }

    fn matches(&self, media: Media) -> bool {
        (self.main == "application" && (self.sub == media.subtype() || self.sub == "*")) || (self.main == "*" && self.sub == "*")
    }

    fn wanted(&self, media: Media, endpoint: Endpoint) -> Option<Wanted> {
        let (mut target, mut pretty) = (None, false);
        for (key, value) in &self.parameters {
            match *key {
                "as" => target.get_or_insert_with(Target::default).kind = value,
                "g" => target.get_or_insert_with(Target::default).group = value,
                "v" => target.get_or_insert_with(Target::default).version = value,
                "stream" if !value.is_empty() && (!media.streams() || *value != "watch") => return None,
                "sv" if !endpoint.server_version(value) => return None,
                "pretty" => pretty = *value == "1",
                _ => {}
            }
        }
        let (shape, beta) = endpoint.shape(media, target.as_ref())?;
        Some(Wanted { shape, beta, media, pretty })
    }
}

/// The clauses in the order in which they are tried. Not a proper order when weights and wildcards disagree: then, as upstream, an insertion sort's.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut sorted: Vec<Clause<'_>> = Vec::new();
    for part in header.split(',') {
        let mut pieces = part.split(';');
        let media = pieces.next().unwrap_or("").trim_matches(' ');
        let (main, sub) = match media.split_once('/') {
            Some((main, sub)) if !sub.is_empty() && !sub.contains('/') => (main.trim_matches(' '), sub.trim_matches(' ')),
            None if media == "*" => ("*", "*"),
            _ => continue,
        };
        let mut clause = Clause { main, sub, weight: 1.0, parameters: Vec::new() };
        for (key, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            match key.trim_matches(' ') {
                _ if value.is_empty() || value.contains('=') => {}
                "q" => clause.weight = value.parse().unwrap_or(0.0),
                key => clause.parameters.push((key, value.trim_matches(' '))),
            }
        }
        let mut at = sorted.len();
        while at > 0 && clause.before(&sorted[at - 1]) {
            at -= 1;
        }
        sorted.insert(at, clause);
    }
    sorted
}

/// A request's words on what it wants.
#[derive(Clone)]
pub struct Asked {
    accept: Option<String>,
    pretty: bool,
    cbor: bool,
}

impl Asked {
    pub fn of(parts: &Parts, query: &Query, cbor: bool) -> Self {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let pretty = match query.get("pretty").filter(|text| !text.is_empty()) {
            Some(text) => matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True"),
            // People read what these fetch.
            None => header(USER_AGENT).is_some_and(|agent| ["curl", "Wget", "Mozilla/5.0"].iter().any(|human| agent.starts_with(human))),
        };
        Self { accept: header(ACCEPT).map(str::to_owned), pretty, cbor }
    }

    pub fn accept(&self) -> &str {
        self.accept.as_deref().unwrap_or("")
    }

    fn choose(&self, endpoint: Endpoint) -> Option<Wanted> {
        let mut wanted = match self.accept() {
            "" => Wanted::default(),
            header => clauses(header).iter().find_map(|clause| Media::spoken(self.cbor).filter(|media| clause.matches(*media)).find_map(|media| clause.wanted(media, endpoint)))?,
        };
        wanted.pretty |= self.pretty;
        Some(wanted)
    }

    pub fn wanted(&self, endpoint: Endpoint) -> Result<Wanted, Status> {
        self.choose(endpoint).ok_or_else(|| Status::not_acceptable(&accepted(self.cbor)))
    }

    /// For a watch: not everything can be streamed.
    pub fn stream(&self, endpoint: Endpoint) -> Result<Wanted, Status> {
        self.choose(endpoint).filter(|wanted| wanted.media.streams()).ok_or_else(|| Status::not_acceptable(&streams(self.cbor)))
    }

    /// What go-restful says before anyone negotiates: nothing is named that the route produces. It knows no parameters, and of wildcards only `*/*`.
    pub fn route(&self, collection: bool) -> Result<(), Status> {
        if self.accept().is_empty() {
            return Ok(());
        }
        let spoken = |name: &str| name == "*/*" || name.strip_prefix("application/").is_some_and(|subtype| Media::spoken(self.cbor).any(|media| media.subtype() == subtype));
        if self.accept().split(',').any(|part| spoken(part.split(';').next().unwrap_or("").trim())) {
            return Ok(());
        }
        let mut all = accepted(self.cbor);
        if collection {
            all = format!("{all}, {}", streams(self.cbor));
        }
        Err(Status::generic(406, Reason::NotAcceptable, format!("406: Not Acceptable\n\nAvailable representations: {all}")))
    }

    /// For a status that refuses: none when nothing fits, and it goes out as plain JSON all the same.
    pub fn refusal(&self) -> Option<Wanted> {
        self.choose(Endpoint::Plain)
    }

    /// Which of `types` is wanted most; `*/*` takes the first.
    pub fn first_of<'a>(&self, types: &[&'a str]) -> Option<&'a str> {
        let header = if self.accept().is_empty() { "*/*" } else { self.accept() };
        clauses(header).iter().find_map(|clause| {
            types.iter().copied().find(|ty| ty.split_once('/').is_some_and(|(main, sub)| (clause.main == main || clause.main == "*") && (clause.sub == sub || clause.sub == "*")))
        })
    }
}

/// What bodies may be in, and answers are.
pub fn accepted(cbor: bool) -> String {
    Media::spoken(cbor).map(Media::content_type).collect::<Vec<_>>().join(", ")
}

fn streams(cbor: bool) -> String {
    Media::spoken(cbor).filter(|media| media.streams()).map(|media| format!("{};stream=watch", media.content_type())).collect::<Vec<_>>().join(", ")
}

/// `mime.ParseMediaType`, as far as it decides whether a type is taken: the type in lower case; none when it or a parameter is malformed.
pub fn media_type(header: &str) -> Option<Cow<'_, str>> {
    let token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?="#.contains(&byte));
    let mut parts = header.split(';');
    let media = parts.next().unwrap_or("").trim();
    let (main, sub) = media.split_once('/').unwrap_or((media, "x"));
    if !token(main) || !token(sub) {
        return None;
    }
    let mut seen: Vec<String> = Vec::new();
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=')?;
        let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
        let key = key.trim_end().to_ascii_lowercase();
        if !token(&key) || !(quoted || token(value)) || seen.contains(&key) {
            return None;
        }
        seen.push(key);
    }
    Some(if media.bytes().any(|byte| byte.is_ascii_uppercase()) { media.to_ascii_lowercase().into() } else { media.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(header: &str, endpoint: Endpoint) -> Option<(Shape, Media)> {
        Asked { accept: Some(header.to_owned()), pretty: false, cbor: false }.choose(endpoint).map(|wanted| (wanted.shape, wanted.media))
    }

    #[test]
    fn the_first_that_can_be_served_wins() {
        use Endpoint::{BuiltIn, Custom, Discovery, Plain, Transient};
        use Media::{Json, Protobuf, Yaml};
        let cases = [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", BuiltIn, Some((Shape::Table, Json))),
            ("application/vnd.kubernetes.protobuf,application/json", BuiltIn, Some((Shape::Whole, Protobuf))),
            ("application/vnd.kubernetes.protobuf,application/json", Custom, Some((Shape::Whole, Json))),
            ("application/vnd.kubernetes.protobuf", Custom, None),
            ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Custom, Some((Shape::Metadata, Protobuf))),
            ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json", BuiltIn, Some((Shape::MetadataList, Protobuf))),
            ("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json", BuiltIn, Some((Shape::Whole, Json))),
            ("application/vnd.kubernetes.protobuf;stream=watch", BuiltIn, Some((Shape::Whole, Protobuf))),
            ("application/yaml;stream=watch", BuiltIn, None),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Discovery, Some((Shape::Discovery, Json))),
            ("application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", Discovery, Some((Shape::Discovery, Protobuf))),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Plain, Some((Shape::Whole, Json))),
            ("application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", Discovery, Some((Shape::Discovery, Json))),
            ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", Discovery, None),
            ("*/*", Discovery, None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Plain, None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Transient, None),
            ("application/yaml", BuiltIn, Some((Shape::Whole, Yaml))),
            ("application/json;q=0.1, application/yaml;q=0.5", BuiltIn, Some((Shape::Whole, Yaml))),
            ("*/*, application/vnd.kubernetes.protobuf", BuiltIn, Some((Shape::Whole, Protobuf))),
            ("application/*", BuiltIn, Some((Shape::Whole, Json))),
            ("text/html,*/*;q=0.8", BuiltIn, Some((Shape::Whole, Json))),
            ("text/html", BuiltIn, None),
            ("*", BuiltIn, Some((Shape::Whole, Json))),
            ("application/json;sv=v1", BuiltIn, Some((Shape::Whole, Json))),
            ("application/json;sv=v2", BuiltIn, None),
            ("application/json;charset=utf-8", BuiltIn, Some((Shape::Whole, Json))),
            ("application/cbor", BuiltIn, None),
            ("", BuiltIn, Some((Shape::Whole, Json))),
        ];
        for (header, endpoint, want) in cases {
            assert_eq!(choose(header, endpoint), want, "{header}");
        }
    }

    #[test]
    fn media_types_are_parsed_strictly() {
        for (header, want) in [
            ("application/json", Some("application/json")),
            ("Application/JSON; charset=UTF-8", Some("application/json")),
            ("application/json;", Some("application/json")),
            ("application/json; charset", None),
            ("application/json; a=1; a=2", None),
            ("application/json; a=\"b c\"", Some("application/json")),
            ("application / json", None),
            ("", None),
        ] {
            assert_eq!(media_type(header).as_deref(), want, "{header}");
        }
    }
}
