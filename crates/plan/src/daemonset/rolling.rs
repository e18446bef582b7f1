//! From old pods to new ones, node by node, within `maxUnavailable` or `maxSurge`; `OnDelete` leaves it to whoever deletes.

use std::sync::Arc;

use api::k8s::api::core::v1::Pod;
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;

use super::Work;
use crate::deployment::scaled;
use crate::meta::deleting;
use crate::pods;

impl Work<'_> {
    /// Both in pods; never both zero.
    pub(super) fn surge_and_unavailable(&self) -> (i32, i32) {
        let wanted = i32::try_from(self.on.values().filter(|here| here.should_run).count()).unwrap_or(i32::MAX);
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, |value| scaled(value, wanted, true));
        let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&IntOrString::Int(1)), wanted, true);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Adds what the update wants to what the number wants.
    pub(super) fn update(&self, create: &mut Vec<String>, delete: &mut Vec<Arc<Pod>>) {
        if self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let (surge, unavailable) = self.surge_and_unavailable();
        if surge == 0 {
            self.replace_in_place(unavailable, delete);
        } else {
            self.replace_with_surge(surge, create, delete);
        }
    }

    fn replace_in_place(&self, most: i32, delete: &mut Vec<Arc<Pod>>) {
        let (mut down, mut at_once, mut candidates) = (0, Vec::new(), Vec::new());
        for here in self.on.values().filter(|here| here.should_run) {
            let mut pods = here.pods.iter().filter(|pod| !pods::finished(pod));
            match (pods.next(), pods.next()) {
                (Some(pod), None) if deleting(pod.as_ref()) => down += 1,
                (Some(pod), None) if self.updated(pod) => down += i32::from(!self.available(pod)),
                (Some(pod), None) if !self.available(pod) => {
                    // It serves nobody: replacing it costs nothing.
                    down += 1;
                    at_once.push(pod.clone());
                }
                (Some(pod), None) => candidates.push(pod.clone()),
                // None, or more than one: the number is set right first.
                _ => down += 1,
            }
        }
        delete.extend(at_once);
        delete.extend(candidates.into_iter().take(usize::try_from(most - down).unwrap_or(0)));
    }

    fn replace_with_surge(&self, most: i32, create: &mut Vec<String>, delete: &mut Vec<Arc<Pod>>) {
        let (mut surging, mut at_once, mut candidates) = (0, Vec::new(), Vec::new());
        for (node, here) in self.on.iter().filter(|(_, here)| here.should_run) {
            let live = || here.pods.iter().filter(|pod| !pods::finished(pod) && !deleting(pod.as_ref()));
            let new = live().find(|pod| self.updated(pod));
            let old = live().find(|pod| !self.updated(pod));
            match (old, new) {
                (Some(old), Some(new)) if self.available(new) => delete.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
                (Some(old), None) if !self.available(old) => at_once.push(node.clone()),
                (Some(_), None) => candidates.push(node.clone()),
                (None, _) => {}
            }
        }
        create.extend(at_once);
        create.extend(candidates.into_iter().take(usize::try_from(most - surging).unwrap_or(0)));
    }
}
