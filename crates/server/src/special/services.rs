//! Services: their cluster addresses and node ports are given out on create and update, and given back.
//!
//! Mirrors pkg/registry/core/service/storage (alloc.go): https://kubernetes.io/docs/concepts/services-networking/service/

use std::net::IpAddr;
use std::sync::Arc;

use ::api::{Cause, Object, Resource, Status};
use serde_json::{Map, Value, json};

use super::addresses;
use super::allocation::{Owner, Refused, Taken, addresses as held_by, ports, undo};
use super::{Reserved, families, node_ports};
use crate::api::{Api, Context};
use crate::registry::text;

/// Addresses and ports taken for one write.
#[derive(Default)]
struct Taking {
    dry_run: bool,
    taken: Vec<Taken>,
}

pub async fn before_create(api: &Api, row: &Resource, value: &mut Value, cx: &Context) -> Result<Reserved, Status> {
    allocate(api, row, value, None, cx.dry_run).await
}

pub async fn before_update(api: &Api, row: &Resource, new: &mut Value, old: &Value, cx: &Context) -> Result<Reserved, Status> {
    allocate(api, row, new, Some(old), cx.dry_run).await
}

pub async fn after_delete(api: &Api, object: &Arc<Object>) {
    if let Ok(service) = object.value() {
        // Whoever sees the Service gone may take its addresses and ports at once.
        undo(api.store.clone(), held(api, &held_by(&service), &ports(&service), Owner::of(&service))).await;
    }
}

fn kind(service: &Value) -> &str {
    match text(service, "/spec/type") {
        "" => "ClusterIP",
        other => other,
    }
}

fn wants_address(service: &Value) -> bool {
    kind(service) != "ExternalName" && text(service, "/spec/clusterIP") != "None"
}

fn wants_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    }
}

fn invalid(row: &Resource, service: &Value, field: &str, message: String) -> Status {
    Status::invalid(&row.group, &row.kind, text(service, "/metadata/name"), vec![Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }])
}

async fn allocate(api: &Api, row: &Resource, service: &mut Value, old: Option<&Value>, dry_run: bool) -> Result<Reserved, Status> {
    let mut taking = Taking { dry_run, ..Taking::default() };
    let held_addresses = old.map(held_by).unwrap_or_default();
    let held_ports = old.map(ports).unwrap_or_default();
    let mut outcome = inherit(service, old).and_then(|()| judged(row, service)).and_then(|()| if wants_address(service) { families::settle(row, service, old, &api.allocations.families()) } else { Ok(()) });
    if outcome.is_ok() {
        outcome = fill(api, row, service, &held_addresses, &held_ports, &mut taking).await;
    }
    let give_back = api.allocations.giver(api.store.clone(), taking.taken);
    if let Err(status) = outcome {
        give_back();
        return Err(status);
    }
    if dry_run {
        return Ok(Reserved::none());
    }
    // What the old one held and the new one does not is given back once the write has succeeded; until then it stays taken.
    let (now_addresses, now_ports) = (held_by(service), ports(service));
    let dropped_addresses: Vec<IpAddr> = held_addresses.into_iter().filter(|held| !now_addresses.contains(held)).collect();
    let dropped_ports: Vec<u16> = held_ports.into_iter().filter(|held| !now_ports.contains(held)).collect();
    let dropped = held(api, &dropped_addresses, &dropped_ports, Owner::of(service));
    Ok(Reserved::new(give_back, undo(api.store.clone(), dropped)))
}

fn judged(row: &Resource, service: &Value) -> Result<(), Status> {
    let causes = ::api::kinds::service::cluster_ip_faults(service);
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&row.group, &row.kind, text(service, "/metadata/name"), causes)) }
}

/// The allocations by which `owner` holds these.
fn held(api: &Api, addresses: &[IpAddr], ports: &[u16], owner: Owner<'_>) -> Vec<Taken> {
    let mut found = addresses::held(api, addresses, owner);
    found.extend(node_ports::held(api, ports, owner));
    found
}

