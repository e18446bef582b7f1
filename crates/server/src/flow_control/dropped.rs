//! What a turned-away client is told to wait: longer while many are turned away, shorter again when few are.
//!
//! Mirrors apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go: doubled at most once in its own length, taken back second by second. Pure.

use std::collections::VecDeque;

const MAX_RETRY_SECONDS: i64 = 32;

/// Of one priority level.
#[derive(Debug)]
pub struct Dropped {
    /// Seconds that have passed, and how many were turned away in each.
    history: VecDeque<(i64, i64)>,
    second: i64,
    count: i64,
    retry: i64,
    raised: i64,
}

impl Default for Dropped {
    fn default() -> Self {
        Self { history: VecDeque::new(), second: 0, count: 0, retry: 1, raised: i64::MIN / 2 }
    }
}

impl Dropped {
    /// One more was turned away; answers with the seconds it is told.
    pub fn note(&mut self, second: i64) -> i64 {
        if self.second == second {
            self.count += 1;
            return self.retry;
        }
        self.history.push_back((self.second, self.count));
        let kept = (2 * self.retry).min(MAX_RETRY_SECONDS);
        while self.history.front().is_some_and(|(then, _)| second - then > kept) {
            self.history.pop_front();
        }
        (self.second, self.count) = (second, 1);
        let recent: i64 = self.history.iter().filter(|(then, _)| second - then <= self.retry).map(|(_, count)| count).sum();
        if second - self.raised >= self.retry && recent >= 3 * self.retry {
            self.retry = (2 * self.retry).min(MAX_RETRY_SECONDS);
            self.raised = second;
        } else if recent < self.retry && self.retry > 1 {
            self.retry -= 1;
        }
        self.retry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_while_many_are_turned_away() {
        let mut dropped = Dropped::default();
        let mut told = Vec::new();
        for second in 1..=20 {
            for _ in 0..100 {
                dropped.note(second);
            }
            told.push(dropped.note(second));
        }
        assert_eq!(told[0], 1);
        assert_eq!(told[1], 2, "three in a second are too many");
        assert!(told.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == 2 * pair[0]), "{told:?}");
        assert!(*told.last().unwrap() >= 16);
        let mut later: Vec<i64> = (100..140).map(|second| dropped.note(second * 10)).collect();
        later.dedup();
        assert!(later.windows(2).all(|pair| pair[1] == pair[0] - 1) && later.last() == Some(&1), "{later:?}");
    }
}
