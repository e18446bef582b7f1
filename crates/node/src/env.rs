//! A container's environment: from the pod, config maps, secrets, the downward API and the services of its namespace.
//!
//! Mirrors upstream's `makeEnvironmentVariables` and envvars.FromServices. Pure: what it needs was fetched before (see [`needs`]).

use std::collections::{BTreeMap, HashMap};

use api::k8s::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use crate::expand::expand;
use crate::fields::{self, Facts};
use crate::pod;

/// An object a container's environment or a volume refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

/// What was fetched; absent means it does not exist.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub config_maps: HashMap<String, std::sync::Arc<ConfigMap>>,
    pub secrets: HashMap<String, std::sync::Arc<Secret>>,
}

pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub facts: &'a Facts,
    pub found: &'a Found,
    /// The services of the pod's namespace, and `kubernetes` of `default`.
    pub services: &'a [std::sync::Arc<Service>],
}

pub fn needs(container: &Container) -> Vec<(Kind, String)> {
    let mut out = Vec::new();
    for from in container.env_from.iter().flatten() {
        out.extend(from.config_map_ref.iter().map(|r| (Kind::ConfigMap, r.name.clone())));
        out.extend(from.secret_ref.iter().map(|r| (Kind::Secret, r.name.clone())));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        out.extend(source.config_map_key_ref.iter().map(|r| (Kind::ConfigMap, r.name.clone())));
        out.extend(source.secret_key_ref.iter().map(|r| (Kind::Secret, r.name.clone())));
    }
    out.sort();
    out.dedup();
    out
}

/// In the order they were first named. Errors are the words of the `CreateContainerConfigError`.
pub fn make(inputs: &Inputs) -> Result<Vec<(String, String)>, String> {
    let namespace = pod::namespace(inputs.pod);
    let service_env = services(inputs);
    let mut env = Ordered::default();
    for from in inputs.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match inputs.found.config_maps.get(&reference.name) {
                Some(map) => map.data.iter().flatten().for_each(|(k, v)| env.set(format!("{prefix}{k}"), v.clone())),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match inputs.found.secrets.get(&reference.name) {
                Some(secret) => secret.data.iter().flatten().for_each(|(k, v)| env.set(format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("secret", &reference.name)),
            }
        }
    }
    for var in inputs.container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => {
                let lookup = |name: &str| env.get(name).or_else(|| service_env.get(name)).cloned();
                expand(text, &lookup)
            }
            (_, Some(source)) => {
                if let Some(reference) = &source.field_ref {
                    fields::field(inputs.pod, inputs.facts, &reference.field_path)?
                } else if let Some(selector) = &source.resource_field_ref {
                    fields::resource(inputs.pod, inputs.facts, selector, Some(inputs.container))?
                } else if let Some(reference) = &source.config_map_key_ref {
                    let optional = reference.optional == Some(true);
                    let Some(map) = inputs.found.config_maps.get(&reference.name) else {
                        if optional {
                            continue;
                        }
                        return Err(missing("configmap", &reference.name));
                    };
                    match map.data.as_ref().and_then(|d| d.get(&reference.key)) {
                        Some(value) => value.clone(),
                        None if optional => continue,
                        None => return Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name)),
                    }
                } else if let Some(reference) = &source.secret_key_ref {
                    let optional = reference.optional == Some(true);
                    let Some(secret) = inputs.found.secrets.get(&reference.name) else {
                        if optional {
                            continue;
                        }
                        return Err(missing("secret", &reference.name));
                    };
                    match secret.data.as_ref().and_then(|d| d.get(&reference.key)) {
                        Some(value) => String::from_utf8_lossy(&value.0).into_owned(),
                        None if optional => continue,
                        None => return Err(format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name)),
                    }
                } else {
                    String::new()
                }
            }
            _ => String::new(),
        };
        env.set(var.name.clone(), value);
    }
    for (name, value) in service_env {
        if env.get(&name).is_none() {
            env.set(name, value);
        }
    }
    Ok(env.list)
}

fn missing(kind: &str, name: &str) -> String {
    format!("{kind} \"{name}\" not found")
}

#[derive(Default)]
struct Ordered {
    list: Vec<(String, String)>,
    at: HashMap<String, usize>,
}

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        match self.at.get(&name) {
            Some(index) => self.list[*index].1 = value,
            None => {
                self.at.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.at.get(name).map(|index| &self.list[*index].1)
    }
}

