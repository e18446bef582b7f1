//! The back-off of restarts and image pulls: 10 s doubling to 300 s, forgotten after 10 quiet minutes.
//!
//! Mirrors client-go's `flowcontrol.Backoff` as the kubelet uses it. Pure: the time is passed in.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

pub const FIRST: SignedDuration = SignedDuration::from_secs(10);
pub const LONGEST: SignedDuration = SignedDuration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

/// One pod's delays, by container (or image).
#[derive(Debug, Clone, Default)]
pub struct BackOff {
    entries: HashMap<String, Entry>,
}

/// Still to wait: how long the whole delay is, and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub delay: SignedDuration,
    pub until: Timestamp,
}

fn expired(event: Timestamp, updated: Timestamp) -> bool {
    event.duration_since(updated) > LONGEST * 2
}

impl BackOff {
    /// Counts one more attempt at `now`, after something that happened at `event` (a container's end).
    pub fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        self.next_up_to(LONGEST, key, event, now);
    }

    /// The same, with a longest delay of its own.
    pub fn next_up_to(&mut self, longest: SignedDuration, key: &str, event: Timestamp, now: Timestamp) {
        let entry = self.entries.get(key).copied();
        let delay = match entry {
            Some(entry) if !expired(event, entry.updated) => (entry.delay * 2).min(longest),
            _ => FIRST.min(longest),
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Whether the delay counted from `event` is still running.
    pub fn waiting(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<Waiting> {
        let entry = self.entries.get(key)?;
        if expired(event, entry.updated) {
            return None;
        }
        let until = event.checked_add(entry.delay).ok()?;
        (now < until).then_some(Waiting { delay: entry.delay, until })
    }

    /// Whether the delay counted from the last attempt is still running.
    pub fn waiting_since_attempt(&self, key: &str, now: Timestamp) -> Option<Waiting> {
        let entry = self.entries.get(key)?;
        self.waiting(key, entry.updated, now)
    }

    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// A delay as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) if seconds == 0 => {
            let nanos = duration.subsec_nanos();
            match nanos {
                0 => "0s".to_owned(),
                n if n < 1_000 => format!("{n}ns"),
                n if n < 1_000_000 => format!("{}µs", trimmed(f64::from(n) / 1e3)),
                n => format!("{}ms", trimmed(f64::from(n) / 1e6)),
            }
        }
        (0, 0) => format!("{}s", trimmed(rest as f64 + f64::from(duration.subsec_nanos()) / 1e9)),
        (0, _) => format!("{minutes}m{}s", trimmed(rest as f64 + f64::from(duration.subsec_nanos()) / 1e9)),
        _ => format!("{hours}h{minutes}m{}s", trimmed(rest as f64 + f64::from(duration.subsec_nanos()) / 1e9)),
    }
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn doubles_to_five_minutes_and_is_forgotten_after_ten() {
        let mut backoff = BackOff::default();
        assert_eq!(backoff.waiting("c", at(0), at(0)), None, "the first restart is at once");
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("c", at(now), at(now));
            let ended = now + 1;
            let waiting = backoff.waiting("c", at(ended), at(ended)).unwrap();
            assert_eq!(waiting.delay.as_secs(), expected);
            assert_eq!(backoff.waiting("c", at(ended), at(ended + expected)), None);
            now = ended + expected;
        }
        assert_eq!(backoff.waiting("c", at(now + 601), at(now + 602)), None, "it ran for ten minutes");
        backoff.next("c", at(now + 601), at(now + 602));
        assert_eq!(backoff.waiting("c", at(now + 603), at(now + 603)).unwrap().delay, FIRST);
    }

    #[test]
    fn durations_print_as_go() {
        let cases = [(10_000, "10s"), (80_000, "1m20s"), (300_000, "5m0s"), (393, "393ms"), (1_500, "1.5s"), (0, "0s"), (3_600_000, "1h0m0s")];
        for (millis, text) in cases {
            assert_eq!(go_duration(SignedDuration::from_millis(millis)), text);
        }
    }
}
