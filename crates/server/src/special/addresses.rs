//! ClusterIPs: out of which ranges they come, and who has which.
//!
//! The ranges are the ServiceCIDRs that are ready and not going. Who has an address is said by the IPAddress of that name (see `allocation.rs`). What a crash
//! leaves behind, controllers mend (`plan::ip_address`). The lower part of a range is left for addresses that people choose (KEP-3070).
//! Mirrors pkg/registry/core/service/ipallocator (KEP-1880).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ::api::{Object, Resource, Status};
use serde_json::{Value, json};
use store::BoxFuture;

use super::allocation::{Owner, Refused, Taken};
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::decode;
use crate::registry::text;

/// At most so many addresses of a range are handed out, however large it is.
const MAX_RANGE: u128 = 1 << 20;
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// The range of the command line.
pub const DEFAULT_RANGE: &str = "kubernetes";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
    size: u128,
    /// Addresses below this offset are not chosen by the server while others are free.
    reserved: u128,
}

impl Range {
    pub fn new(base: IpAddr, prefix: u8) -> Self {
        let bits = if base.is_ipv4() { 32 } else { 128 } - u32::from(prefix);
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX).min(MAX_RANGE);
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        Self { base, prefix, size, reserved }
    }

    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix): (IpAddr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
        (prefix <= if base.is_ipv4() { 32 } else { 128 }).then(|| Self::new(base, prefix))
    }

    pub fn family(&self) -> &'static str {
        family(self.base)
    }

    pub fn nth(&self, offset: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from((u128::from(u32::from(base)) + offset) as u32)),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(offset))),
        }
    }

    /// `10.96.0.0/12`
    pub fn cidr(&self) -> String {
        format!("{}/{}", self.base, self.prefix)
    }

    /// How many addresses may be given out: not the network's own, nor of IPv4 its broadcast address.
    pub fn usable(&self) -> u128 {
        self.size.saturating_sub(if self.base.is_ipv4() { 2 } else { 1 })
    }

    /// Inside, and neither the network's own address nor its broadcast address.
    pub fn offers(&self, address: IpAddr) -> bool {
        let (base, address, width) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (u128::from(u32::from(base)), u128::from(u32::from(address)), 32),
            (IpAddr::V6(base), IpAddr::V6(address)) => (u128::from(base), u128::from(address), 128),
            _ => return false,
        };
        let rest = 1u128.checked_shl(width - u32::from(self.prefix)).map_or(u128::MAX, |size| size - 1);
        base & !rest == address & !rest && address & rest != 0 && (width == 128 || address & rest != rest)
    }

    /// The offsets to try, from `cursor` on: the upper part, then what is left for people.
    fn offsets(&self, cursor: u128) -> impl Iterator<Item = u128> + use<> {
        // First and last of a range are its network and broadcast addresses.
        let (low, high) = (self.reserved.max(1), self.size.saturating_sub(1));
        let span = high.saturating_sub(low);
        (0..span).map(move |step| low + (cursor + step) % span).chain(1..low.min(high))
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn row(api: &Api, plural: &str) -> Result<Arc<Resource>, Status> {
    api.serving.rows().find("networking.k8s.io", "v1", plural).ok_or_else(|| Status::internal(format!("no row for {plural}")))
}

/// The ranges that addresses are given out of, those of the command line first.
fn ranges(api: &Api) -> Result<Vec<Range>, Status> {
    let prefix = row(api, "servicecidrs")?.key(None, "");
    let page = api.store.list(&prefix, None, None, 0).map_err(Status::internal)?;
    let known = api.allocations.families();
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for (_, object) in page.items {
        let cidr = object.value().map_err(Status::internal)?;
        let ready = cidr.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().find(|condition| condition["type"] == "Ready").is_none_or(|condition| condition["status"] == "True");
        if !ready || !text(&cidr, "/metadata/deletionTimestamp").is_empty() {
            continue;
        }
        let into = if text(&cidr, "/metadata/name") == DEFAULT_RANGE { &mut first } else { &mut others };
        into.extend(cidr.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).filter_map(Range::parse).filter(|range| known.contains(&range.family())));
    }
    first.extend(others);
    Ok(first)
}

/// Makes the IPAddress; `None` when there is one already.
fn record<'a>(api: &'a Api, address: IpAddr, owner: Owner<'a>) -> BoxFuture<'a, Result<Option<Arc<Object>>, Status>> {
    Box::pin(async move {
        let row = row(api, "ipaddresses")?;
        let cx = Context { field_manager: "kube-apiserver".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": address.to_string(), "labels": {FAMILY: family(address), MANAGED_BY: MANAGER}},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": owner.namespace, "name": owner.name}}});
        match api.create(&row, None, decode::shape(&row, object, &[], &cx)?, &cx).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_already_exists() => Ok(None),
            Err(status) => Err(status),
        }
    })
}