/// `REDIS_SERVICE_HOST` and its kin. The master service is always there; the namespace's others unless `enableServiceLinks: false`.
fn services(inputs: &Inputs) -> BTreeMap<String, String> {
    let links = pod::spec(inputs.pod).enable_service_links.unwrap_or(true);
    let mut out = BTreeMap::new();
    let is_master = |s: &Service| s.metadata.name.as_deref() == Some("kubernetes") && s.metadata.namespace.as_deref() == Some("default");
    // A namespace's own service `kubernetes` wins over the master's.
    let (masters, others): (Vec<_>, Vec<_>) = inputs.services.iter().partition(|s| is_master(s));
    for service in masters {
        of_service(service, &mut out);
    }
    let namespace = pod::namespace(inputs.pod);
    for service in others.into_iter().filter(|s| s.metadata.namespace.as_deref() == Some(namespace)) {
        if links {
            of_service(service, &mut out);
        }
    }
    out
}

fn of_service(service: &Service, out: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let Some(first) = spec.ports.iter().flatten().next() else { return };
    let name = service.metadata.name.as_deref().unwrap_or_default().to_uppercase().replace('-', "_");
    let joined = |port: i32| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let url = |protocol: &str, port: i32| format!("{}://{}", protocol.to_lowercase(), joined(port));
    let protocol = |p: Option<&String>| p.map_or("TCP", String::as_str).to_owned();
    out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    out.insert(format!("{name}_PORT"), url(&protocol(first.protocol.as_ref()), first.port));
    for port in spec.ports.iter().flatten() {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_")), port.port.to_string());
        }
        let proto = protocol(port.protocol.as_ref());
        let prefix = format!("{name}_PORT_{}_{}", port.port, proto.to_uppercase());
        out.insert(prefix.clone(), url(&proto, port.port));
        out.insert(format!("{prefix}_PROTO"), proto.to_lowercase());
        out.insert(format!("{prefix}_PORT"), port.port.to_string());
        out.insert(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn made(container: serde_json::Value, links: bool) -> Result<Vec<String>, String> {
        let pod = pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"enableServiceLinks": links, "containers": [container]}}));
        let config: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "cm"}, "data": {"A": "1", "B": "2"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"K": "c2VjcmV0"}})).unwrap();
        let found = Found { config_maps: [("cm".to_owned(), Arc::new(config))].into(), secrets: [("s".to_owned(), Arc::new(secret))].into() };
        let service = |value: serde_json::Value| Arc::new(serde_json::from_value::<Service>(value).unwrap());
        let services = [
            service(json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}})),
            service(json!({"metadata": {"name": "my-db", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 6379, "protocol": "TCP"}]}})),
            service(json!({"metadata": {"name": "other", "namespace": "m"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}})),
            service(json!({"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}})),
        ];
        let env = make(&Inputs { pod: &pod, container: &pod::containers(&pod)[0], facts: &Facts::default(), found: &found, services: &services })?;
        Ok(env.into_iter().map(|(k, v)| format!("{k}={v}")).collect())
    }

    #[test]
    fn sources_order_and_expansion() {
        let env = made(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}, {"secretRef": {"name": "no", "optional": true}}],
                "env": [{"name": "X", "value": "$(P_A)-$(KUBERNETES_SERVICE_HOST)-$(NO)"}, {"name": "P_B", "value": "over"}, {"name": "E"},
                        {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "K"}}},
                        {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "none", "optional": true}}}]}),
            false,
        )
        .unwrap();
        assert_eq!(env[..7], ["P_A=1", "P_B=over", "K=secret", "X=1-10.96.0.1-$(NO)", "E=", "N=p", "S=secret"]);
        assert!(env.contains(&"KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1".to_owned()) && env.contains(&"KUBERNETES_SERVICE_PORT_HTTPS=443".to_owned()));
        assert!(!env.iter().any(|e| e.starts_with("MY_DB")));
    }

    #[test]
    fn service_links() {
        let env = made(json!({"name": "c"}), true).unwrap();
        for expected in ["MY_DB_SERVICE_HOST=10.96.0.7", "MY_DB_SERVICE_PORT=6379", "MY_DB_PORT=tcp://10.96.0.7:6379", "MY_DB_PORT_6379_TCP=tcp://10.96.0.7:6379", "MY_DB_PORT_6379_TCP_PROTO=tcp"] {
            assert!(env.contains(&expected.to_owned()), "{expected}");
        }
        assert!(!env.iter().any(|e| e.starts_with("OTHER") || e.starts_with("HEADLESS")));
    }

    #[test]
    fn errors_are_upstreams() {
        let of = |source: serde_json::Value| made(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}), false).unwrap_err();
        assert_eq!(of(json!({"configMapKeyRef": {"name": "no", "key": "k"}})), "configmap \"no\" not found");
        assert_eq!(of(json!({"secretKeyRef": {"name": "no", "key": "k"}})), "secret \"no\" not found");
        assert_eq!(of(json!({"configMapKeyRef": {"name": "cm", "key": "k"}})), "couldn't find key k in ConfigMap n/cm");
        assert_eq!(of(json!({"secretKeyRef": {"name": "s", "key": "k"}})), "couldn't find key k in Secret n/s");
        assert_eq!(made(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}), false).unwrap_err(), "configmap \"no\" not found");
    }
}
