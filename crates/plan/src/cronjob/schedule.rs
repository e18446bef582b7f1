//! Cron schedules: five fields, names, ranges, lists and steps, and `@hourly` and its like. As `robfig/cron` v3's standard parser.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// A schedule that has no time within so many years has none.
const YEARS: i16 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    Fields(Box<Fields>),
    /// `@every 1h30m`, in seconds.
    Every(i64),
}

/// Bit sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A star: with one on either, both have to hold, else one of them.
    any_day: bool,
    any_weekday: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    #[error("expected exactly 5 fields, found {0}: {1:?}")]
    Fields(usize, String),
    #[error("failed to parse {0:?}")]
    Field(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let text = text.trim();
        if let Some(delay) = text.strip_prefix("@every ") {
            let seconds = delay.trim().parse::<SignedDuration>().map(|delay| delay.as_secs()).unwrap_or(0);
            return if seconds > 0 { Ok(Schedule::Every(seconds)) } else { Err(BadSchedule::Descriptor(text.to_owned())) };
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(BadSchedule::Descriptor(other.to_owned())),
            other => other,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else { return Err(BadSchedule::Fields(parts.len(), text.to_owned())) };
        let star = |part: &str| part.split(',').any(|one| one.starts_with('*') || one.starts_with('?'));
        Ok(Schedule::Fields(Box::new(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: star(days),
            any_weekday: star(weekdays),
        })))
    }
}

fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, BadSchedule> {
    let bad = || BadSchedule::Field(text.to_owned());
    let number = |word: &str| -> Option<u32> {
        let by_name = names.iter().position(|name| name.eq_ignore_ascii_case(word)).and_then(|at| u32::try_from(at).ok()).map(|at| at + low);
        by_name.or_else(|| word.parse().ok()).filter(|value| (low..=high).contains(value))
    };
    let mut set = 0u64;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step_by: u32 = step.map_or(Some(1), |step| step.parse().ok().filter(|step| *step > 0)).ok_or_else(bad)?;
        let (first, last) = match range {
            "*" | "?" => (low, high),
            _ => match range.split_once('-') {
                Some((first, last)) => (number(first).ok_or_else(bad)?, number(last).ok_or_else(bad)?),
                None => {
                    let first = number(range).ok_or_else(bad)?;
                    (first, if step.is_some() { high } else { first })
                }
            },
        };
        if first > last {
            return Err(bad());
        }
        (first..=last).step_by(step_by as usize).for_each(|value| set |= 1 << value);
    }
    Ok(set)
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set >> value & 1 == 1)
}

impl Fields {
    fn day_fits(&self, date: Date) -> bool {
        let (day, weekday) = (has(self.days, date.day()), has(self.weekdays, date.weekday().to_sunday_zero_offset()));
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    /// The first time on this day from `hour:minute` on.
    fn on(&self, date: Date, hour: i8, minute: i8) -> Option<DateTime> {
        for at in (hour..24).filter(|at| has(self.hours, *at)) {
            let from = if at == hour { minute } else { 0 };
            if let Some(minute) = (from..60).find(|at| has(self.minutes, *at)) {
                return Some(date.at(at, minute, 0, 0));
            }
        }
        None
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = after.to_zoned(zone.clone()).datetime();
        let start = local.checked_add(1.minute()).ok()?;
        let (mut date, mut hour, mut minute) = (start.date(), start.hour(), start.minute());
        let end = date.year().checked_add(YEARS)?;
        while date.year() <= end {
            if !has(self.months, date.month()) {
                date = date.first_of_month().checked_add(1.month()).ok()?;
                (hour, minute) = (0, 0);
                continue;
            }
            if self.day_fits(date)
                && let Some(found) = self.on(date, hour, minute)
                && let Ok(found) = found.to_zoned(zone.clone())
                && found.timestamp() > after
            {
                return Some(found.timestamp());
            }
            date = date.tomorrow().ok()?;
            (hour, minute) = (0, 0);
        }
        None
    }
}

impl Schedule {
    /// The first time after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Schedule::Fields(fields) => fields.next(after, zone),
        }
    }

    /// The last time up to `now`, looked for from further and further back.
    pub fn last(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Schedule::Every(_) = self {
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
