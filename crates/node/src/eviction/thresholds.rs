//! What is watched and when it is too little: the eviction thresholds of a KubeletConfiguration. Pure.
//!
//! Mirrors upstream's `eviction/helpers.go` (`ParseThresholdConfig` and the maps of signals) and `eviction/defaults_linux.go`.

use api::quantity::{Format, Quantity};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use crate::duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
    /// As the node's own here: containers lie where pods do.
    ContainerfsAvailable,
    ContainerfsInodesFree,
    /// Of all pods together, against what they may have.
    AllocatableMemoryAvailable,
}

use Signal::{AllocatableMemoryAvailable, ContainerfsAvailable, ContainerfsInodesFree, ImagefsAvailable, ImagefsInodesFree, MemoryAvailable, NodefsAvailable, NodefsInodesFree, PidAvailable};

const SIGNALS: [(Signal, &str, &str, &str); 9] = [
    (MemoryAvailable, "memory.available", "memory", "MemoryPressure"),
    (AllocatableMemoryAvailable, "allocatableMemory.available", "memory", "MemoryPressure"),
    (NodefsAvailable, "nodefs.available", "ephemeral-storage", "DiskPressure"),
    (NodefsInodesFree, "nodefs.inodesFree", "inodes", "DiskPressure"),
    (ImagefsAvailable, "imagefs.available", "ephemeral-storage", "DiskPressure"),
    (ImagefsInodesFree, "imagefs.inodesFree", "inodes", "DiskPressure"),
    (ContainerfsAvailable, "containerfs.available", "ephemeral-storage", "DiskPressure"),
    (ContainerfsInodesFree, "containerfs.inodesFree", "inodes", "DiskPressure"),
    (PidAvailable, "pid.available", "pids", "PIDPressure"),
];

/// Upstream's, but for its 15 % of `imagefs.available`: images lie on the node's own disk here, which the node's 10 % guard.
const DEFAULT_HARD: [(&str, &str); 4] = [("memory.available", "100Mi"), ("nodefs.available", "10%"), ("nodefs.inodesFree", "5%"), ("imagefs.inodesFree", "5%")];

impl Signal {
    pub fn parse(name: &str) -> Option<Self> {
        SIGNALS.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, &'static str) {
        SIGNALS.iter().find(|row| row.0 == self).unwrap_or(&SIGNALS[0])
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What there is too little of.
    pub fn resource(self) -> &'static str {
        self.row().2
    }

    /// The node's condition that says so.
    pub fn condition(self) -> &'static str {
        self.row().3
    }

    pub fn is_memory(self) -> bool {
        matches!(self, MemoryAvailable | AllocatableMemoryAvailable)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Units(i64),
    /// 0 to 1.
    Share(f32),
}

impl Amount {
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Units(units) => units,
            // As upstream rounds.
            Self::Share(share) => (capacity as f64 * f64::from(share)) as i64,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub value: Amount,
    /// Zero: a hard one.
    pub grace: SignedDuration,
    pub minimum_reclaim: Option<Amount>,
}

