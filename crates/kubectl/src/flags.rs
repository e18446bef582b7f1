//! Flags as upstream parses them (spf13/pflag): `-o wide`, `-owide`, `--output=wide`, `-it`, `--watch=false`, flags before, between and after arguments, `--` ends them.
//!
//! Our own, because its errors are part of what people and scripts see, and clap's grammar differs (`--dry-run` with and without a value, booleans with one).

use std::collections::HashMap;

use crate::classic::Dialect;
use crate::command::Command;
use crate::error::{Error, Result, fail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    /// May stand without a value; then it has this one.
    Optional(&'static str),
    /// May be repeated.
    List,
}

#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub default: &'static str,
    pub help: &'static str,
    /// Known, but not told of: deprecated.
    pub hidden: bool,
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind, default, help, hidden: false }
}
pub const fn switch(name: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::Bool, "false", help)
}
/// A boolean that is on unless said otherwise.
pub const fn on(name: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::Bool, "true", help)
}
pub const fn text(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::Text, default, help)
}
pub const fn list(name: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::List, "", help)
}
pub const fn optional(name: &'static str, without: &'static str, default: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::Optional(without), default, help)
}
impl Flag {
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

pub const GLOBAL: &[Flag] = &[
    text("as", "", "Username to impersonate for the operation."),
    list("as-group", "Group to impersonate for the operation, this flag can be repeated to specify multiple groups."),
    text("as-uid", "", "UID to impersonate for the operation."),
    list("as-user-extra", "User extras to impersonate for the operation, this flag can be repeated to specify multiple values for the same key."),
    text("cache-dir", "", "Default cache directory"),
    text("certificate-authority", "", "Path to a cert file for the certificate authority"),
    text("client-certificate", "", "Path to a client certificate file for TLS"),
    text("client-key", "", "Path to a client key file for TLS"),
    text("cluster", "", "The name of the kubeconfig cluster to use"),
    text("context", "", "The name of the kubeconfig context to use"),
    switch("disable-compression", "If true, opt-out of response compression for all requests to the server"),
    switch("insecure-skip-tls-verify", "If true, the server's certificate will not be checked for validity."),
    text("kubeconfig", "", "Path to the kubeconfig file to use for CLI requests."),
    text("kuberc", "", "Path to the kuberc file to use for preferences."),
    text("log-flush-frequency", "5s", "Maximum number of seconds between log flushes"),
    switch("match-server-version", "Require server version to match client version"),
    text("namespace", "", "If present, the namespace scope for this CLI request").short('n'),
    text("password", "", "Password for basic authentication to the API server"),
    text("profile", "none", "Name of profile to capture."),
    text("profile-output", "profile.pprof", "Name of the file to write the profile to"),
    text("request-timeout", "0", "The length of time to wait before giving up on a single server request."),
    text("server", "", "The address and port of the Kubernetes API server").short('s'),
    text("tls-server-name", "", "Server name to use for server certificate validation."),
    text("token", "", "Bearer token for authentication to the API server"),
    text("user", "", "The name of the kubeconfig user to use"),
    text("username", "", "Username for basic authentication to the API server"),
    text("v", "0", "number for the log level verbosity").short('v'),
    text("vmodule", "", "comma-separated list of pattern=N settings for file-filtered logging"),
    switch("warnings-as-errors", "Treat warnings received from the server as errors and exit with a non-zero exit code"),
];

/// A parsed command line.
pub struct Args {
    pub command: &'static Command,
    /// `kubectl create deployment`
    pub path: String,
    pub positional: Vec<String>,
    /// How many positional arguments stood before `--`.
    pub dash: Option<usize>,
    pub help: bool,
    pub dialect: Dialect,
    values: HashMap<&'static str, Vec<String>>,
}

impl Args {
    /// May the command be given it? Commands share groups of flags, and upstream's are less alike.
    fn takes(&self, flag: &Flag) -> bool {
        crate::command::takes(&self.path, flag.name)
    }

    fn find(&self, what: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
        self.command.flags.iter().flat_map(|flags| flags.iter()).chain(self.dialect.flags(&self.path)).chain(GLOBAL).find(|flag| what(flag))
    }

    pub fn parse(root: &'static Command, arguments: Vec<String>) -> Result<Self> {
        Self::parse_in(root, arguments, Dialect::chosen()?)
    }

