//! Services, Endpoints, EndpointSlices, Ingresses, NetworkPolicies, ServiceCIDRs, IPAddresses.

use serde_json::Value;

use super::format::{NONE, UNKNOWN, UNSET, labels, name, or, selector, three};
use super::{Printer, age};
use crate::kinds::json::{child, entry, list, map, number, strings, text};

const SERVICES: Printer = Printer {
    columns: "Name|Type|Cluster-IP|External-IP|Port(s)|Age|Selector*",
    cells: |object, now| {
        let ip = strings(object, "spec.clusterIPs").next().unwrap_or(text(object, "spec.clusterIP"));
        let port = |port: &Value| {
            let (number_, protocol) = (number(port, "port").unwrap_or(0), text(port, "protocol"));
            match number(port, "nodePort").unwrap_or(0) {
                0 => format!("{number_}/{protocol}"),
                node_port => format!("{number_}:{node_port}/{protocol}"),
            }
        };
        let ports = list(object, "spec.ports").iter().map(port).collect::<Vec<_>>().join(",");
        vec![
            name(object),
            text(object, "spec.type").into(),
            or(ip, NONE).into(),
            external_ip(object).into(),
            or(&ports, NONE).into(),
            age(object, now).into(),
            labels(map(object, "spec.selector")).into(),
        ]
    },
};

