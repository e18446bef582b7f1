//! What a plugin answered to ADD, in any version of the specification. Pure.

use std::net::IpAddr;

use serde_json::Value;

use crate::config::Version;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResultError {
    #[error("the plugin's result has the address {0:?}")]
    Address(String),
    #[error("the plugins gave {0} no address")]
    NoAddress(String),
}

/// The container's addresses on `interface`, in the plugin's order: those that say to be another interface's are left out.
pub fn addresses(result: &Value, version: Version, interface: &str) -> Result<Vec<IpAddr>, ResultError> {
    let parse = |text: &str| text.split('/').next().unwrap_or_default().parse().map_err(|_| ResultError::Address(text.to_owned()));
    let mut found = Vec::new();
    if version <= Version::LAST_WITH_IP4 {
        for text in ["/ip4/ip", "/ip6/ip"].into_iter().filter_map(|path| result.pointer(path)?.as_str()) {
            found.push(parse(text)?);
        }
    } else {
        for ip in result["ips"].as_array().into_iter().flatten() {
            let on = ip["interface"].as_u64().and_then(|index| result["interfaces"].get(usize::try_from(index).ok()?));
            if on.is_none_or(|on| on["name"] == interface && on["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())) {
                found.push(parse(ip["address"].as_str().unwrap_or_default())?);
            }
        }
    }
    if found.is_empty() { Err(ResultError::NoAddress(interface.to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_of_every_version() {
        let bridge = json!({"interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/x"}],
            "ips": [{"interface": 2, "address": "10.1.0.5/16"}, {"interface": 2, "address": "fd00::5/64"}, {"interface": 0, "address": "10.1.0.1/16"}]});
        for (version, result, expected) in [
            ("1.0.0", bridge, "Ok([10.1.0.5, fd00::5])"),
            ("0.4.0", json!({"ips": [{"version": "4", "address": "10.1.0.5/16"}]}), "Ok([10.1.0.5])"),
            ("0.2.0", json!({"ip4": {"ip": "10.1.0.5/16"}, "ip6": {"ip": "fd00::5/64"}}), "Ok([10.1.0.5, fd00::5])"),
            ("1.0.0", json!({}), "Err(NoAddress(\"eth0\"))"),
            ("1.0.0", json!({"ips": [{"address": "x"}]}), "Err(Address(\"x\"))"),
            ("1.0.0", json!({"ips": [{"address": 1}], "interfaces": 7}), "Err(Address(\"\"))"),
            ("1.1.0", json!({"ips": [{"interface": 9, "address": "10.1.0.5/16"}]}), "Ok([10.1.0.5])"),
        ] {
            assert_eq!(format!("{:?}", addresses(&result, Version::parse(version).unwrap(), "eth0")), expected, "{result}");
        }
    }
}
