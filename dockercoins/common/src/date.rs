//! Dates for access logs, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// `03/Jul/2024` and `02:40:00`.
pub fn date_and_time(epoch_seconds: u64) -> (String, String) {
    let (days, seconds) = (epoch_seconds / 86_400, epoch_seconds % 86_400);
    let (year, month, day) = civil(days);
    let date = format!("{day:02}/{}/{year}", MONTHS[month]);
    (date, format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

/// Year, month (from 0) and day of a day count since 1970-01-01: whole years, then whole months.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (epoch, date, time) in [
            (0, "01/Jan/1970", "00:00:00"),
            (951_782_400, "29/Feb/2000", "00:00:00"),
            (1_719_974_400, "03/Jul/2024", "02:40:00"),
            (1_735_689_599, "31/Dec/2024", "23:59:59"),
        ] {
            assert_eq!(date_and_time(epoch), (date.to_owned(), time.to_owned()));
        }
    }
}