fn taken(api: &Api, address: IpAddr, object: &Object) -> Result<Taken, Status> {
    Ok(Taken { key: row(api, "ipaddresses")?.key(None, &address.to_string()), revision: object.resource_version() })
}

/// Takes this very address; in a dry run it is only looked at.
pub async fn take(api: &Api, address: IpAddr, owner: Owner<'_>, dry_run: bool) -> Result<Result<Option<Taken>, Refused>, Status> {
    if !ranges(api)?.iter().any(|range| range.offers(address)) {
        return Ok(Err(Refused::OutOfRange));
    }
    if dry_run {
        let there = api.store.get(&row(api, "ipaddresses")?.key(None, &address.to_string())).is_some();
        return Ok(if there { Err(Refused::Taken) } else { Ok(None) });
    }
    match record(api, address, owner).await? {
        Some(object) => Ok(Ok(Some(taken(api, address, &object)?))),
        None => Ok(Err(Refused::Taken)),
    }
}

/// Takes some address of the family.
pub async fn any(api: &Api, wanted: &str, owner: Owner<'_>, dry_run: bool) -> Result<Result<(IpAddr, Option<Taken>), Refused>, Status> {
    if !api.allocations.families().contains(&wanted) {
        return Ok(Err(Refused::OutOfRange));
    }
    let row = row(api, "ipaddresses")?;
    for range in ranges(api)?.iter().filter(|range| range.family() == wanted) {
        // Going on from the last one: what was freed is not given out again at once.
        for offset in range.offsets(u128::from(api.allocations.turn())) {
            let address = range.nth(offset);
            if api.store.get(&row.key(None, &address.to_string())).is_some() {
                continue;
            }
            if dry_run {
                return Ok(Ok((address, None)));
            }
            // Should another have taken it since, the next one will do.
            if let Some(object) = record(api, address, owner).await? {
                return Ok(Ok((address, Some(taken(api, address, &object)?))));
            }
        }
    }
    Ok(Err(Refused::Full))
}

/// The IPAddresses by which `owner` holds these, as they are now.
pub fn held(api: &Api, addresses: &[IpAddr], owner: Owner<'_>) -> Vec<Taken> {
    let Ok(row) = row(api, "ipaddresses") else { return Vec::new() };
    let mut found = Vec::new();
    for address in addresses {
        let key = row.key(None, &address.to_string());
        let Some(object) = api.store.get(&key) else { continue };
        let Ok(value) = object.value() else { continue };
        if text(&value, "/spec/parentRef/resource") == "services" && text(&value, "/spec/parentRef/namespace") == owner.namespace && text(&value, "/spec/parentRef/name") == owner.name {
            found.push(Taken { key, revision: object.resource_version() });
        }
    }
    found
}

/// Services of a store that knew no IPAddresses get theirs before anything is given out.
pub async fn complete(api: &Api) -> Result<(), Status> {
    let row = row(api, "ipaddresses")?;
    let Ok(page) = api.store.list("/registry/services/specs/", None, None, 0) else { return Ok(()) };
    for (_, object) in page.items {
        let service = object.value().map_err(Status::internal)?;
        for address in super::allocation::addresses(&service) {
            if api.store.get(&row.key(None, &address.to_string())).is_none() {
                record(api, address, Owner::of(&service)).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_range_offers() {
        let range = |text: &str| Range::parse(text).unwrap();
        for (cidr, address, offered) in [
            ("10.96.0.0/12", "10.96.0.1", true),
            ("10.96.0.0/12", "10.111.255.254", true),
            ("10.96.0.0/12", "10.111.255.255", false),
            ("10.96.0.0/12", "10.96.0.0", false),
            ("10.96.0.0/12", "10.0.0.1", false),
            ("fd00::/112", "fd00::ffff", true),
            ("fd00::/112", "fd00::", false),
            ("fd00::/112", "10.96.0.1", false),
        ] {
            assert_eq!(range(cidr).offers(address.parse().unwrap()), offered, "{address} of {cidr}");
        }
        assert_eq!(Range::parse("10.0.0.0/33"), None);
    }

    #[test]
    fn every_offset_is_tried_once() {
        for cidr in ["10.1.0.0/28", "10.1.0.0/24", "10.1.0.0/30", "10.1.0.0/32"] {
            let range = Range::parse(cidr).unwrap();
            let mut offsets: Vec<u128> = range.offsets(7).collect();
            offsets.sort_unstable();
            assert_eq!(offsets, (1..range.size.saturating_sub(1)).collect::<Vec<_>>(), "{cidr}");
        }
        assert_eq!(Range::parse("10.1.0.0/24").unwrap().offsets(0).next(), Some(16));
    }
}
