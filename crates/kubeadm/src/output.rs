//! What kubeadm lists, for machines: `-o json` and `-o yaml`, in upstream's API for it (`apis/output`).

use clap::ValueEnum;
use serde_json::Value;

use crate::documents;

pub const API_VERSION: &str = "output.kubeadm.k8s.io/v1alpha3";

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Text,
    Json,
    Yaml,
}

impl Output {
    /// An object in that form.
    pub fn shown(self, object: &Value) -> String {
        match self {
            // An object can always be written; kubectl's printers indent by four.
            Output::Json => {
                let mut out = Vec::new();
                let mut serializer = serde_json::Serializer::with_formatter(&mut out, serde_json::ser::PrettyFormatter::with_indent(b"    "));
                let written = serde::Serialize::serialize(object, &mut serializer);
                if written.is_err() { object.to_string() } else { String::from_utf8_lossy(&out).into_owned() + "\n" }
            }
            Output::Text | Output::Yaml => documents::yaml(object),
        }
    }
}
