//! Parts of timestamps (in UTC or a zone) and of durations.

use jiff::civil::Weekday;

use super::{Row, mismatch};
use crate::time::in_zone;
use crate::value::{Evaluated, Value};

pub const TABLE: &[Row] = &[
    ("getFullYear", "timestamp_to_year", "timestamp.() -> int", |args| part(args, |zoned| zoned.year().into())),
    ("getFullYear", "timestamp_to_year_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| zoned.year().into())),
    ("getMonth", "timestamp_to_month", "timestamp.() -> int", |args| part(args, |zoned| i64::from(zoned.month()) - 1)),
    ("getMonth", "timestamp_to_month_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| i64::from(zoned.month()) - 1)),
    ("getDayOfYear", "timestamp_to_day_of_year", "timestamp.() -> int", |args| part(args, |zoned| i64::from(zoned.day_of_year()) - 1)),
    ("getDayOfYear", "timestamp_to_day_of_year_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| i64::from(zoned.day_of_year()) - 1)),
    ("getDayOfMonth", "timestamp_to_day_of_month", "timestamp.() -> int", |args| part(args, |zoned| i64::from(zoned.day()) - 1)),
    ("getDayOfMonth", "timestamp_to_day_of_month_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| i64::from(zoned.day()) - 1)),
    ("getDate", "timestamp_to_day_of_month_1_based", "timestamp.() -> int", |args| part(args, |zoned| zoned.day().into())),
    ("getDate", "timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| zoned.day().into())),
    ("getDayOfWeek", "timestamp_to_day_of_week", "timestamp.() -> int", |args| part(args, |zoned| weekday(zoned.weekday()))),
    ("getDayOfWeek", "timestamp_to_day_of_week_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| weekday(zoned.weekday()))),
    ("getHours", "timestamp_to_hours", "timestamp.() -> int", |args| part(args, |zoned| zoned.hour().into())),
    ("getHours", "timestamp_to_hours_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| zoned.hour().into())),
    ("getHours", "duration_to_hours", "duration.() -> int", |args| whole(args, 3_600_000_000_000)),
    ("getMinutes", "timestamp_to_minutes", "timestamp.() -> int", |args| part(args, |zoned| zoned.minute().into())),
    ("getMinutes", "timestamp_to_minutes_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| zoned.minute().into())),
    ("getMinutes", "duration_to_minutes", "duration.() -> int", |args| whole(args, 60_000_000_000)),
    ("getSeconds", "timestamp_to_seconds", "timestamp.() -> int", |args| part(args, |zoned| zoned.second().into())),
    ("getSeconds", "timestamp_to_seconds_tz", "timestamp.(string) -> int", |args| part(args, |zoned| zoned.second().into())),
    ("getSeconds", "duration_to_seconds", "duration.() -> int", |args| whole(args, 1_000_000_000)),
    ("getMilliseconds", "timestamp_to_milliseconds", "timestamp.() -> int", |args| part(args, |zoned| zoned.millisecond().into())),
    ("getMilliseconds", "timestamp_to_milliseconds_with_tz", "timestamp.(string) -> int", |args| part(args, |zoned| zoned.millisecond().into())),
    ("getMilliseconds", "duration_to_milliseconds", "duration.() -> int", |args| whole(args, 1_000_000)),
];

fn part<'a>(args: &[Value<'a>], read: fn(&jiff::Zoned) -> i64) -> Evaluated<'a> {
    let Value::Timestamp(timestamp) = &args[0] else { return mismatch() };
    let zone = args.get(1).and_then(Value::as_str).unwrap_or("UTC");
    Ok(Value::Int(read(&in_zone(*timestamp, zone)?)))
}

/// Sunday is 0.
fn weekday(day: Weekday) -> i64 {
    day.to_sunday_zero_offset().into()
}

fn whole<'a>(args: &[Value<'a>], unit: i64) -> Evaluated<'a> {
    let Value::Duration(nanoseconds) = &args[0] else { return mismatch() };
    Ok(Value::Int(nanoseconds / unit))
}
