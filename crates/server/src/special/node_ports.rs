//! NodePorts: who has which.
//!
//! A port is taken by a key of its own below `/registry/ranges/servicenodeports/` that names the Service. Upstream keeps one bitmap for all of them
//! (pkg/registry/core/service/portallocator), over which servers race and which does not say whose a port is. What a crash leaves behind is taken over by the next
//! who wants it: a key that is old enough for its write to have ended, and whose Service does not show the port, stands for nothing.
//! The lower part of the range is left for ports that people choose, as upstream does (KEP-3668).

use std::collections::HashMap;

use ::api::{Object, Status};
use serde_json::{Value, json};
use store::{CommitError, Precondition, Write};

use super::allocation::{Owner, Refused, Taken, ports};
use crate::api::Api;
use crate::registry::text;

pub const PREFIX: &str = "/registry/ranges/servicenodeports/";
const SERVICES: &str = "/registry/services/specs/";
/// The write of a Service ends within this time, one way or the other.
const WRITE_SECONDS: i64 = 60;
/// Scatters the ports, so that one that was freed is not given out again at once: no divisor of the usual range.
const STEP: u64 = 37;

fn key(port: u16) -> String {
    format!("{PREFIX}{port}")
}

/// Whether the Service named in the allocation shows the port.
fn stands(api: &Api, port: u16, allocation: &Value) -> bool {
    let service = api.store.get(&format!("{SERVICES}{}/{}", text(allocation, "/service/namespace"), text(allocation, "/service/name")));
    service.and_then(|service| service.value().ok()).is_some_and(|service| ports(&service).contains(&port))
}

fn leaked(api: &Api, port: u16, allocation: &Value) -> bool {
    let Ok(created) = text(allocation, "/metadata/creationTimestamp").parse::<jiff::Timestamp>() else { return true };
    // Nobody but us writes to a store of our own, and what we began ended with the process that began it: see `complete`.
    api.clock.now().as_second() - created.as_second() > WRITE_SECONDS && !stands(api, port, allocation)
}

/// What may be taken over: what this Service has let go a moment ago, and what leaked.
fn may_take_over(api: &Api, port: u16, there: &Object, owner: Owner<'_>) -> bool {
    if api.allocations.is_going(there.resource_version()) {
        return true;
    }
    let Ok(allocation) = there.value() else { return true };
    let same = text(&allocation, "/service/namespace") == owner.namespace && text(&allocation, "/service/name") == owner.name;
    (same && !stands(api, port, &allocation)) || leaked(api, port, &allocation)
}

async fn record(api: &Api, port: u16, owner: Owner<'_>, precondition: Precondition) -> Result<Result<Taken, Option<std::sync::Arc<Object>>>, Status> {
    let object = json!({"apiVersion": "coracle/v1", "kind": "NodePort", "metadata": {"name": port.to_string(), "creationTimestamp": api.now()},
        "service": {"namespace": owner.namespace, "name": owner.name}});
    match api.store.commit(Write { key: key(port), precondition, object: Some(object.to_string().into()) }).await {
        Ok(object) => Ok(Ok(Taken { key: key(port), revision: object.resource_version() })),
        Err(CommitError::Precondition { current }) => Ok(Err(current)),
        Err(error) => Err(Status::internal(error)),
    }
}

/// Takes it if nobody has it; in a dry run it is only looked at.
async fn try_take(api: &Api, port: u16, owner: Owner<'_>, dry_run: bool) -> Result<Result<Option<Taken>, Refused>, Status> {
    if dry_run {
        let free = api.store.get(&key(port)).is_none_or(|there| may_take_over(api, port, &there, owner));
        return Ok(if free { Ok(None) } else { Err(Refused::Taken) });
    }
    let there = match record(api, port, owner, Precondition::Absent).await? {
        Ok(taken) => return Ok(Ok(Some(taken))),
        Err(there) => there,
    };
    let precondition = match there {
        Some(there) if may_take_over(api, port, &there, owner) => Precondition::Revision(there.resource_version()),
        Some(_) => return Ok(Err(Refused::Taken)),
        // It was given back this very moment.
        None => Precondition::Absent,
    };
    Ok(record(api, port, owner, precondition).await?.map(Some).map_err(|_| Refused::Taken))
}