impl Threshold {
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// `evictionHard` as it holds: upstream's when none is given, and beside what is given if that is asked for.
pub fn hard(given: Option<&Value>, merge: bool) -> Value {
    let mut all: Map<String, Value> = if merge || given.is_none() { DEFAULT_HARD.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect() } else { Map::new() };
    all.extend(given.and_then(Value::as_object).into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(all)
}

fn share(text: &str) -> Result<f32, String> {
    let number = text.trim_end_matches('%');
    number.parse::<f32>().map(|percent| percent / 100.0).map_err(|_| format!("strconv.ParseFloat: parsing {number:?}: invalid syntax"))
}

fn statements<'a>(whole: &'a Value, name: &str) -> impl Iterator<Item = Result<(Signal, &'a str), String>> + use<'a> {
    whole.get(name).and_then(Value::as_object).into_iter().flatten().map(|(name, value)| {
        let signal = Signal::parse(name).ok_or_else(|| format!("unsupported eviction signal {name}"))?;
        Ok((signal, value.as_str().unwrap_or_default()))
    })
}

/// `None`: it is switched off.
fn threshold(signal: Signal, text: &str) -> Result<Option<Threshold>, String> {
    let name = signal.name();
    let value = if text.ends_with('%') {
        if text == "0%" || text == "100%" {
            return Ok(None);
        }
        let share = share(text)?;
        if share < 0.0 {
            return Err(format!("eviction percentage threshold {name} must be >= 0%: {text}"));
        }
        if share > 1.0 {
            return Err(format!("eviction percentage threshold {name} must be <= 100%: {text}"));
        }
        Amount::Share(share)
    } else {
        let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
        if quantity.sign() <= 0 {
            return Err(format!("eviction threshold {name} must be positive: {text}"));
        }
        Amount::Units(quantity.value())
    };
    Ok(Some(Threshold { signal, value, grace: SignedDuration::ZERO, minimum_reclaim: None }))
}

fn reclaim(signal: Signal, text: &str) -> Result<Amount, String> {
    if text.ends_with('%') {
        let share = share(text)?;
        if share <= 0.0 {
            return Err(format!("eviction percentage minimum reclaim {} must be positive: {text}", signal.name()));
        }
        return Ok(Amount::Share(share));
    }
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    if quantity.is_negative() {
        return Err(format!("negative eviction minimum reclaim specified for {}", signal.name()));
    }
    Ok(Amount::Units(quantity.value()))
}

/// Hard ones first.
pub fn of(whole: &Value) -> Result<Vec<Threshold>, String> {
    let mut all = Vec::new();
    for statement in statements(whole, "evictionHard") {
        let (signal, text) = statement?;
        all.extend(threshold(signal, text)?);
    }
    let hard = all.len();
    for statement in statements(whole, "evictionSoft") {
        let (signal, text) = statement?;
        all.extend(threshold(signal, text)?);
    }
    let mut graces = Vec::new();
    for statement in statements(whole, "evictionSoftGracePeriod") {
        let (signal, text) = statement?;
        let grace = duration::parse(text)?;
        if grace.is_negative() {
            return Err(format!("invalid eviction grace period specified: {text}, must be a positive value"));
        }
        graces.push((signal, grace));
    }
    for soft in &mut all[hard..] {
        let found = graces.iter().find(|(signal, _)| *signal == soft.signal);
        soft.grace = found.ok_or_else(|| format!("grace period must be specified for the soft eviction threshold {}", soft.signal.name()))?.1;
    }
    for statement in statements(whole, "evictionMinimumReclaim") {
        let (signal, text) = statement?;
        let least = reclaim(signal, text)?;
        all.iter_mut().filter(|threshold| threshold.signal == signal).for_each(|threshold| threshold.minimum_reclaim = Some(least));
    }
    Ok(all)
}

/// What hard thresholds keep from pods, of a resource of which the node has so much: it is not for the scheduler to give.
pub fn kept(thresholds: &[Threshold], resource: &str, capacity: i64) -> i64 {
    let signal = match resource {
        "memory" => MemoryAvailable,
        "ephemeral-storage" => NodefsAvailable,
        _ => return 0,
    };
    thresholds.iter().find(|threshold| threshold.signal == signal && threshold.is_hard()).map_or(0, |threshold| threshold.value.of(capacity))
}

/// As upstream shows it: bytes in powers of two, counts plain.
pub fn shown(resource: &str, amount: i64) -> String {
    let format = if matches!(resource, "memory" | "ephemeral-storage") { Format::BinarySi } else { Format::DecimalSi };
    Quantity::new(amount, format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_become_thresholds() {
        let whole = json!({"evictionHard": {"memory.available": "100Mi", "nodefs.available": "10%", "imagefs.available": "0%"}, "evictionSoft": {"memory.available": "200Mi"},
            "evictionSoftGracePeriod": {"memory.available": "90s"}, "evictionMinimumReclaim": {"memory.available": "1Mi"}});
        let all = of(&whole).unwrap();
        assert_eq!(all.iter().map(|t| (t.signal, t.value, t.grace.as_secs())).collect::<Vec<_>>(), [
            (MemoryAvailable, Amount::Units(100 << 20), 0), (NodefsAvailable, Amount::Share(0.1), 0), (MemoryAvailable, Amount::Units(200 << 20), 90)
        ]);
        assert_eq!((all[0].minimum_reclaim, all[1].minimum_reclaim), (Some(Amount::Units(1 << 20)), None));
        assert_eq!((kept(&all, "memory", 1 << 30), kept(&all, "ephemeral-storage", 1000), kept(&all, "cpu", 4)), (100 << 20, 100, 0));
        assert_eq!((shown("memory", 100 << 20), shown("inodes", 1500), shown("ephemeral-storage", 1025)), ("100Mi".to_owned(), "1500".to_owned(), "1025".to_owned()));
    }

    #[test]
    fn wrong_ones() {
        for (whole, error) in [
            (json!({"evictionHard": {"memory.available": "101%"}}), "eviction percentage threshold memory.available must be <= 100%: 101%"),
            (json!({"evictionHard": {"memory.available": "0"}}), "eviction threshold memory.available must be positive: 0"),
            (json!({"evictionMinimumReclaim": {"nodefs.available": "0%"}}), "eviction percentage minimum reclaim nodefs.available must be positive: 0%"),
            (json!({"evictionSoft": {"memory.available": "1Gi"}, "evictionSoftGracePeriod": {"memory.available": "-1s"}}), "invalid eviction grace period specified: -1s, must be a positive value"),
        ] {
            assert_eq!(of(&whole).unwrap_err(), error);
        }
    }
}
