//! Ages: `duration.HumanDuration` of k8s.io/apimachinery/pkg/util/duration.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::json::text;

const UNKNOWN: &str = "<unknown>";

/// Two or three significant figures: `45s`, `3m20s`, `7h5m`, `2d4h`, `1y20d`.
pub fn human_duration(seconds: i64) -> String {
    // Two seconds of clock skew are forgiven.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let pair = |big: i64, unit: &str, small: i64, rest: &str| if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{rest}") };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match () {
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

/// The time since an RFC 3339 timestamp; `<unknown>` for none.
pub fn since(timestamp: &str, now: Timestamp) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(at) => human_duration(now.duration_since(at).as_secs()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// The time since `metadata.creationTimestamp`.
pub fn age(object: &Value, now: Timestamp) -> String {
    since(text(object, "metadata.creationTimestamp"), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        const M: i64 = 60;
        const H: i64 = 3600;
        const D: i64 = 24 * H;
        for (seconds, text) in [
            (-2, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (10 * M + 5, "10m"), (179 * M, "179m"), (3 * H, "3h"), (3 * H + 5 * M, "3h5m"),
            (8 * H + 5 * M, "8h"), (47 * H, "47h"), (2 * D, "2d"), (2 * D + 3 * H, "2d3h"), (8 * D + 3 * H, "8d"), (729 * D, "729d"), (730 * D, "2y"), (740 * D, "2y10d"), (8 * 365 * D + 5 * D, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