/// Takes this very port.
pub async fn take(api: &Api, port: u16, owner: Owner<'_>, dry_run: bool) -> Result<Result<Option<Taken>, Refused>, Status> {
    let (first, last) = api.allocations.port_range();
    if port < first || port > last {
        return Ok(Err(Refused::OutOfRange));
    }
    try_take(api, port, owner, dry_run).await
}

/// The ports in the order in which they are tried: the upper part, then what is left for people.
fn order((first, last): (u16, u16), turn: u64) -> impl Iterator<Item = u16> {
    let size = u64::from(last - first) + 1;
    let reserved = (size / 32).clamp(16, 128).min(size / 2);
    let span = size - reserved;
    let start = turn.wrapping_mul(STEP) % span;
    (0..span).map(move |step| reserved + (start + step) % span).chain(0..reserved).map(move |offset| first + offset as u16)
}

/// Takes some port, but none of `others`.
pub async fn any(api: &Api, owner: Owner<'_>, dry_run: bool, others: &[u16]) -> Result<Result<(u16, Option<Taken>), Refused>, Status> {
    // What leaked is looked for only when there is nothing else.
    for leaks in [false, true] {
        for port in order(api.allocations.port_range(), api.allocations.turn()) {
            if others.contains(&port) || (!leaks && api.store.get(&key(port)).is_some()) {
                continue;
            }
            // Should another have taken it since, the next one will do.
            if let Ok(taken) = try_take(api, port, owner, dry_run).await? {
                return Ok(Ok((port, taken)));
            }
        }
    }
    Ok(Err(Refused::Full))
}

/// The allocations by which `owner` holds these ports, as they are now.
pub fn held(api: &Api, wanted: &[u16], owner: Owner<'_>) -> Vec<Taken> {
    let of = |port: &u16| {
        let object = api.store.get(&key(*port))?;
        let allocation = object.value().ok()?;
        let own = text(&allocation, "/service/namespace") == owner.namespace && text(&allocation, "/service/name") == owner.name;
        own.then(|| Taken { key: key(*port), revision: object.resource_version() })
    };
    wanted.iter().filter_map(of).collect()
}

/// Services of a store that knew no allocations get theirs before anything is given out, and what leaked is cleared away.
pub async fn complete(api: &Api) -> Result<(), Status> {
    let list = |prefix| api.store.list(prefix, None, None, 0).map(|page| page.items).unwrap_or_default();
    let mut known = HashMap::new();
    for (key, object) in list(PREFIX) {
        let Some(port) = key.strip_prefix(PREFIX).and_then(|port| port.parse::<u16>().ok()) else { continue };
        known.insert(port, Taken { key: key.to_string(), revision: object.resource_version() });
    }
    for (_, object) in list(SERVICES) {
        let service = object.value().map_err(Status::internal)?;
        for port in ports(&service) {
            if known.remove(&port).is_none() && api.store.get(&key(port)).is_none() {
                // Another server may be doing the same.
                let _ = record(api, port, Owner::of(&service), Precondition::Absent).await?;
            }
        }
    }
    if !api.store.is_shared() {
        // No write of an earlier process is still on its way.
        super::allocation::undo(api.store.clone(), known.into_values().collect()).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_tried_once() {
        for (range, first) in [((30000, 32767), 30086), ((30000, 30010), 30005), ((30000, 30000), 30000), ((1, 65535), 129)] {
            let mut ports: Vec<u16> = order(range, 0).collect();
            assert_eq!(ports[0], first, "{range:?}");
            ports.sort_unstable();
            assert_eq!(ports, (range.0..=range.1).collect::<Vec<_>>());
        }
        assert_eq!(order((30000, 32767), 1).next(), Some(30123));
    }
}
