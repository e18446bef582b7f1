//! When a schedule ([`api::cron`]) comes next, and when it came last. Mirrors `robfig/cron` v3's spec.go.

use std::str::FromStr;

use api::cron::{self, Cron, Field};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// A schedule that has no time within so many years has none.
const YEARS: i16 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Cron);

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        cron::parse(text.trim()).map(Self)
    }
}

struct Fields<'a>(&'a [Field; 5]);

impl Fields<'_> {
    fn day_fits(&self, date: Date) -> bool {
        let [_, _, days, _, weekdays] = self.0;
        let (day, weekday) = (days.has(date.day()), weekdays.has(date.weekday().to_sunday_zero_offset()));
        // With a star on either both have to hold, else one of them.
        if days.any || weekdays.any { day && weekday } else { day || weekday }
    }

    /// Minute by minute of real time, so that an hour which a change of the clocks repeats counts twice and one which it leaves out not at all.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let [minutes, hours, _, months, _] = self.0;
        let minute = SignedDuration::from_mins(1);
        let mut at = Timestamp::from_second(after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?).ok()?;
        let end = at.to_zoned(zone.clone()).year().checked_add(YEARS)?;
        loop {
            let local = at.to_zoned(zone.clone());
            let date = local.date();
            if date.year() > end {
                return None;
            }
            let later = if !months.has(date.month()) {
                date.first_of_month().checked_add(1.month()).ok()?.to_zoned(zone.clone()).ok()?.timestamp()
            } else if !self.day_fits(date) {
                date.tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp()
            } else if !hours.has(local.hour()) {
                at.checked_add(minute.checked_mul(60 - i32::from(local.minute()))?).ok()?
            } else if !minutes.has(local.minute()) {
                at.checked_add(minute).ok()?
            } else {
                return Some(at);
            };
            // Never back, whatever clocks do at midnight.
            at = later.max(at.checked_add(minute).ok()?);
        }
    }
}

impl Schedule {
    /// The first time after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Cron::Every(delay) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*delay).ok(),
            Cron::Fields(fields) => Fields(fields).next(after, zone),
        }
    }

    /// The last time up to `now`, looked for from further and further back.
    pub fn last(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Cron::Every(_) = self.0 {
            return Some(now);
        }
        for days in [1i64, 31, 366, 366 * i64::from(YEARS)] {
            let mut from = now.checked_sub(SignedDuration::from_hours(24 * days)).ok()?;
            let mut last = None;
            // A window is only walked when the smaller one before it was empty, so there is little in it.
            while let Some(at) = self.next(from, zone).filter(|at| *at <= now) {
                (last, from) = (Some(at), at);
            }
            if last.is_some() {
                return last;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In New York clocks went from 02:00 to 03:00 on the 8th of March 2026, and from 02:00 back to 01:00 on the 1st of November.
    #[test]
    fn clocks_that_change() {
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        for (schedule, after, expected) in [
            ("*/15 * * * *", "2026-11-01T05:45:00Z", "2026-11-01T06:00:00Z"),
            ("*/15 * * * *", "2026-11-01T06:30:00Z", "2026-11-01T06:45:00Z"),
            ("0 * * * *", "2026-11-01T06:30:00Z", "2026-11-01T07:00:00Z"),
            ("30 2 * * *", "2026-03-08T00:00:00Z", "2026-03-09T06:30:00Z"),
            ("*/30 * * * *", "2026-03-08T06:30:00Z", "2026-03-08T07:00:00Z"),
            ("0 12 * * *", "2026-03-08T00:00:00Z", "2026-03-08T16:00:00Z"),
        ] {
            let next = schedule.parse::<Schedule>().unwrap().next(after.parse().unwrap(), &zone).unwrap();
            assert_eq!(next.to_string(), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn next_times() {
        let cases = [
            ("* * * * *", "2026-11-22T10:00:30Z", "2026-11-22T10:01:00Z"),
            ("*/15 * * * *", "2026-11-22T10:45:00Z", "2026-11-22T11:00:00Z"),
            ("0 9-17/4 * * mon-fri", "2026-11-20T17:00:00Z", "2026-11-23T09:00:00Z"),
            ("30 4 1,15 * 5", "2026-11-15T05:00:00Z", "2026-11-20T04:30:00Z"),
            ("0 0 29 2 *", "2026-11-22T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@monthly", "2026-11-22T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("@every 1h30m", "2026-11-22T00:00:00Z", "2026-11-22T01:30:00Z"),
            ("0 0 */2 * mon", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("0 0 */2 * mon", "2026-11-23T00:00:00Z", "2026-11-25T00:00:00Z"),
            ("0 0 */1 * mon", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("5/20 * * * *", "2026-11-22T10:25:00Z", "2026-11-22T10:45:00Z"),
        ];
        for (schedule, after, expected) in cases {
            let next = schedule.parse::<Schedule>().unwrap().next(after.parse().unwrap(), &TimeZone::UTC).unwrap();
            assert_eq!(next.to_string(), expected, "{schedule}");
        }
        assert_eq!("0 0 30 2 *".parse::<Schedule>().unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
        assert_eq!(
            "0 0 1 * *".parse::<Schedule>().unwrap().last("2026-11-22T10:00:00Z".parse().unwrap(), &TimeZone::UTC).unwrap().to_string(),
            "2026-11-01T00:00:00Z"
        );
    }

    #[test]
    fn bad_ones_are_refused() {
        for bad in ["", "* * * *", "60 * * * *", "* * 0 * *", "a * * * *", "5-1 * * * *", "*/0 * * * *", "@often", "@every x"] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }
}
