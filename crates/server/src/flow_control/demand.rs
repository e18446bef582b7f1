//! How many seats a priority level could have used: watched while it happens, smoothed from period to period.
//!
//! Mirrors fairqueuing/integrator.go and `seatDemandStats` of apf_controller.go. Pure; times are seconds.

/// Half of what was smoothed is forgotten after five minutes of ten-second periods.
const SMOOTHING: f64 = 0.977;
pub const PERIOD_SECONDS: f64 = 10.0;

/// A value over time: its average, deviation and maximum since the last look.
#[derive(Debug, Clone, Default)]
pub struct Integrator {
    since: f64,
    last: f64,
    value: f64,
    sum: f64,
    square: f64,
    max: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Observed {
    pub seconds: f64,
    pub average: f64,
    pub deviation: f64,
    pub max: f64,
}

impl Integrator {
    pub fn set(&mut self, now: f64, value: f64) {
        let passed = (now - self.last).max(0.0);
        self.sum += self.value * passed;
        self.square += self.value * self.value * passed;
        self.last = now;
        self.value = value;
        self.max = self.max.max(value);
    }

    /// What was seen since the last time, from which the next begins.
    pub fn take(&mut self, now: f64) -> Observed {
        self.set(now, self.value);
        let seconds = now - self.since;
        let mut observed = Observed { seconds, max: self.max, ..Observed::default() };
        if seconds > 0.0 {
            observed.average = self.sum / seconds;
            observed.deviation = (self.square / seconds - observed.average * observed.average).max(0.0).sqrt();
        }
        *self = Self { since: now, last: now, value: self.value, max: self.value, ..Self::default() };
        observed
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    pub high: f64,
    pub average: f64,
    pub deviation: f64,
    pub smoothed: f64,
}

impl Demand {
    /// Rises at once, falls slowly. What lasted several periods counts as several.
    pub fn update(&mut self, seen: Observed) {
        self.high = seen.max.round();
        if seen.seconds <= 0.0 {
            return;
        }
        (self.average, self.deviation) = (seen.average, seen.deviation);
        let envelope = seen.average + seen.deviation;
        let kept = SMOOTHING.powf((seen.seconds / PERIOD_SECONDS).max(1.0));
        self.smoothed = envelope.max(kept * self.smoothed + (1.0 - kept) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_over_time() {
        let mut seen = Integrator::default();
        seen.set(0.0, 4.0);
        seen.set(5.0, 0.0);
        let first = seen.take(10.0);
        assert_eq!(first, Observed { seconds: 10.0, average: 2.0, deviation: 2.0, max: 4.0 });
        assert_eq!(seen.take(20.0), Observed { seconds: 10.0, average: 0.0, deviation: 0.0, max: 0.0 });
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let busy = Observed { seconds: 10.0, average: 10.0, deviation: 0.0, max: 12.0 };
        let quiet = Observed { seconds: 10.0, ..Observed::default() };
        let mut demand = Demand::default();
        demand.update(busy);
        assert_eq!((demand.high, demand.smoothed), (12.0, 10.0));
        demand.update(quiet);
        assert!((demand.smoothed - 9.77).abs() < 1e-9 && demand.high == 0.0);
        let mut long = Demand { smoothed: 10.0, ..Demand::default() };
        long.update(Observed { seconds: 300.0, ..quiet });
        assert!((4.9..5.1).contains(&long.smoothed), "half is left after five minutes: {}", long.smoothed);
    }
}
