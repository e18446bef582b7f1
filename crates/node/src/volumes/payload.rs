//! The files of configMap, secret, downwardAPI and projected volumes, from the objects they show: pure.

use std::collections::BTreeMap;

use api::k8s::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use crate::fields::{self, Facts};
use crate::volumes::atomic::{Payload, Projection};

fn mode(own: Option<i32>, default: u32) -> u32 {
    own.and_then(|m| u32::try_from(m).ok()).unwrap_or(default) & 0o777
}

fn keys(items: Option<&Vec<KeyToPath>>, data: &BTreeMap<String, Vec<u8>>, default_mode: u32, optional: bool, missing: impl Fn(&str) -> String) -> Result<Payload, String> {
    let mut out = Payload::new();
    let items = items.map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        for (key, bytes) in data {
            out.insert(key.clone(), Projection { data: bytes.clone(), mode: default_mode, uid: None });
        }
        return Ok(out);
    }
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                out.insert(item.path.clone(), Projection { data: bytes.clone(), mode: mode(item.mode, default_mode), uid: None });
            }
            None if optional => {}
            None => return Err(missing(&item.key)),
        }
    }
    Ok(out)
}

pub fn config_map(map: &ConfigMap, items: Option<&Vec<KeyToPath>>, default_mode: u32, optional: bool) -> Result<Payload, String> {
    let mut data: BTreeMap<String, Vec<u8>> = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes())).collect();
    data.extend(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())));
    keys(items, &data, default_mode, optional, |key| format!("configmap references non-existent config key: {key}"))
}

pub fn secret(secret: &Secret, items: Option<&Vec<KeyToPath>>, default_mode: u32, optional: bool) -> Result<Payload, String> {
    let data = secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    keys(items, &data, default_mode, optional, |key| format!("references non-existent secret key: {key}"))
}

pub fn downward_api(pod: &Pod, facts: &Facts, items: &[DownwardAPIVolumeFile], default_mode: u32) -> Result<Payload, String> {
    let mut out = Payload::new();
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            fields::field(pod, facts, &reference.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(pod, facts, selector, None)?
        } else {
            String::new()
        };
        out.insert(item.path.clone(), Projection { data: text.into_bytes(), mode: mode(item.mode, default_mode), uid: None });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_modes_and_missing_keys() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AQI="}})).unwrap();
        let items = |value| serde_json::from_value::<Vec<KeyToPath>>(value).unwrap();
        assert_eq!(config_map(&map, None, 0o644, false).unwrap().len(), 3);
        let some = config_map(&map, Some(&items(json!([{"key": "a", "path": "x/y", "mode": 256}]))), 0o644, false).unwrap();
        assert_eq!(some["x/y"], Projection { data: b"1".to_vec(), mode: 0o400, uid: None });
        let missing = items(json!([{"key": "z", "path": "z"}]));
        assert_eq!(config_map(&map, Some(&missing), 0o644, false).unwrap_err(), "configmap references non-existent config key: z");
        assert!(config_map(&map, Some(&missing), 0o644, true).unwrap().is_empty());
    }
}
