//! Scaling ReplicaSets: one of them to a number, or all in proportion when the Deployment is scaled in the middle of a rollout.

use super::{DESIRED_REPLICAS, MAX_REPLICAS, Set, Work};
use crate::meta::{created, deleting, name};
use crate::op::Op;

/// Which set is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    New,
    Old(usize),
}

impl Work<'_> {
    pub(super) fn set(&self, which: Which) -> Option<&Set> {
        match which {
            Which::New => self.new.as_ref(),
            Which::Old(index) => self.old.get(index),
        }
    }

    /// Scales and marks one set; whether its size changes. The annotations say for which size of the Deployment it was.
    pub(super) fn scale(&mut self, which: Which, replicas: i32) -> bool {
        let (desired, max) = (self.replicas().to_string(), (self.replicas() + self.max_surge()).to_string());
        let set = match which {
            Which::New => self.new.as_mut(),
            Which::Old(index) => self.old.get_mut(index),
        };
        let Some(set) = set else { return false };
        let before = set.replicas;
        set.replicas = replicas;
        set.annotations.insert(DESIRED_REPLICAS.to_owned(), desired);
        set.annotations.insert(MAX_REPLICAS.to_owned(), max);
        if before == replicas {
            return false;
        }
        let direction = if before < replicas { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", name(set.set.as_ref()));
        self.events.push(Op::normal(&self.about, "ScalingReplicaSet", message));
        true
    }

    /// The Deployment's size is another than the one its active sets were scaled for.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = self.replicas();
        self.all().filter(|set| set.replicas > 0).any(|set| set.number(DESIRED_REPLICAS).is_some_and(|desired| desired != wanted))
    }

    /// Paused, or its size changed: scales without rolling out.
    pub(super) fn sync_scale(&mut self) {
        self.sync_revision(false);
        self.scale_all();
        if self.spec.paused == Some(true) {
            self.clean_up();
        }
        self.sync_status();
    }

    fn active(&self) -> Vec<Which> {
        let old = self.old.iter().enumerate().filter(|(_, set)| set.replicas > 0).map(|(index, _)| Which::Old(index));
        let new = self.new.iter().filter(|set| set.replicas > 0).map(|_| Which::New);
        old.chain(new).collect()
    }

    /// The only active set; without one, the newest.
    fn active_or_latest(&self) -> Option<Which> {
        match self.active().as_slice() {
            [] if self.new.is_some() => Some(Which::New),
            [] => self.old.len().checked_sub(1).map(Which::Old),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn scale_all(&mut self) {
        let wanted = self.replicas();
        if let Some(which) = self.active_or_latest() {
            if self.set(which).is_some_and(|set| set.replicas != wanted) {
                self.scale(which, wanted);
            } else {
                self.mark(which);
            }
            return;
        }
        if self.saturated() {
            for which in self.active().into_iter().filter(|which| *which != Which::New) {
                self.scale(which, 0);
            }
            self.mark(Which::New);
            return;
        }
        if !self.recreates() {
            self.scale_in_proportion();
        }
    }

    /// The size for which it stands is written down also when it stays.
    fn mark(&mut self, which: Which) {
        if let Some(replicas) = self.set(which).map(|set| set.replicas) {
            self.scale(which, replicas);
        }
    }

    /// The new set is as large as wanted and fully available.
    fn saturated(&self) -> bool {
        let wanted = self.replicas();
        self.new.as_ref().is_some_and(|new| new.replicas == wanted && new.number(DESIRED_REPLICAS) == Some(wanted) && new.available() == wanted)
    }

    fn scale_in_proportion(&mut self) {
        let total: i32 = self.total();
        let allowed = if self.replicas() > 0 { self.replicas() + self.max_surge() } else { 0 };
        let to_add = allowed - total;
        let mut order = self.active();
        // The larger first; of two alike, the newer when growing and the older when shrinking.
        order.sort_by(|one, other| {
            let (Some(one), Some(other)) = (self.set(*one), self.set(*other)) else { return std::cmp::Ordering::Equal };
            let newer = created(other.set.as_ref()).cmp(&created(one.set.as_ref()));
            other.replicas.cmp(&one.replicas).then(if to_add > 0 { newer } else { newer.reverse() })
        });
        let mut added = 0;
        let mut sizes: Vec<(Which, i32)> = Vec::new();
        for which in order {
            let Some(set) = self.set(which) else { continue };
            let share = if to_add == 0 { 0 } else { self.share(set, to_add, added) };
            sizes.push((which, set.replicas + share));
            added += share;
        }
        if to_add != 0
            && let Some((_, size)) = sizes.first_mut()
        {
            *size = (*size + to_add - added).max(0);
        }
        for (which, size) in sizes {
            self.scale(which, size);
        }
    }

    fn share(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        if set.replicas == 0 || to_add == added {
            return 0;
        }
        let (fraction, allowed) = (self.fraction(set), to_add - added);
        if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
    }

    /// By how much a set grows when the Deployment's largest size changes.
    fn fraction(&self, set: &Set) -> i32 {
        if self.replicas() == 0 {
            return -set.replicas;
        }
        let before = match set.number(MAX_REPLICAS) {
            Some(max) if max != 0 => max,
            _ => self.status.replicas.unwrap_or(0),
        };
        if before == 0 {
            return 0;
        }
        let size = f64::from(set.replicas) * f64::from(self.replicas() + self.max_surge()) / f64::from(before);
        size.round() as i32 - set.replicas
    }

    /// Deletes old sets beyond `revisionHistoryLimit` that have nothing left.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit else { return };
        let mut old: Vec<&Set> = self.old.iter().filter(|set| !deleting(set.set.as_ref())).collect();
        old.sort_by_key(|set| set.revision());
        let beyond = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for set in old.into_iter().take(beyond) {
            let observed = set.status().observed_generation.unwrap_or(0);
            if set.actual() == 0 && set.replicas == 0 && set.patch().is_none() && crate::meta::generation(set.set.as_ref()) <= observed {
                self.plan.push(Op::delete(set.set.as_ref()));
            }
        }
    }
}
