//! Cron schedules: five fields, names, ranges, lists and steps, or a descriptor, with the words of the parser upstream uses (robfig/cron v3).
//! When they come is the controller's to say (`plan/src/cronjob/schedule.rs`).

use jiff::SignedDuration;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: &MONTHS },
    Bounds { min: 0, max: 6, names: &DAYS },
];

/// What a schedule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cron {
    /// Minutes, hours, days of the month, months, days of the week.
    Fields([Field; 5]),
    /// `@every 1h30m`; whole seconds.
    Every(SignedDuration),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Field {
    /// A bit a value.
    bits: u64,
    /// A star without steps is in it: it says nothing.
    pub any: bool,
}

impl Field {
    pub fn has(&self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| value < u64::BITS && self.bits >> value & 1 == 1)
    }
}

pub fn parse(schedule: &str) -> Result<Cron, String> {
    let text = match schedule {
        "" => return Err("empty spec string".to_owned()),
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') => return every(other),
        other => other,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", words.len(), words.join(" ")));
    }
    let mut fields = [Field::default(); FIELDS.len()];
    for ((field, word), bounds) in fields.iter_mut().zip(words).zip(&FIELDS) {
        for expression in word.split(',').filter(|expression| !expression.is_empty()) {
            let one = range(expression, bounds)?;
            *field = Field { bits: field.bits | one.bits, any: field.any | one.any };
        }
    }
    Ok(Cron::Fields(fields))
}

fn every(descriptor: &str) -> Result<Cron, String> {
    let Some(delay) = descriptor.strip_prefix("@every ") else { return Err(format!("unrecognized descriptor: {descriptor}")) };
    // Go's durations are this: `1h30m`, `-1.5s`. The shortest delay is a second.
    let plain = delay.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'));
    let parsed = delay.parse::<SignedDuration>().ok().filter(|_| plain);
    let delay = parsed.ok_or_else(|| format!("failed to parse duration {descriptor}: time: invalid duration {}", crate::validation::go_quote(delay)))?;
    Ok(Cron::Every(SignedDuration::from_secs(delay.as_secs().max(1))))
}

fn range(expression: &str, bounds: &Bounds) -> Result<Field, String> {
    let range_and_step: Vec<&str> = expression.split('/').collect();
    let low_and_high: Vec<&str> = range_and_step[0].split('-').collect();
    let (start, mut end);
    let mut any = matches!(low_and_high[0], "*" | "?");
    if any {
        (start, end) = (bounds.min, bounds.max);
    } else {
        start = int_or_name(low_and_high[0], bounds.names)?;
        end = match low_and_high.as_slice() {
            [_] => start,
            [_, high] => int_or_name(high, bounds.names)?,
            _ => return Err(format!("too many hyphens: {expression}")),
        };
    }
    let step = match range_and_step.as_slice() {
        [_] => 1,
        [_, step] => {
            // `N/step` is `N-max/step`.
            if low_and_high.len() == 1 {
                end = bounds.max;
            }
            let step = int(step)?;
            any &= step <= 1;
            step
        }
        _ => return Err(format!("too many slashes: {expression}")),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {expression}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {expression}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {expression}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    Ok(Field { bits: (start..=end).step_by(step as usize).fold(0, |bits, value| bits | 1 << value), any })
}

fn int_or_name(text: &str, names: &[&str]) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match names.iter().position(|name| *name == lower) {
        // Months count from one, days from zero.
        Some(at) => Ok(at as u32 + u32::from(names.len() == MONTHS.len())),
        None => int(text),
    }
}

fn int(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => u32::try_from(number).map_err(|_| format!("failed to parse int from {text}: value out of range")),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax", crate::validation::go_quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for fine in ["* * * * *", "*/5 0-6/2 1,15 jan-mar MON", "@hourly", "@every 1h30m", "0 0 ? * 6", "1,,2 * * * *"] {
            assert!(parse(fine).is_ok(), "{fine}");
        }
        for (bad, error) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ] {
            assert_eq!(parse(bad), Err(error.to_owned()));
        }
    }
    #[test]
    fn what_they_say() {
        let Ok(Cron::Fields([minutes, hours, days, months, weekdays])) = parse("5/20 9-17/4 */2 jan,mar */1") else { panic!("fields") };
        let of = |field: Field| (0..60).filter(|value| field.has(*value)).collect::<Vec<i8>>();
        assert_eq!((of(minutes), of(hours), of(months)), (vec![5, 25, 45], vec![9, 13, 17], vec![1, 3]));
        // Steps name days, a star does not.
        assert_eq!((days.any, weekdays.any, of(weekdays)), (false, true, vec![0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(parse("@every 1h30m"), Ok(Cron::Every(SignedDuration::from_mins(90))));
        assert_eq!(parse("@every 10ms"), Ok(Cron::Every(SignedDuration::from_secs(1))));
        assert!(!minutes.has(-1) && !minutes.has(64));
    }
}