fn load_balancer(object: &Value) -> String {
    let mut all: Vec<&str> = list(object, "status.loadBalancer.ingress").iter().map(|ingress| or(text(ingress, "ip"), text(ingress, "hostname"))).filter(|one| !one.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    all.join(",")
}

fn external_ip(service: &Value) -> String {
    let external = strings(service, "spec.externalIPs").collect::<Vec<_>>().join(",");
    match text(service, "spec.type") {
        "ClusterIP" | "NodePort" => or(&external, NONE).to_owned(),
        "LoadBalancer" => match (load_balancer(service), external) {
            (ingress, external) if ingress.is_empty() => or(&external, "<pending>").to_owned(),
            (ingress, external) if external.is_empty() => ingress,
            (ingress, external) => format!("{ingress},{external}"),
        },
        "ExternalName" => text(service, "spec.externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

const ENDPOINTS: Printer = Printer {
    columns: "Name|Endpoints|Age",
    cells: |object, now| {
        let mut all = Vec::new();
        for subset in list(object, "subsets") {
            let addresses = || list(subset, "addresses").iter().map(|address| text(address, "ip"));
            let ports = list(subset, "ports");
            if ports.is_empty() {
                all.extend(addresses().map(str::to_owned));
            }
            for port in ports {
                all.extend(addresses().map(|ip| host_port(ip, number(port, "port").unwrap_or(0))));
            }
        }
        let nothing = if list(object, "subsets").is_empty() { NONE } else { "" };
        vec![name(object), three(&all, nothing).into(), age(object, now).into()]
    },
};

const ENDPOINT_SLICES: Printer = Printer {
    columns: "Name|AddressType|Ports|Endpoints|Age",
    cells: |object, now| {
        let port = |port: &Value| number(port, "port").map(|port| port.to_string()).or_else(|| child(port, "name").and_then(Value::as_str).map(str::to_owned)).unwrap_or_else(|| "*".to_owned());
        let ports: Vec<String> = list(object, "ports").iter().map(port).collect();
        let addresses: Vec<String> = list(object, "endpoints").iter().flat_map(|endpoint| strings(endpoint, "addresses")).map(str::to_owned).collect();
        vec![name(object), text(object, "addressType").into(), three(&ports, UNSET).into(), three(&addresses, UNSET).into(), age(object, now).into()]
    },
};

const INGRESSES: Printer = Printer {
    columns: "Name|Class|Hosts|Address|Ports|Age",
    cells: |object, now| {
        let rules = list(object, "spec.rules");
        let mut hosts: Vec<String> = Vec::new();
        let mut more = false;
        for rule in rules {
            more |= hosts.len() == 3;
            if !more && !text(rule, "host").is_empty() {
                hosts.push(text(rule, "host").to_owned());
            }
        }
        let hosts = match (hosts.join(","), more) {
            (joined, _) if joined.is_empty() => "*".to_owned(),
            (joined, true) => format!("{joined} + {} more...", rules.len() - 3),
            (joined, false) => joined,
        };
        vec![
            name(object),
            child(object, "spec.ingressClassName").and_then(Value::as_str).unwrap_or(NONE).into(),
            hosts.into(),
            load_balancer(object).into(),
            if list(object, "spec.tls").is_empty() { "80" } else { "80, 443" }.into(),
            age(object, now).into(),
        ]
    },
};

const INGRESS_CLASSES: Printer = Printer {
    columns: "Name|Controller|Parameters|Age",
    cells: |object, now| {
        let default = entry(object, "metadata.annotations", "ingressclass.kubernetes.io/is-default-class") == Some("true");
        let parameters = child(object, "spec.parameters").map_or(NONE.to_owned(), |parameters| {
            let group = text(parameters, "apiGroup");
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", text(parameters, "kind"), text(parameters, "name"))
        });
        let name = format!("{}{}", text(object, "metadata.name"), if default { " (default)" } else { "" });
        vec![name.into(), text(object, "spec.controller").into(), parameters.into(), age(object, now).into()]
    },
};

const NETWORK_POLICIES: Printer = Printer { columns: "Name|Pod-Selector|Age", cells: |object, now| vec![name(object), selector(object, "spec.podSelector").into(), age(object, now).into()] };

const SERVICE_CIDRS: Printer =
    Printer { columns: "Name|CIDRs|Age", cells: |object, now| vec![name(object), strings(object, "spec.cidrs").collect::<Vec<_>>().join(",").into(), age(object, now).into()] };

const IP_ADDRESSES: Printer = Printer {
    columns: "Name|ParentRef",
    cells: |object, _| {
        let parent = child(object, "spec.parentRef").map_or(NONE.to_owned(), |parent| {
            let (group, namespace) = (text(parent, "group"), text(parent, "namespace"));
            let mut shown = text(parent, "resource").to_lowercase();
            if !group.is_empty() {
                shown = format!("{shown}.{group}");
            }
            if !namespace.is_empty() {
                shown = format!("{shown}/{namespace}");
            }
            format!("{shown}/{}", text(parent, "name"))
        });
        vec![name(object), parent.into()]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("", "services") => &SERVICES,
        ("", "endpoints") => &ENDPOINTS,
        ("discovery.k8s.io", "endpointslices") => &ENDPOINT_SLICES,
        ("networking.k8s.io", "ingresses") => &INGRESSES,
        ("networking.k8s.io", "ingressclasses") => &INGRESS_CLASSES,
        ("networking.k8s.io", "networkpolicies") => &NETWORK_POLICIES,
        ("networking.k8s.io", "servicecidrs") => &SERVICE_CIDRS,
        ("networking.k8s.io", "ipaddresses") => &IP_ADDRESSES,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn services() {
        let cases = [
            (
                json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 443, "protocol": "TCP"}]}}),
                "x|ClusterIP|10.96.0.1|<none>|443/TCP|5m|<none>",
            ),
            (
                json!({"spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"app": "webui"}}}),
                "x|NodePort|10.96.0.9|<none>|80:30001/TCP,53/UDP|5m|app=webui",
            ),
            (json!({"spec": {"type": "ClusterIP", "clusterIPs": ["None"]}}), "x|ClusterIP|None|<none>|<none>|5m|<none>"),
            (json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}), "x|ExternalName|<none>|a.example|<none>|5m|<none>"),
            (json!({"spec": {"type": "LoadBalancer"}}), "x|LoadBalancer|<none>|<pending>|<none>|5m|<none>"),
        ];
        for (object, expected) in cases {
            assert_eq!(line("", "v1", "services", object), expected);
        }
    }

    #[test]
    fn endpoints_and_slices() {
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]);
        assert_eq!(line("", "v1", "endpoints", json!({})), "x|<none>|5m");
        let endpoints = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}, {"port": 81}]}]});
        assert_eq!(line("", "v1", "endpoints", endpoints), "x|10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...|5m");
        let slice = json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 80}, {"name": "x"}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(line("discovery.k8s.io", "v1", "endpointslices", slice), "x|IPv4|80,x|10.0.0.1|5m");
        let ingress = json!({"spec": {"rules": [{"host": "a.example"}], "tls": [{}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        assert_eq!(line("networking.k8s.io", "v1", "ingresses", ingress), "x|<none>|a.example|1.2.3.4|80, 443|5m");
        assert_eq!(line("networking.k8s.io", "v1", "networkpolicies", json!({"spec": {"podSelector": {}}})), "x|<none>|5m");
    }
}
