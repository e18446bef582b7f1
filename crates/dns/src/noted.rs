//! `log` and `errors` of a Corefile: questions and failures in CoreDNS's words, in this program's log. Never so many that the log is all there is: beyond a number each second they are
//! only counted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::forward::ForwardError;
use crate::metrics::Transport;
use crate::wire::{Question, kind};

/// A second's lines.
const LINES_MAX: u32 = 100;
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

#[derive(Default)]
pub struct Noting {
    /// Since when, how many lines.
    second: Mutex<Option<(Instant, u32)>>,
}

fn type_name(code: u16) -> String {
    match code {
        kind::A => "A".into(),
        kind::AAAA => "AAAA".into(),
        kind::SRV => "SRV".into(),
        kind::PTR => "PTR".into(),
        kind::CNAME => "CNAME".into(),
        kind::TXT => "TXT".into(),
        kind::NS => "NS".into(),
        kind::SOA => "SOA".into(),
        kind::ANY => "ANY".into(),
        other => format!("TYPE{other}"),
    }
}

fn name(question: &Question) -> String {
    question.name.text().unwrap_or_else(|| "?".to_owned())
}

/// `qr,aa,rd`
fn flags(answer: &[u8]) -> String {
    let (first, second) = (answer.get(2).copied().unwrap_or_default(), answer.get(3).copied().unwrap_or_default());
    let all = [("qr", first & 0x80), ("aa", first & 0x04), ("tc", first & 0x02), ("rd", first & 0x01), ("ra", second & 0x80)];
    all.iter().filter(|(_, bit)| *bit != 0).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// `10.0.0.1:5353 - 1234 "A IN example.org. udp 40 false 512" NOERROR qr,aa,rd 106 0.000123s`
fn line(client: Option<SocketAddr>, transport: Transport, question: &Question, asked: &[u8], answer: &[u8], took: Duration) -> String {
    let (transport, size) = match transport {
        Transport::Udp => ("udp", question.edns.map_or(512, |edns| edns.udp_bytes)),
        Transport::Tcp => ("tcp", 65_535),
    };
    let code = CODES.get(usize::from(answer.get(3).copied().unwrap_or_default() & 0x0f)).copied().unwrap_or("-");
    format!(
        "{} - {} \"{} IN {} {transport} {} {} {size}\" {code} {} {} {:.9}s",
        client.map_or_else(|| "-".to_owned(), |client| client.to_string()),
        question.id,
        type_name(question.kind),
        name(question),
        asked.len(),
        question.edns.is_some_and(|edns| edns.dnssec_ok),
        flags(answer),
        answer.len(),
        took.as_secs_f64()
    )
}

impl Noting {
    fn may(&self) -> bool {
        let mut second = self.second.lock();
        let now = Instant::now();
        match &mut *second {
            Some((since, lines)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *lines += 1;
                *lines <= LINES_MAX
            }
            former => {
                if let Some((_, lines)) = former.as_ref().filter(|(_, lines)| *lines > LINES_MAX) {
                    tracing::info!(target: "dns", left_out = lines - LINES_MAX, "more questions than are told");
                }
                *former = Some((now, 1));
                true
            }
        }
    }

    pub fn question(&self, client: Option<SocketAddr>, transport: Transport, question: &Question, asked: &[u8], answer: &[u8], took: Duration) {
        if self.may() {
            tracing::info!(target: "dns", "{}", line(client, transport, question, asked, answer, took));
        }
    }

    pub fn error(&self, question: &Question, error: &ForwardError) {
        if self.may() {
            tracing::error!(target: "dns", "plugin/errors: 2 {} {}: {error}", name(question), type_name(question.kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CLASS_IN, name_from_text, read_question};

    #[test]
    fn in_the_words_of_coredns() {
        let asked = [&[4, 210, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &name_from_text("example.org").unwrap(), &kind::A.to_be_bytes(), &CLASS_IN.to_be_bytes()].concat();
        let question = read_question(&asked).ok().unwrap();
        let mut answer = asked.clone();
        (answer[2], answer[3]) = (0x85, 0x83);
        let text = line(Some("10.0.0.1:5353".parse().unwrap()), Transport::Udp, &question, &asked, &answer, Duration::from_micros(123));
        assert_eq!(text, "10.0.0.1:5353 - 1234 \"A IN example.org. udp 29 false 512\" NXDOMAIN qr,aa,rd,ra 29 0.000123000s");
    }

    #[test]
    fn so_many_a_second() {
        let noting = Noting { second: Mutex::new(Some((Instant::now(), LINES_MAX - 1))) };
        assert!((noting.may(), noting.may()) == (true, false) || noting.second.lock().is_some_and(|(_, lines)| lines <= 2), "a second may have gone by");
    }
}
