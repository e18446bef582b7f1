//! What the client wants to get: JSON or YAML, and as what.
//!
//! `Accept: application/json;as=Table;v=v1;g=meta.k8s.io, application/json`: the first that can be served wins.

use ::api::Status;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    #[default]
    Whole,
    Table,
    /// `PartialObjectMetadata`, or its list.
    Metadata,
    /// `APIGroupDiscoveryList` v2.
    Discovery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub shape: Shape,
    pub yaml: bool,
    pub pretty: bool,
}

pub fn accept(header: Option<&str>) -> Result<Wanted, Status> {
    accept_for(header, true)
}

/// Answers that are no stored objects (reviews) have no `tables`.
pub fn accept_for(header: Option<&str>, tables: bool) -> Result<Wanted, Status> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else { return Ok(Wanted::default()) };
    for clause in header.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let parameter = |name: &str| clause.split(';').skip(1).filter_map(|part| part.trim().split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value);
        let yaml = match media {
            "application/json" | "*/*" | "application/*" | "text/*" | "text/html" | "application/json;stream=watch" => false,
            "application/yaml" | "application/x-yaml" | "text/yaml" => true,
            _ => continue,
        };
        let shape = match parameter("as") {
            None => Shape::Whole,
            Some("Table") if tables && matches!(parameter("v"), Some("v1" | "v1beta1")) => Shape::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Shape::Metadata,
            Some("APIGroupDiscoveryList") if parameter("v") == Some("v2") => Shape::Discovery,
            Some(_) => continue,
        };
        return Ok(Wanted { shape, yaml, pretty: false });
    }
    Err(Status::not_acceptable("application/json, application/yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_can_be_served_wins() {
        let cases = [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some((Shape::Table, false))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Shape::Whole, false))),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Some((Shape::Discovery, false))),
            ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", Some((Shape::Whole, false))),
            ("application/yaml", Some((Shape::Whole, true))),
            ("application/vnd.kubernetes.protobuf", None),
            ("*/*", Some((Shape::Whole, false))),
        ];
        for (header, want) in cases {
            assert_eq!(accept(Some(header)).ok().map(|wanted| (wanted.shape, wanted.yaml)), want, "{header}");
        }
        assert_eq!(accept_for(Some("application/json;as=Table;v=v1;g=meta.k8s.io"), false).map_err(|status| status.code), Err(406));
        assert_eq!(accept_for(Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), false).map(|wanted| wanted.shape), Ok(Shape::Whole));
    }
}
