//! What a Corefile says of the rest of the world, as far as it is honoured: server blocks with their zones, and in them `forward`, `hosts`, `template`, `cache`, `log`, `errors` and `rewrite name`.
//! The cluster's own names, metrics and health are always there, whatever it says of them.
//!
//! Mirrors the syntax of <https://coredns.io/manual/configuration/>: blocks, comments, quotes, several zones a block. Not: snippets, `import`, environment variables.
//! What is read but not honoured is named, so that nobody has to guess; what CoreDNS does not know either is an error, and the Corefile is not used.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::cache::CacheRule;
use crate::plugins::{self, Standing};
use crate::rewrite::Rewrite;
use crate::template::{TEMPLATES_MAX, Template};

const DNS_PORT: u16 = 53;
const TLS_PORT: u16 = 853;
/// Of CoreDNS's `cache` without a time.
const CACHE_SUCCESS_SECONDS: u32 = 3600;
const CACHE_DENIAL_SECONDS: u32 = 1800;
/// A page or two of text; a ConfigMap may have a megabyte.
const BYTES_MAX: usize = 256 << 10;
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
    /// Over TLS; with the name of its certificate, if it is told with the address.
    Tls(SocketAddr, Option<String>),
    /// The node's own resolvers.
    ResolvConf,
}

