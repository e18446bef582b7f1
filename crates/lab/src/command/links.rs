//! Cables pulled and put back; links slow and lossy.

use clap::Args;
use network::segment;

use crate::error::{LabError, Result};
use crate::start::Lab;

/// Longer than anyone waits, and frames under way need room.
const DELAY_MS_MAX: u64 = 60_000;

#[derive(Args)]
pub struct Slow {
    /// node1, node2, …
    node: String,
    /// How late each packet is: 50ms, 1.5s
    #[arg(long, value_name = "TIME", value_parser = milliseconds, default_value = "0ms")]
    delay: u64,
    /// How many packets never arrive: 30%
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "0%")]
    loss: f64,
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("want a time of at most {} s, as 50ms or 1.5s", DELAY_MS_MAX / 1000);
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let value = number * factor;
    if (0.0..=DELAY_MS_MAX as f64).contains(&value) { Ok(value.round() as u64) } else { Err(wrong()) }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|number| (0.0..=100.0).contains(number)).ok_or_else(|| "want a part of a hundred, as 30%".into())
}

pub fn cut(lab: &Lab, name: &str) -> Result<()> {
    lab.must_run(name)?;
    segment::set_plugged(&lab.wires()?, name, false)?;
    println!("{name} is cut off; `coracle lab heal` puts its cable back");
    Ok(())
}

pub fn slow(lab: &Lab, options: &Slow) -> Result<()> {
    let node = lab.record.node(&options.node)?;
    lab.must_run(&options.node)?;
    if options.delay == 0 && options.loss == 0.0 {
        return Err(LabError::Invalid("how slow? Give --delay, --loss or both\nhint: `coracle lab heal` makes all links quick again".into()));
    }
    lab.slow(node, options.delay, options.loss)?;
    println!(
        "{}: packets are {} ms late each way and {} % of them are lost; `coracle lab heal` mends that",
        options.node, options.delay, options.loss
    );
    Ok(())
}

pub fn heal(lab: &Lab) -> Result<()> {
    let wires = lab.wires()?;
    let mut healed = Vec::new();
    for node in &lab.record.nodes {
        let mut was = lab.unslow(node)?;
        if segment::is_plugged(&wires, &node.name)? == Some(false) {
            segment::set_plugged(&wires, &node.name, true)?;
            was = true;
        }
        if was {
            healed.push(node.name.as_str());
        }
    }
    match healed.as_slice() {
        [] => println!("all links are well"),
        names => println!("healed {}", names.join(", ")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_parts() {
        for (text, expected) in [
            ("50ms", Some(50)),
            ("1.5s", Some(1500)),
            ("0ms", Some(0)),
            ("60s", Some(60_000)),
            ("61s", None),
            ("-1ms", None),
            ("50", None),
            ("ms", None),
            ("NaNs", None),
        ] {
            assert_eq!(milliseconds(text).ok(), expected, "{text}");
        }
        for (text, expected) in
            [("30%", Some(30.0)), ("0.5", Some(0.5)), ("100%", Some(100.0)), ("101%", None), ("-1%", None), ("NaN%", None), ("", None)]
        {
            assert_eq!(percent(text).ok(), expected, "{text}");
        }
    }
}
