//! Amounts of resources: what a node has, what pods ask for.

use std::collections::BTreeMap;

use api::k8s::apimachinery::pkg::api::resource::Quantity as Text;
use api::quantity::Quantity;

/// What upstream assumes of a container that asks for nothing, for scoring only (`DefaultMilliCPURequest`, `DefaultMemoryRequest`).
pub const ASSUMED_CPU_MILLI: i64 = 100;
pub const ASSUMED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Pods a node may hold; unused in requests.
    pub pods: i64,
    /// Everything else: huge pages, devices.
    pub others: BTreeMap<String, i64>,
}

impl Amounts {
    pub fn of(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in list.into_iter().flatten() {
            // What does not parse was refused by validation; an old object may still carry it: it counts as nothing.
            let Ok(quantity) = Quantity::parse(&text.0) else { continue };
            match name.as_str() {
                "cpu" => amounts.cpu_milli = quantity.milli_value(),
                "memory" => amounts.memory_bytes = quantity.value(),
                "ephemeral-storage" => amounts.ephemeral_bytes = quantity.value(),
                "pods" => amounts.pods = quantity.value(),
                _ => {
                    amounts.others.insert(name.clone(), quantity.value());
                }
            }
        }
        amounts
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// The larger of each.
    pub fn raise(&mut self, other: &Self) {
        self.combine(other, std::cmp::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu_milli = with(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = with(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.others {
            let slot = self.others.entry(name.clone()).or_default();
            *slot = with(*slot, *amount);
        }
    }
}
