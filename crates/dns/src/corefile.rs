//! What a Corefile says of the rest of the world, as far as it is honoured: server blocks with their zones, and in them `forward`, `hosts` and `rewrite name`. The cluster's own
//! names, the cache, metrics and health are always there, whatever it says of them.
//!
//! Mirrors the syntax of <https://coredns.io/manual/configuration/>: blocks, comments, quotes, several zones a block. Not: snippets, `import`, environment variables.
//! What is read but not honoured is named, so that nobody has to guess.

use std::net::{IpAddr, SocketAddr};

use crate::rewrite::Rewrite;

const DNS_PORT: u16 = 53;
/// A page or two of text; a ConfigMap may have a megabyte.
const BYTES_MAX: usize = 256 << 10;
/// Nothing to do for: true here without saying, or of no meaning in this server.
const BUILT_IN: [&str; 15] = ["errors", "log", "health", "ready", "kubernetes", "prometheus", "cache", "loop", "reload", "loadbalance", "lameduck", "bufsize", "debug", "metadata", "acl"];
/// Options of `forward` that change nothing of what is answered.
const FORWARD_TUNING: [&str; 8] = ["max_concurrent", "policy", "prefer_udp", "max_fails", "expire", "health_check", "failover", "next"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CorefileError {
    #[error("line {0}: {1}")]
    At(usize, String),
    #[error("it is larger than {BYTES_MAX} bytes")]
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Server(SocketAddr),
    /// The node's own resolvers.
    ResolvConf,
}

/// What is done with the names of one zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZoneConfig {
    /// Without a dot at the end; of the root, empty.
    pub name: String,
    /// Nobody, if empty.
    pub forward: Vec<Target>,
    pub hosts: Vec<(String, IpAddr)>,
    pub hosts_ttl: Option<u32>,
    /// In their order.
    pub rewrites: Vec<Rewrite>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corefile {
    pub zones: Vec<ZoneConfig>,
    /// What has no effect, with its line.
    pub ignored: Vec<(usize, String)>,
}

/// A line's words; `opens` when it ends in a brace.
struct Line {
    number: usize,
    words: Vec<String>,
    opens: bool,
    closes: bool,
}

fn lines(text: &str) -> Result<Vec<Line>, CorefileError> {
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let mut line = Line { number: index + 1, words: Vec::new(), opens: false, closes: false };
        let mut rest = text.trim();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or_else(|| CorefileError::At(line.number, "a quote does not end".into()))?,
                None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
            };
            line.words.push(word.to_owned());
            rest = after.trim_start();
        }
        if line.words.last().is_some_and(|word| word == "{") {
            line.words.pop();
            line.opens = true;
        }
        if line.words == ["}"] {
            line.words.clear();
            line.closes = true;
        }
        if let Some(odd) = line.words.iter().find(|word| matches!(word.as_str(), "{" | "}")) {
            return Err(CorefileError::At(line.number, format!("{odd:?} must be at the end of a line, or alone")));
        }
        if line.opens || line.closes || !line.words.is_empty() {
            lines.push(line);
        }
    }
    Ok(lines)
}