/// An update that leaves addresses and node ports out keeps the ones it has.
fn inherit(service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    let Some(old) = old else { return Ok(()) };
    let (same_life, was) = (kind(service) != "ExternalName" && kind(old) != "ExternalName", old.get("spec").cloned().unwrap_or_default());
    let keeps_ports = wants_node_ports(service);
    let drops_ports = !keeps_ports && wants_node_ports(old);
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    if same_life {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            // An empty policy is one, and a wrong one.
            let empty = spec.get(field).is_none_or(|value| value.is_null() || value.as_str() == Some("") && field != "ipFamilyPolicy" || value.as_array().is_some_and(Vec::is_empty));
            if empty && let Some(value) = was.get(field) {
                spec.insert(field.into(), value.clone());
            }
        }
    } else {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if was.get(field).is_some() && spec.get(field) == was.get(field) {
                spec.remove(field);
            }
        }
    }
    let old_ports = was.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        let known = old_ports.iter().find(|old| old.get("port") == port.get("port") && old.get("protocol") == port.get("protocol")).and_then(|old| old.get("nodePort"));
        if drops_ports && port.get("nodePort") == known {
            port.remove("nodePort");
        } else if keeps_ports
            && port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0
            && let Some(known) = known
        {
            port.insert("nodePort".into(), known.clone());
        }
    }
    Ok(())
}

async fn fill(api: &Api, row: &Resource, service: &mut Value, held_addresses: &[IpAddr], held_ports: &[u16], taking: &mut Taking) -> Result<(), Status> {
    if wants_address(service) {
        fill_addresses(api, row, service, held_addresses, taking).await?;
    } else if text(service, "/spec/clusterIP") == "None" {
        let families = wanted_families(api, service);
        let spec = spec_of(service);
        spec.insert("clusterIPs".into(), json!(["None"]));
        spec.entry("ipFamilies").or_insert_with(|| json!(families));
        spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    }
    if wants_node_ports(service) {
        fill_ports(api, row, service, held_ports, taking).await?;
    }
    if kind(service) == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local" {
        fill_health_port(api, row, service, held_ports, taking).await?;
    }
    Ok(())
}

fn spec_of(service: &mut Value) -> &mut Map<String, Value> {
    if !service.get("spec").is_some_and(Value::is_object) {
        service["spec"] = json!({});
    }
    match service.get_mut("spec") {
        Some(Value::Object(spec)) => spec,
        _ => unreachable!("made an object above"),
    }
}

