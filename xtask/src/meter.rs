//! Reads DockerCoins' counter and makes a rate of it.
//!
//! A worker adds to the counter about once a second, so that a window that begins or ends between two reports is off by a report.
//! Here windows begin and end with reports: the error left is how late a report is seen.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(2);
/// The rate "now" is over the last reports of about this many seconds.
const RECENT_SECONDS: f64 = 5.0;

/// The counter just after a report.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Report {
    time: f64,
    hashes: f64,
}

pub struct Meter {
    address: SocketAddr,
    /// Counter when last looked at; a report is a change of it.
    last: Option<f64>,
    first: Option<Report>,
    recent: VecDeque<Report>,
    coins: u64,
    trouble: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// From the first report to the last.
    pub mean: Option<f64>,
    pub now: Option<f64>,
    pub seconds: f64,
    pub coins: u64,
}

impl Reading {
    /// The mean, once the window is long enough.
    pub fn finished(&self, seconds: u64) -> Option<f64> {
        self.mean.filter(|_| self.seconds >= seconds as f64)
    }
}

impl Meter {
    pub fn new(address: SocketAddr) -> Meter {
        Meter { address, last: None, first: None, recent: VecDeque::new(), coins: 0, trouble: "its counter has not moved".to_owned() }
    }

    /// Why there is no rate.
    pub fn trouble(&self) -> &str {
        &self.trouble
    }

    pub fn look(&mut self) -> Reading {
        match get_json(self.address) {
            Ok(json) => self.take(&json),
            Err(error) => self.trouble = format!("the dashboard does not answer: {error:#}"),
        }
        self.reading()
    }

    fn take(&mut self, json: &Value) {
        let (Some(time), Some(coins)) = (json["now"].as_f64(), json["coins"].as_u64()) else { return };
        self.coins = coins;
        let Some(hashes) = json["hashes"].as_str().and_then(|text| text.parse::<f64>().ok()) else { return };
        self.trouble = "its counter does not move".to_owned();
        // What was counted before the first look came at a time nobody saw.
        if self.last.replace(hashes).is_none_or(|last| last == hashes) {
            return;
        }
        let report = Report { time, hashes };
        self.first.get_or_insert(report);
        self.recent.push_back(report);
        while self.recent.len() > 2 && time - self.recent[0].time > RECENT_SECONDS {
            self.recent.pop_front();
        }
    }

    fn reading(&self) -> Reading {
        let rate = |from: Report, to: Report| (to.time > from.time).then(|| (to.hashes - from.hashes) / (to.time - from.time));
        let last = self.recent.back().copied();
        Reading {
            mean: self.first.zip(last).and_then(|(first, last)| rate(first, last)),
            now: self.recent.front().copied().zip(last).and_then(|(first, last)| rate(first, last)),
            seconds: self.first.zip(last).map_or(0.0, |(first, last)| last.time - first.time),
            coins: self.coins,
        }
    }
}

fn get_json(address: SocketAddr) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /json HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200"), "{status}");
    serde_json::from_str(body).context("not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meter(looks: &[(f64, u64)]) -> Reading {
        let mut meter = Meter::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        looks.iter().for_each(|(now, hashes)| meter.take(&json!({"now": now, "hashes": hashes.to_string(), "coins": 3})));
        meter.reading()
    }

    #[test]
    fn windows_begin_and_end_with_reports() {
        // The first look falls between two reports, as does the last.
        let reading = meter(&[(0.5, 96), (1.2, 100), (2.4, 104), (3.0, 104), (3.6, 108), (4.0, 108)]);
        assert_eq!(reading.mean.map(|m| (m * 100.0).round()), Some(333.0));
        assert_eq!((reading.seconds * 10.0).round(), 24.0);
        assert_eq!(reading.finished(3), None);
        assert!(reading.finished(2).is_some());
        assert_eq!(reading.coins, 3);
    }

    #[test]
    fn no_rate_without_two_reports() {
        assert_eq!(meter(&[(0.0, 10)]).mean, None);
        assert_eq!(meter(&[(0.0, 10), (1.0, 14)]).mean, None);
        let mut silent = Meter::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        silent.take(&json!({"now": 1.0, "hashes": null, "coins": 0}));
        assert_eq!(silent.reading().mean, None);
    }

    #[test]
    fn now_forgets() {
        let looks: Vec<(f64, u64)> = (0..10)
            .map(|i| (f64::from(i), 4 * i as u64))
            .chain((10..20).map(|i| (f64::from(i), 36)))
            .chain([(20.0, 37), (21.0, 38), (22.0, 39)])
            .collect();
        let reading = meter(&looks);
        assert!(reading.now.is_some_and(|now| now < 1.1), "{reading:?}");
    }
}