/// How servers are spoken to over TLS: the options `tls` and `tls_servername` of `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    pub server_name: Option<String>,
    /// The system's authorities, if none.
    pub authority: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is done with the names of one zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZoneConfig {
    /// Without a dot at the end; of the root, empty.
    pub name: String,
    /// Nobody, if empty.
    pub forward: Vec<Target>,
    pub tls: TlsFiles,
    /// None: answers are not kept.
    pub cache: Option<CacheRule>,
    pub templates: Vec<Template>,
    /// Each question is told.
    pub log: bool,
    /// What failed is told.
    pub errors: bool,
    pub hosts: Vec<(String, IpAddr)>,
    pub hosts_ttl: Option<u32>,
    /// What `hosts` does not know is asked elsewhere.
    pub hosts_fall_through: bool,
    /// It is not asked for names of addresses.
    pub hosts_no_reverse: bool,
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
                "template" => {
                    let zones: Vec<String> = zones.iter().map(|zone| format!("{zone}.")).collect();
                    let lines: Vec<&[String]> = inner.iter().map(|line| line.words.as_slice()).collect();
                    let template = Template::parse(&line.words[1..], &lines, &zones).map_err(|(place, what)| CorefileError::At(place.and_then(|place| inner.get(place)).map_or(line.number, |line| line.number), what))?;
                    if block.templates.len() == TEMPLATES_MAX {
                        return Err(CorefileError::At(line.number, format!("a server block has at most {TEMPLATES_MAX} templates")));
                    }
                    block.templates.push(template);
                }
                "cache" => self.cache(line, inner, &mut block)?,
                "log" => {
                    block.log = true;
                    if line.words.len() > 1 || !inner.is_empty() {
                        self.ignored.push((line.number, "log's names, format and class: every question is told".into()));
                    }
                }
                "errors" => block.errors = true,
                "kubernetes" => {
                    let unlike = inner.iter().filter(|line| !plugins::is_of_kubernetes(&line.words)).filter_map(|line| Some((line.number, format!("kubernetes' {}", line.words.first()?))));
                    self.ignored.extend(unlike);
                }
                other => match plugins::standing(other) {
                    Standing::Honoured | Standing::BuiltIn => {}
                    Standing::WithoutEffect => self.ignored.push((line.number, other.to_owned())),
                    Standing::Unknown => return Err(CorefileError::At(line.number, format!("unknown directive '{other}'"))),
                },
            }
            at = end + 1;
        }
        // They are of the same block.
        for zone in &mut further {
            (zone.cache, zone.errors, zone.log) = (block.cache, block.errors, block.log);
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
        let mut tls = TlsFiles::default();
        for line in inner {
            let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
            match words[..] {
                ["tls_servername", name] => tls.server_name = Some(name.to_owned()),
                ["tls"] => {}
                ["tls", authority] => tls.authority = Some(authority.into()),
                ["tls", certificate, key] => tls.identity = Some((certificate.into(), key.into())),
                ["tls", certificate, key, authority] => (tls.identity, tls.authority) = (Some((certificate.into(), key.into())), Some(authority.into())),
                ["tls" | "tls_servername", ..] => return Err(CorefileError::At(line.number, format!("wrong argument count or unexpected line ending after '{}'", words[0]))),
                [option, ..] if !FORWARD_TUNING.contains(&option) => self.ignored.push((line.number, format!("forward's {option}"))),
                _ => {}
            }
        }
        let (from, _) = zone(from).ok_or_else(|| wrong(format!("{from:?} is no zone")))?;
        if from.is_empty() {
            (block.forward, block.tls) = (targets, tls);
        } else {
            further.push(ZoneConfig { name: from, forward: targets, tls, ..ZoneConfig::default() });
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

    /// `cache [TTL] [ZONES]`, and in its block `success|denial CAPACITY [TTL] [MINTTL]` and `disable success|denial`.
    fn cache(&mut self, line: &Line, inner: &[Line], block: &mut ZoneConfig) -> Result<(), CorefileError> {
        // CoreDNS's own, without a time.
        let (mut success, mut denial) = (CACHE_SUCCESS_SECONDS, CACHE_DENIAL_SECONDS);
        let mut words = &line.words[1..];
        if let Some((seconds, rest)) = words.split_first().and_then(|(word, rest)| Some((word.parse::<u32>().ok()?, rest))) {
            (success, denial, words) = (seconds, seconds, rest);
        }
        if !words.is_empty() {
            self.ignored.push((line.number, "cache's zones: it is the whole block's".into()));
        }
        let mut rule = CacheRule { success: (0, success), denial: (0, denial) };
        for line in inner {
            let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
            let number = |word: &str| word.parse::<u32>().map_err(|_| CorefileError::At(line.number, format!("cache TTL can not be zero or negative, and is a number: {word:?}")));
            match words[..] {
                [which @ ("success" | "denial"), _, ref times @ ..] => {
                    let times = times.iter().map(|word| number(word)).collect::<Result<Vec<_>, _>>()?;
                    let of = if which == "success" { &mut rule.success } else { &mut rule.denial };
                    *of = (times.get(1).copied().unwrap_or(of.0), times.first().copied().unwrap_or(of.1));
                }
                ["disable", "success", ..] => rule.success = (0, 0),
                ["disable", "denial", ..] => rule.denial = (0, 0),
                [option, ..] => self.ignored.push((line.number, format!("cache's {option}"))),
                [] => {}
            }
        }
        block.cache = Some(rule);
        Ok(())
    }

    fn hosts(&mut self, line: &Line, inner: &[Line], block: &mut ZoneConfig) -> Result<(), CorefileError> {
        if line.words.len() > 1 {
            self.ignored.push((line.number, "a file of hosts".into()));
        }
        for line in inner {
            let Some((first, names)) = line.words.split_first() else { continue };
            match first.as_str() {
                "fallthrough" => block.hosts_fall_through = true,
                "no_reverse" => block.hosts_no_reverse = true,
                "reload" => {}
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
    if let Some(rest) = text.strip_prefix("tls://") {
        // `tls://9.9.9.9%dns.quad9.net`
        let (address, name) = rest.split_once('%').map_or((rest, None), |(address, name)| (address, Some(name.to_owned())));
        return address.parse::<SocketAddr>().ok().or_else(|| address.parse::<IpAddr>().ok().map(|ip| (ip, TLS_PORT).into())).map(|address| Target::Tls(address, name));
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
                    let to = zone.forward.iter().map(|target| match target {
                        Target::Server(server) => server.to_string(),
                        Target::Tls(server, name) => format!("{server}/{}", name.as_ref().or(zone.tls.server_name.as_ref()).map_or("", String::as_str)),
                        Target::ResolvConf => "resolv.conf".into(),
                    });
                    let to: Vec<String> = to.collect();
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
    fn how_long_answers_are_kept() {
        let of = |text: &str| Corefile::parse(&format!(". {{\n{text}\n}}")).map(|corefile| (corefile.zones[0].cache.map(|rule| (rule.success, rule.denial)), corefile.ignored));
        for (text, expected) in [
            ("errors", None),
            ("cache", Some(((0, 3600), (0, 1800)))),
            ("cache 30", Some(((0, 30), (0, 30)))),
            ("cache 60 {\n success 100 20 10\n denial 100\n}", Some(((10, 20), (0, 60)))),
            ("cache 60 {\n disable denial\n}", Some(((0, 60), (0, 0)))),
        ] {
            assert_eq!(of(text), Ok((expected, vec![])), "{text}");
        }
        assert_eq!(of("cache 30 {\n serve_stale\n}").unwrap().1, [(3, "cache's serve_stale".to_owned())]);
        assert!(of("cache {\n success 1 x\n}").is_err());
    }

    #[test]
    fn what_is_honoured() {
        for (text, expected) in [
            (DEFAULT, "->resolv.conf"),
            ("", ""),
            (
                ".:53 {\n  forward . 1.1.1.1 8.8.8.8:5353 {\n    max_concurrent 1000\n    next NXDOMAIN\n    from x\n  }\n  rewrite type A AAAA\n}\nconsul.local:53 stub.example { # ours\n  errors\n  cache 30\n  forward . 10.150.0.1\n}\n",
                "->1.1.1.1:53+8.8.8.8:5353; consul.local->10.150.0.1:53; stub.example->10.150.0.1:53 !5 forward's from !7 rewrite type",
            ),
            (". {\n hosts {\n  10.0.0.1 a.example \"b.example\"\n  ttl 60\n  fallthrough\n }\n forward . /etc/resolv.conf\n forward corp.example 2001:db8::53\n}", "->resolv.conf a.example=10.0.0.1 b.example=10.0.0.1 ttl 60; corp.example->[2001:db8::53]:53"),
            (".:1053 {\n errors\n}", " !1 a server on port 1053"),
            (". {\n forward .\n}", "line 2: forward wants a zone and servers"),
            (". {\n forward . tls://9.9.9.9 tls://1.1.1.1:8853%one.one {\n  tls_servername dns.quad9.net\n }\n}", "->9.9.9.9:853/dns.quad9.net+1.1.1.1:8853/one.one"),
            (". {\n forward . tls://x\n}", "line 2: not an IP address or file: \"tls://x\""),
            (". {\n forward . 1.1.1.1 {\n  tls_servername\n }\n}", "line 3: wrong argument count or unexpected line ending after 'tls_servername'"),
            (". {\n errors\n fordward . 1.1.1.1\n}", "line 3: unknown directive 'fordward'"),
            (". {\n acl\n autopath @kubernetes\n health {\n  lameduck 5s\n }\n loop\n kubernetes cluster.local {\n  pods verified\n  ttl 30\n  fallthrough in-addr.arpa\n }\n}", "-> !2 acl !3 autopath !9 kubernetes' pods !10 kubernetes' ttl"),
            (". {\n template IN A {\n  rcode WHAT\n }\n}", "line 3: unknown rcode WHAT"),
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