/// The families the Service asks for, or the cluster's first.
fn wanted_families(api: &Api, service: &Value) -> Vec<String> {
    let asked: Vec<String> = service.pointer("/spec/ipFamilies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let known = api.allocations.families();
    let double = matches!(text(service, "/spec/ipFamilyPolicy"), "PreferDualStack" | "RequireDualStack");
    let mut families = asked;
    for family in known.iter().take(if double { 2 } else { 1 }) {
        if (families.is_empty() || double) && !families.iter().any(|have| have == family) {
            families.push((*family).to_owned());
        }
    }
    families
}

async fn fill_addresses(api: &Api, row: &Resource, service: &mut Value, held: &[IpAddr], taking: &mut Taking) -> Result<(), Status> {
    let mut given: Vec<String> = service.pointer("/spec/clusterIPs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let single = text(service, "/spec/clusterIP").to_owned();
    if given.is_empty() && !single.is_empty() {
        given.push(single);
    }
    let mut families = wanted_families(api, service);
    if let Some(first) = given.first().and_then(|text| text.parse::<IpAddr>().ok()) {
        let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
        if service.pointer("/spec/ipFamilies").is_none() && families.first().is_some_and(|have| have != family) {
            families = vec![family.to_owned()];
        }
    }
    let mut result = Vec::new();
    for (index, family) in families.iter().enumerate() {
        let address = match given.get(index).map(|text| text.parse::<IpAddr>()) {
            // What was given once may not change, which is validation's to say: nothing is taken for it.
            Some(Ok(address)) if held.contains(&address) || index < held.len() => address,
            Some(Ok(address)) => {
                let taken = addresses::take(api, address, Owner::of(service), taking.dry_run).await?.map_err(|refused| {
                    let why = match refused {
                        Refused::OutOfRange => "the provided network does not match the current range",
                        _ => "provided IP is already allocated",
                    };
                    invalid(row, service, "spec.clusterIPs", format!("Invalid value: {}: failed to allocate IP {address}: {why}", json!([address.to_string()])))
                })?;
                taking.taken.extend(taken);
                address
            }
            Some(Err(_)) => {
                let given = given[index].clone();
                return Err(invalid(row, service, &format!("spec.clusterIPs[{index}]"), format!("Invalid value: {given:?}: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")));
            }
            None => match addresses::any(api, family, Owner::of(service), taking.dry_run).await? {
                Ok((address, taken)) => {
                    taking.taken.extend(taken);
                    address
                }
                Err(Refused::OutOfRange) if text(service, "/spec/ipFamilyPolicy") == "PreferDualStack" => continue,
                Err(Refused::OutOfRange) => return Err(invalid(row, service, &format!("spec.ipFamilies[{index}]"), format!("Invalid value: {family:?}: not configured on this cluster"))),
                Err(_) => return Err(Status::internal("failed to allocate a serviceIP: range is full")),
            },
        };
        result.push(address.to_string());
    }
    let spec = spec_of(service);
    if let Some(first) = result.first() {
        spec.insert("clusterIP".into(), first.as_str().into());
    }
    families.truncate(result.len());
    spec.insert("clusterIPs".into(), json!(result));
    spec.insert("ipFamilies".into(), json!(families));
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str).unwrap_or("");
    if policy.is_empty() {
        spec.insert("ipFamilyPolicy".into(), if families.len() > 1 { "RequireDualStack" } else { "SingleStack" }.into());
    }
    Ok(())
}

fn port_refusal(api: &Api, refused: &Refused) -> String {
    let (first, last) = api.allocations.port_range();
    match refused {
        Refused::OutOfRange => format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"),
        _ => "provided port is already allocated".to_owned(),
    }
}

/// Takes some port that neither anybody nor this Service itself wants.
async fn any_port(api: &Api, owner: Owner<'_>, wanted: &[u16], taking: &mut Taking) -> Result<u16, Status> {
    let (port, taken) = node_ports::any(api, owner, taking.dry_run, wanted).await?.map_err(|_| Status::internal("failed to allocate a nodePort: range is full"))?;
    taking.taken.extend(taken);
    Ok(port)
}

async fn fill_ports(api: &Api, row: &Resource, service: &mut Value, held: &[u16], taking: &mut Taking) -> Result<(), Status> {
    let mut list = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut wanted = ports(service);
    let owner = Owner::of(service);
    let mut seen: Vec<(u16, String, u64)> = Vec::new();
    for (index, port) in list.iter_mut().enumerate() {
        let Some(map) = port.as_object_mut() else { continue };
        let protocol = map.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        let number = map.get("port").and_then(Value::as_u64).unwrap_or(0);
        let asked = map.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        let chosen = match u16::try_from(asked).ok().filter(|port| *port != 0) {
            Some(port) => {
                // One number may serve TCP and UDP of the same Service.
                let again = seen.iter().any(|(known, other, _)| *known == port && *other != protocol);
                let twice = seen.iter().any(|(known, other, _)| *known == port && *other == protocol);
                if twice || (!again && !held.contains(&port)) {
                    let outcome = if twice { Err(Refused::Taken) } else { node_ports::take(api, port, owner, taking.dry_run).await? };
                    taking.taken.extend(outcome.map_err(|refused| invalid(row, service, &format!("spec.ports[{index}].nodePort"), format!("Invalid value: {port}: {}", port_refusal(api, &refused))))?);
                }
                port
            }
            // The same port number over another protocol gets the same node port, as upstream.
            None => match seen.iter().find(|(_, other, same)| *same == number && *other != protocol) {
                Some((known, ..)) => *known,
                None => {
                    let port = any_port(api, owner, &wanted, taking).await?;
                    wanted.push(port);
                    port
                }
            },
        };
        seen.push((chosen, protocol, number));
        map.insert("nodePort".into(), chosen.into());
    }
    spec_of(service).insert("ports".into(), list.into());
    Ok(())
}

/// The port on which load balancers ask each node whether it has endpoints; also where the ports of the Service have no node ports.
async fn fill_health_port(api: &Api, row: &Resource, service: &mut Value, held: &[u16], taking: &mut Taking) -> Result<(), Status> {
    let owner = Owner::of(service);
    let asked = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    let Some(asked) = asked else {
        let port = any_port(api, owner, &ports(service), taking).await?;
        spec_of(service).insert("healthCheckNodePort".into(), port.into());
        return Ok(());
    };
    if held.contains(&asked) {
        return Ok(());
    }
    let mut node_ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().filter_map(|port| port.get("nodePort")?.as_u64());
    let outcome = if node_ports.any(|port| port == u64::from(asked)) { Err(Refused::Taken) } else { node_ports::take(api, asked, owner, taking.dry_run).await? };
    taking.taken.extend(outcome.map_err(|refused| invalid(row, service, "spec.healthCheckNodePort", format!("Invalid value: {asked}: {}", port_refusal(api, &refused))))?);
    Ok(())
}
