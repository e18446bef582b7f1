//! From the old ReplicaSets to the new one: step by step within surge and unavailability, or all at once after everything old is gone.

use super::Work;
use super::scale::Which;
use crate::meta::controller_of;
use crate::pods;

impl Work<'_> {
    /// One step of a rolling update.
    pub(super) fn roll(&mut self) {
        self.sync_revision(true);
        if !self.scale_new() && !self.scale_old() && self.complete(&self.status) {
            self.clean_up();
        }
        self.sync_rollout_status();
    }

    fn scale_new(&mut self) -> bool {
        if self.creates {
            return true;
        }
        let wanted = self.replicas();
        match self.new.as_ref().map(|new| new.replicas) {
            None => false,
            Some(have) if have == wanted => false,
            Some(have) if have > wanted => self.scale(Which::New, wanted),
            Some(_) => {
                let size = self.size_of_new();
                self.scale(Which::New, size)
            }
        }
    }

    /// How large the new set may be now.
    pub(super) fn size_of_new(&self) -> i32 {
        let have = self.new.as_ref().map_or(0, |new| new.replicas);
        if self.recreates() {
            return self.replicas();
        }
        let room = self.replicas() + self.max_surge() - self.total();
        if room <= 0 { have } else { have + room.min(self.replicas() - have) }
    }

    fn scale_old(&mut self) -> bool {
        if self.old.iter().all(|set| set.replicas == 0) {
            return false;
        }
        let min_available = self.replicas() - self.max_unavailable();
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.replicas - new.staying());
        let most = self.total() - min_available - new_unavailable;
        if most <= 0 {
            return false;
        }
        let unhealthy = self.remove_unhealthy(most);
        let healthy = self.remove_healthy(min_available);
        unhealthy + healthy > 0
    }

    /// Old pods that are not available go first: they serve nobody.
    fn remove_unhealthy(&mut self, most: i32) -> i32 {
        let mut removed = 0;
        for index in 0..self.old.len() {
            if removed >= most {
                break;
            }
            let (replicas, available) = (self.old[index].replicas, self.old[index].available());
            if replicas == 0 || replicas <= available {
                continue;
            }
            let count = (most - removed).min(replicas - available);
            self.scale(Which::Old(index), replicas - count);
            removed += count;
        }
        removed
    }

    fn remove_healthy(&mut self, min_available: i32) -> i32 {
        let available: i32 = self.all().map(|set| set.staying()).sum();
        let most = available - min_available;
        let mut removed = 0;
        for index in 0..self.old.len() {
            if removed >= most {
                break;
            }
            let replicas = self.old[index].replicas;
            if replicas == 0 {
                continue;
            }
            let count = replicas.min(most - removed);
            self.scale(Which::Old(index), replicas - count);
            removed += count;
        }
        removed
    }

    /// Everything old goes, then everything new comes.
    pub(super) fn roll_recreate(&mut self) {
        self.sync_revision(false);
        let mut scaled = false;
        for index in 0..self.old.len() {
            if self.old[index].replicas > 0 {
                scaled |= self.scale(Which::Old(index), 0);
            }
        }
        if !scaled && !self.old_pods_run() {
            if self.new.is_none() {
                self.sync_revision(true);
            } else {
                let wanted = self.replicas();
                self.scale(Which::New, wanted);
            }
            if self.complete(&self.status) {
                self.clean_up();
            }
        }
        self.sync_rollout_status();
    }

    fn old_pods_run(&self) -> bool {
        let new = self.new.as_ref().and_then(|new| new.set.metadata.uid.as_deref());
        self.view.pods.iter().any(|pod| !pods::finished(pod) && controller_of(pod.as_ref()).is_some_and(|owner| Some(owner.uid.as_str()) != new))
    }
}