impl Corefile {
    pub fn parse(text: &str) -> Result<Self, CorefileError> {
        if text.len() > BYTES_MAX {
            return Err(CorefileError::TooLarge);
        }
        let lines = lines(text)?;
        let mut corefile = Self::default();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            if line.words.is_empty() || !line.opens {
                return Err(CorefileError::At(line.number, "want the zones of a server block, and {".into()));
            }
            if line.words.iter().any(|word| word == "import" || word.starts_with('(')) {
                return Err(CorefileError::At(line.number, "snippets and imports are not supported".into()));
            }
            at = corefile.block(&lines, at)?;
        }
        Ok(corefile)
    }

    /// One server block; returns where the next begins.
    fn block(&mut self, lines: &[Line], begin: usize) -> Result<usize, CorefileError> {
        let head = &lines[begin];
        let mut zones = Vec::new();
        for word in &head.words {
            match zone(word).ok_or_else(|| CorefileError::At(head.number, format!("{word:?} is no zone")))? {
                (name, DNS_PORT) => zones.push(name),
                (_, port) => self.ignored.push((head.number, format!("a server on port {port}"))),
            }
        }
        let mut block = ZoneConfig::default();
        let mut further: Vec<ZoneConfig> = Vec::new();
        let mut at = begin + 1;
        loop {
            let line = lines.get(at).ok_or_else(|| CorefileError::At(head.number, "the block does not end".into()))?;
            if line.closes {
                break;
            }
            let Some(name) = line.words.first() else { return Err(CorefileError::At(line.number, "want a plugin's name".into())) };
            let end = if line.opens { closing(lines, at)? } else { at };
            let inner = &lines[(at + 1).min(end)..end];
            match name.as_str() {
                "forward" => self.forward(line, inner, &mut block, &mut further)?,
                "hosts" => self.hosts(line, inner, &mut block)?,
                "rewrite" => self.rewrite(line, inner, &mut block)?,
                name if BUILT_IN.contains(&name) => {}
                other => self.ignored.push((line.number, other.to_owned())),
            }
            at = end + 1;
        }
        self.zones.extend(zones.into_iter().map(|name| ZoneConfig { name, ..block.clone() }));
        self.zones.append(&mut further);
        Ok(at + 1)
    }

    fn forward(&mut self, line: &Line, inner: &[Line], block: &mut ZoneConfig, further: &mut Vec<ZoneConfig>) -> Result<(), CorefileError> {
        let wrong = |what: String| CorefileError::At(line.number, what);
        let (Some(from), Some(targets)) = (line.words.get(1), line.words.get(2..).filter(|targets| !targets.is_empty())) else {
            return Err(wrong("forward wants a zone and servers".into()));
        };
        let targets = targets.iter().map(|word| target(word).ok_or_else(|| wrong(format!("not an IP address or file: {word:?}")))).collect::<Result<Vec<_>, _>>()?;
        for option in inner.iter().filter_map(|line| Some((line.number, line.words.first()?))) {
            if !FORWARD_TUNING.contains(&option.1.as_str()) {
                self.ignored.push((option.0, format!("forward's {}", option.1)));
            }
        }
        let (from, _) = zone(from).ok_or_else(|| wrong(format!("{from:?} is no zone")))?;
        if from.is_empty() {
            block.forward = targets;
        } else {
            further.push(ZoneConfig { name: from, forward: targets, ..ZoneConfig::default() });
        }
        Ok(())
    }

    /// `rewrite [continue|stop] name …`, or the same in a block of its own.
    fn rewrite(&mut self, line: &Line, inner: &[Line], block: &mut ZoneConfig) -> Result<(), CorefileError> {
        let mut words = &line.words[1..];
        let goes_on = words.first().is_some_and(|word| word == "continue");
        if let Some((_, rest)) = words.split_first().filter(|(first, _)| matches!(first.as_str(), "continue" | "stop")) {
            words = rest;
        }
        let in_lines: Vec<(usize, &[String])> = if words.is_empty() { inner.iter().map(|line| (line.number, line.words.as_slice())).collect() } else { vec![(line.number, words)] };
        for (number, words) in in_lines {
            match words.split_first() {
                Some((kind, rest)) if kind == "name" => block.rewrites.push(Rewrite::parse(rest, goes_on).map_err(|what| CorefileError::At(number, what))?),
                // Answers bear the name that was asked, as `answer auto` wants it.
                Some((kind, rest)) if kind == "answer" && rest.first().is_none_or(|word| word != "value") => {}
                Some((kind, _)) => self.ignored.push((number, format!("rewrite {kind}"))),
                None => {}
            }
        }
        Ok(())
    }

    fn hosts(&mut self, line: &Line, inner: &[Line], block: &mut ZoneConfig) -> Result<(), CorefileError> {
        if line.words.len() > 1 {
            self.ignored.push((line.number, "a file of hosts".into()));
        }
        for line in inner {
            let Some((first, names)) = line.words.split_first() else { continue };
            match first.as_str() {
                "fallthrough" | "no_reverse" | "reload" => {}
                "ttl" => block.hosts_ttl = names.first().and_then(|text| text.parse().ok()),
                text => {
                    let address: IpAddr = text.parse().map_err(|_| CorefileError::At(line.number, format!("{text:?} is no address")))?;
                    block.hosts.extend(names.iter().map(|name| (name.clone(), address)));
                }
            }
        }
        Ok(())
    }
}

/// Where the block that `at` opens ends.
fn closing(lines: &[Line], at: usize) -> Result<usize, CorefileError> {
    let mut depth = 0;
    for (index, line) in lines.iter().enumerate().skip(at) {
        depth += usize::from(line.opens);
        if line.closes {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(index);
        }
    }
    Err(CorefileError::At(lines[at].number, "the block does not end".into()))
}