    pub fn parse_in(root: &'static Command, arguments: Vec<String>, dialect: Dialect) -> Result<Self> {
        let mut args = Args { command: root, path: root.name.to_owned(), positional: Vec::new(), dash: None, help: false, dialect, values: HashMap::new() };
        let mut rest = arguments.into_iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                args.dash = Some(args.positional.len());
                args.positional.extend(rest);
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                args.long(long, &mut rest)?;
            } else if word.len() > 1 && word.starts_with('-') {
                args.shorts(&word[1..], &mut rest)?;
            } else if args.positional.is_empty() && !args.command.subcommands.is_empty() {
                match args.command.subcommands.iter().find(|command| command.name == word || command.aliases.contains(&word.as_str())) {
                    Some(command) => {
                        args.command = command;
                        args.path = format!("{} {}", args.path, command.name);
                    }
                    None if args.command.run.is_none() => return Err(unknown_command(&args, &word)),
                    None => args.positional.push(word),
                }
            } else {
                args.positional.push(word);
            }
        }
        Ok(args)
    }

    fn usage(&self, message: String) -> Error {
        Error::Usage { message, command: self.path.clone() }
    }

    fn long(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        if name == "help" {
            self.help = true;
            return Ok(());
        }
        let Some(flag) = self.find(|flag| flag.name == name && self.takes(flag)) else {
            let error = self.usage(format!("unknown flag: --{name}"));
            return Err(match hint_for_flag(&self.path, name) {
                Some(hint) => error.hint(hint),
                None => error,
            });
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, Kind::Optional(without)) => without.to_owned(),
            (None, _) => rest.next().ok_or_else(|| self.usage(format!("flag needs an argument: --{name}")))?,
        };
        self.put(flag, value, &format!("--{name}"))
    }

    fn shorts(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        for (at, short) in word.char_indices() {
            if short == 'h' && self.find(|flag| flag.short == Some('h')).is_none() {
                self.help = true;
                continue;
            }
            let Some(flag) = self.find(|flag| flag.short == Some(short) && self.takes(flag)) else {
                return Err(self.usage(format!("unknown shorthand flag: {short:?} in -{word}")));
            };
            let after = &word[at + short.len_utf8()..];
            let shown = format!("-{short}, --{}", flag.name);
            if let Some(value) = after.strip_prefix('=') {
                return self.put(flag, value.to_owned(), &shown);
            }
            match flag.kind {
                Kind::Bool => self.put(flag, "true".to_owned(), &shown)?,
                Kind::Optional(without) => self.put(flag, without.to_owned(), &shown)?,
                Kind::Text | Kind::List if !after.is_empty() => return self.put(flag, after.to_owned(), &shown),
                Kind::Text | Kind::List => {
                    let value = rest.next().ok_or_else(|| self.usage(format!("flag needs an argument: {short:?} in -{word}")))?;
                    return self.put(flag, value, &shown);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, flag: &'static Flag, value: String, shown: &str) -> Result<()> {
        if flag.kind == Kind::Bool && truth(&value).is_none() {
            return Err(self.usage(format!("invalid argument {value:?} for {shown:?} flag: strconv.ParseBool: parsing {value:?}: invalid syntax")));
        }
        let values = self.values.entry(flag.name).or_default();
        if flag.kind != Kind::List {
            values.clear();
        }
        values.push(value);
        Ok(())
    }

    /// Has the command a flag of this name itself, so that it does not mean the global one?
    pub fn own(&self, name: &str) -> bool {
        self.command.flags.iter().flat_map(|flags| flags.iter()).any(|flag| flag.name == name)
    }

    pub fn changed(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The flag's value, or its default.
    pub fn text(&self, name: &str) -> &str {
        match self.values.get(name).and_then(|values| values.last()) {
            Some(value) => value,
            None => self.find(|flag| flag.name == name).map_or("", |flag| flag.default),
        }
    }

    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    pub fn on(&self, name: &str) -> bool {
        truth(self.text(name)).unwrap_or(false)
    }

    /// Each time the flag was given (pflag's StringArray).
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The same with commas separating values too (StringSlice).
    pub fn slice(&self, name: &str) -> Vec<String> {
        self.list(name).iter().flat_map(|value| value.split(',')).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    pub fn int(&self, name: &str) -> Result<i64> {
        let value = self.text(name);
        value.parse().map_err(|_| self.usage(format!("invalid argument {value:?} for \"--{name}\" flag: strconv.ParseInt: parsing {value:?}: invalid syntax")))
    }

    /// A Go duration in seconds: `90s`, `1m30s`, `0`.
    pub fn duration(&self, name: &str) -> Result<f64> {
        let value = self.text(name);
        seconds(value).ok_or_else(|| self.usage(format!("invalid argument {value:?} for \"--{name}\" flag: time: invalid duration {value:?}")))
    }

    pub fn wrong(&self, message: impl Into<String>) -> Error {
        self.usage(message.into())
    }

    /// What stood before `--`, and what after it.
    pub fn split(&self) -> (&[String], &[String]) {
        self.positional.split_at(self.dash.unwrap_or(self.positional.len()))
    }

    pub fn none(&self) -> Result<()> {
        if self.positional.is_empty() { Ok(()) } else { fail(format!("unexpected arguments: {:?}", self.positional)) }
    }

    /// The single NAME of a `create` command.
    pub fn name(&self) -> Result<&str> {
        let before = self.split().0;
        match before {
            [name] => Ok(name),
            other => Err(self.usage(format!("exactly one NAME is required, got {}", other.len()))),
        }
    }
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A Go duration.
pub fn seconds(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(if negative { -total } else { total })
}

fn unknown_command(args: &Args, word: &str) -> Error {
    let near: Vec<&str> = args.command.subcommands.iter().map(|command| command.name).filter(|name| distance(name, word) <= 2 || name.starts_with(word)).collect();
    // Cobra speaks at the root; below it, upstream's families do.
    if args.path.contains(' ') {
        return Error::Message(format!("unknown command {word:?}\nSee '{} -h' for help and examples", args.path));
    }
    let mut message = format!("unknown command {word:?} for {:?}", args.path);
    if !near.is_empty() {
        message.push_str("\n\nDid you mean this?\n");
        near.iter().for_each(|name| message.push_str(&format!("\t{name}\n")));
    }
    Error::Message(message)
}

/// Levenshtein's, as cobra uses for its suggestions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// Flags that old lessons still use.
fn hint_for_flag(path: &str, name: &str) -> Option<&'static str> {
    Some(match (path, name) {
        (_, "export") => "--export was removed in kubectl 1.18; for a manifest to start from, try: kubectl create deployment NAME --image=IMAGE --dry-run=client -o yaml",
        ("kubectl run", "replicas") => "run makes a single Pod since 1.18; try: kubectl create deployment NAME --image=IMAGE --replicas=N",
        ("kubectl run", "generator") => "--generator was removed; run makes a Pod; for more, try: kubectl create deployment, kubectl create job, kubectl create cronjob",
        ("kubectl run", "schedule") => "run makes a Pod; try: kubectl create cronjob NAME --image=IMAGE --schedule='*/5 * * * *'",
        ("kubectl version", "short") => "--short was removed in kubectl 1.28: short is what version prints",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ROOT;

    fn parse(line: &str) -> Result<Args> {
        Args::parse_in(&ROOT, line.split(' ').map(str::to_owned).collect(), Dialect::Modern)
    }

    #[test]
    fn flags_stand_anywhere() {
        let args = parse("-n kube-system get pods -owide --watch=false -l app=x web").unwrap();
        assert_eq!((args.path.as_str(), &args.positional[..]), ("kubectl get", &["pods".to_owned(), "web".to_owned()][..]));
        assert_eq!((args.text("namespace"), args.text("output"), args.on("watch"), args.text("selector")), ("kube-system", "wide", false, "app=x"));
        let args = parse("exec -it web -- ls -l").unwrap();
        assert_eq!((args.on("stdin"), args.on("tty"), args.dash, args.split().1.join(" ").as_str()), (true, true, Some(1), "ls -l"));
        assert_eq!(parse("create deployment x --image=a --dry-run -o yaml").unwrap().text("dry-run"), "unchanged");
    }

    #[test]
    fn mistakes_are_told_as_upstream_tells_them() {
        for (line, want) in [
            ("get pods --export", "unknown flag: --export\nSee 'kubectl get --help' for usage."),
            ("get -Z", "unknown shorthand flag: 'Z' in -Z\nSee 'kubectl get --help' for usage."),
            ("get -o", "flag needs an argument: 'o' in -o\nSee 'kubectl get --help' for usage."),
            ("get --watch=x", "invalid argument \"x\" for \"--watch\" flag: strconv.ParseBool: parsing \"x\": invalid syntax\nSee 'kubectl get --help' for usage."),
            ("descrbe pods", "unknown command \"descrbe\" for \"kubectl\"\n\nDid you mean this?\n\tdescribe\n"),
        ] {
            assert_eq!(parse(line).err().map(|error| error.to_string()).as_deref(), Some(want), "{line}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [("1m30s", Some(90.0)), ("0", Some(0.0)), ("0s", Some(0.0)), ("1.5h", Some(5400.0)), ("-1s", Some(-1.0)), ("5", None), ("", None)] {
            assert_eq!(seconds(text), want, "{text}");
        }
    }
}
