//! What a pure program cannot know by itself and is handed from outside (decision 9 of the design): the time and chance.

use jiff::Timestamp;

/// The time of day. Real, or virtual in a simulation.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// `metav1.Time`: RFC 3339 in UTC with whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: RFC 3339 in UTC with six decimals.
pub fn rfc3339_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_upstream() {
        let at: Timestamp = "2026-11-22T01:02:03.000456Z".parse().unwrap();
        assert_eq!(rfc3339(at), "2026-11-22T01:02:03Z");
        assert_eq!(rfc3339_micro(at), "2026-11-22T01:02:03.000456Z");
    }
}