/// `consul.local`, `.:53`, `dns://example.org:53`, `10.0.0.0/8` is not: name and port.
fn zone(text: &str) -> Option<(String, u16)> {
    let text = text.strip_prefix("dns://").unwrap_or(text);
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (text, DNS_PORT),
    };
    if name.contains("://") || name.contains('/') {
        return None;
    }
    let name = name.trim_matches('.').to_ascii_lowercase();
    crate::wire::name_from_text(&name)?;
    Some((name, port))
}

fn target(text: &str) -> Option<Target> {
    if text.starts_with('/') {
        return Some(Target::ResolvConf);
    }
    let text = text.strip_prefix("dns://").unwrap_or(text);
    text.parse::<SocketAddr>().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| (ip, DNS_PORT).into())).map(Target::Server)
}

/// As kubeadm's, but for the TTL, which is CoreDNS's own (5 s).
pub const DEFAULT: &str = "\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Corefile::parse(text) {
            Err(error) => error.to_string(),
            Ok(corefile) => {
                let zone = |zone: &ZoneConfig| {
                    let to: Vec<String> = zone.forward.iter().map(|target| if let Target::Server(server) = target { server.to_string() } else { "resolv.conf".into() }).collect();
                    let hosts: Vec<String> = zone.hosts.iter().map(|(name, address)| format!(" {name}={address}")).collect();
                    format!("{}->{}{}{}", zone.name, to.join("+"), hosts.concat(), zone.hosts_ttl.map(|ttl| format!(" ttl {ttl}")).unwrap_or_default())
                };
                let zones: Vec<String> = corefile.zones.iter().map(zone).collect();
                let ignored: Vec<String> = corefile.ignored.iter().map(|(line, what)| format!(" !{line} {what}")).collect();
                zones.join("; ") + &ignored.concat()
            }
        }
    }

    #[test]
    fn rewrites() {
        let text = ". {\n rewrite name a.x b.x\n rewrite continue {\n  name regex (.*)\\.y {1}.z\n  answer name (.*)\\.z {1}.y\n  answer value a b\n }\n rewrite stop ttl exact a 5\n}";
        let corefile = Corefile::parse(text).unwrap();
        assert_eq!((corefile.zones[0].rewrites.len(), corefile.ignored), (2, vec![(6, "rewrite answer".to_owned()), (8, "rewrite ttl".to_owned())]));
        assert!(Corefile::parse(". {\n rewrite name regex ( x\n}").unwrap_err().to_string().starts_with("line 2: \"(\" is no regular expression"));
    }

    #[test]
    fn what_is_honoured() {
        for (text, expected) in [
            (DEFAULT, "->resolv.conf"),
            ("", ""),
            (
                ".:53 {\n  forward . 1.1.1.1 8.8.8.8:5353 {\n    max_concurrent 1000\n    tls_servername x\n  }\n  rewrite type A AAAA\n}\nconsul.local:53 stub.example { # ours\n  errors\n  cache 30\n  forward . 10.150.0.1\n}\n",
                "->1.1.1.1:53+8.8.8.8:5353; consul.local->10.150.0.1:53; stub.example->10.150.0.1:53 !4 forward's tls_servername !6 rewrite type",
            ),
            (". {\n hosts {\n  10.0.0.1 a.example \"b.example\"\n  ttl 60\n  fallthrough\n }\n forward . /etc/resolv.conf\n forward corp.example 2001:db8::53\n}", "->resolv.conf a.example=10.0.0.1 b.example=10.0.0.1 ttl 60; corp.example->[2001:db8::53]:53"),
            (".:1053 {\n errors\n}", " !1 a server on port 1053"),
            (". {\n forward .\n}", "line 2: forward wants a zone and servers"),
            (". {\n forward . tls://1.1.1.1\n}", "line 2: not an IP address or file: \"tls://1.1.1.1\""),
            (". {\n errors\n", "line 1: the block does not end"),
            (". {\n hosts {\n  x y\n }\n}", "line 3: \"x\" is no address"),
            ("errors", "line 1: want the zones of a server block, and {"),
            ("}", "line 1: want the zones of a server block, and {"),
            ("(snippet) {\n}", "line 1: snippets and imports are not supported"),
            (". { errors }", "line 1: \"{\" must be at the end of a line, or alone"),
            (". {\n forward \"x\n}", "line 2: a quote does not end"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
