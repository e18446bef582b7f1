//! What each Dockerfile instruction does to the stage being built.

use std::collections::BTreeMap;

use crate::dockerfile::{Command, Instruction, expand, expand_words, json_list, name_values};
use crate::layer::{LayerWriter, Meta, Node};
use crate::oci::{Empty, Healthcheck};
use crate::reference::Reference;

use super::run::RunRequest;
use super::stage::Stage;
use super::{BuildError, Builder};

/// Declared arguments; `None` when declared without a value.
pub type Arguments = BTreeMap<String, Option<String>>;

const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Allowed without ARG, and kept out of the cache key, as in docker.
const PROXY_ARGUMENTS: &[&str] = &[
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy",
];

impl Builder<'_> {
    pub(super) fn step(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let at = |message: String| BuildError::Instruction { line: instruction.line, message };
        let line = instruction.original.as_str();
        let rest = instruction.rest.as_str();
        let allowed: &[&str] = match instruction.keyword.as_str() {
            "COPY" => &["from", "chown", "chmod", "link"],
            "ADD" => &["chown", "chmod", "link"],
            "FROM" => &["platform"],
            "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
            _ => &[],
        };
        if let Some(flag) = instruction.flags.keys().find(|f| !allowed.contains(&f.as_str())) {
            return Err(at(format!("unknown flag: --{flag} ({} does not support it here)", instruction.keyword)));
        }
        match instruction.keyword.as_str() {
            "FROM" => self.from(instruction),
            "ARG" => self.arg(instruction),
            "RUN" => self.run(instruction),
            "COPY" | "ADD" => self.copy(instruction),
            "ENV" => {
                let pairs = self.pairs(instruction)?;
                self.config_step(line, format!("{pairs:?}"), |stage| {
                    for (name, value) in &pairs {
                        stage.config.config.set_env(name, value);
                    }
                })
            }
            "LABEL" => {
                let pairs = self.pairs(instruction)?;
                self.config_step(line, format!("{pairs:?}"), |stage| stage.config.config.labels.extend(pairs.clone()))
            }
            "WORKDIR" => self.workdir(instruction),
            "USER" => {
                let user = self.expand(rest)?;
                self.config_step(line, user.clone(), |stage| stage.config.config.user = user)
            }
            "STOPSIGNAL" => {
                let signal = self.expand(rest)?;
                self.config_step(line, signal.clone(), |stage| stage.config.config.stop_signal = signal)
            }
            "EXPOSE" => {
                let mut ports = Vec::new();
                for word in self.expand_words(rest)? {
                    ports.extend(expose(&word).map_err(at)?);
                }
                self.config_step(line, ports.join(" "), |stage| {
                    stage.config.config.exposed_ports.extend(ports.into_iter().map(|p| (p, Empty {})));
                })
            }
            "VOLUME" => {
                let volumes = match json_list(rest) {
                    Some(list) => list.iter().map(|v| self.expand(v)).collect::<Result<_, _>>()?,
                    None => self.expand_words(rest)?,
                };
                if volumes.iter().any(|v| v.is_empty()) {
                    return Err(at("VOLUME specified can not be an empty string".into()));
                }
                self.config_step(line, volumes.join("\n"), |stage| {
                    stage.config.config.volumes.extend(volumes.into_iter().map(|v| (v, Empty {})));
                })
            }
            "CMD" => {
                let args = Command::parse(rest).args(&self.shell()?);
                self.config_step(line, String::new(), |stage| {
                    stage.config.config.cmd = args;
                    stage.cmd_given = true;
                })
            }
            "ENTRYPOINT" => {
                let args = Command::parse(rest).args(&self.shell()?);
                self.config_step(line, String::new(), |stage| {
                    stage.config.config.entrypoint = args;
                    if !stage.cmd_given {
                        stage.config.config.cmd.clear();
                    }
                })
            }
            "SHELL" => match json_list(rest).filter(|l| !l.is_empty()) {
                Some(shell) => self.config_step(line, String::new(), |stage| stage.config.config.shell = shell),
                None => Err(at("SHELL requires the arguments to be in JSON form".into())),
            },
            "HEALTHCHECK" => {
                let healthcheck = healthcheck(instruction, &self.shell()?).map_err(at)?;
                self.config_step(line, String::new(), |stage| stage.config.config.healthcheck = Some(healthcheck))
            }
            "MAINTAINER" => {
                let author = rest.to_owned();
                self.config_step(line, String::new(), |stage| drop(stage.config.config.labels.insert("maintainer".into(), author)))
            }
            "ONBUILD" => Err(at("ONBUILD is not supported: write the instruction into the Dockerfile that uses this image".into())),
            other => Err(at(format!("unknown instruction: {other}"))),
        }
    }

    /// A step that changes only the config.
    fn config_step(&mut self, line: &str, expanded: String, change: impl FnOnce(&mut Stage)) -> Result<(), BuildError> {
        change(self.stage()?);
        self.commit_layer(line, &[&expanded], |_| Ok(None))
    }

    fn from(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let at = |message: String| BuildError::Instruction { line: instruction.line, message };
        if let Some(platform) = instruction.flags.get("platform") {
            let platform = self.expand_global(platform)?;
            let here = format!("linux/{}", crate::oci::architecture());
            if platform != here && !platform.is_empty() {
                return Err(at(format!("--platform={platform} is not supported here: this machine is {here}")));
            }
        }
        let rest = self.expand_global(&instruction.rest)?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (base, name) = match words[..] {
            [base] => (base, None),
            [base, as_, name] if as_.eq_ignore_ascii_case("as") => (base, Some(name.to_lowercase())),
            [] => return Err(at("base name should not be blank".into())),
            _ => return Err(at("FROM requires either one or three arguments".into())),
        };
        let mut stage = if let Some(earlier) = self.stages.iter().find(|s| s.name.as_deref() == Some(&base.to_lowercase())) {
            earlier.successor()
        } else if base == "scratch" {
            Stage::scratch()
        } else {
            self.base_stage(base)?
        };
        if !stage.config.config.on_build.is_empty() {
            return Err(at(format!("{base} has ONBUILD triggers, which are not supported")));
        }
        stage.name = name;
        let id = if base == "scratch" { String::new() } else { stage.id()?.short().to_owned() };
        self.stages.push(stage);
        self.say(format_args!(" ---> {id}"))
    }

    /// An image of the store; pulled when the caller gave a way to.
    pub(super) fn base_stage(&mut self, name: &str) -> Result<Stage, BuildError> {
        let reference = Reference::parse(name)?;
        let mut found = self.store.resolve(name)?;
        let mut reason = String::new();
        if found.is_none()
            && let Some(pull) = &self.options.pull
        {
            match pull(&reference.to_string()) {
                Ok(()) => found = self.store.resolve(name)?,
                Err(e) => reason = format!(": {e}"),
            }
        }
        let image = found.ok_or_else(|| BuildError::NoBase(reference.familiar(), reason))?;
        Ok(Stage::from_image(self.store, &image.manifest)?)
    }

    fn arg(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        for word in crate::dockerfile::split_words(&instruction.rest, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(self.expand(value)?)),
                None => (word, None),
            };
            self.used_arguments.insert(name.clone());
            let given = self.options.build_args.get(&name).cloned();
            let global = self.global_arguments.get(&name).cloned().flatten();
            match self.stages.last_mut() {
                None => drop(self.global_arguments.insert(name, given.or(default))),
                Some(stage) => drop(stage.arguments.insert(name, given.or(default).or(global))),
            }
        }
        if self.stages.is_empty() {
            return Ok(());
        }
        self.commit_layer(&instruction.original, &[], |_| Ok(None))
    }

    fn run(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let (store, shell) = (self.store, self.shell()?);
        let args = match instruction.heredocs.as_slice() {
            [] => Command::parse(&instruction.rest).args(&shell),
            // `RUN <<EOF`: the content is the script.
            [only] if instruction.rest.trim_start_matches(['<', '-']).trim_matches(['"', '\'']) == only.name => {
                shell.iter().cloned().chain([only.content.clone()]).collect()
            }
            // `RUN cat <<EOF`: the shell reads them as its own.
            many => {
                let bodies: String = many.iter().map(|h| format!("\n{}{}", h.content, h.name)).collect();
                shell.iter().cloned().chain([format!("{}{bodies}\n", instruction.rest)]).collect()
            }
        };
        let stage = self.stage()?;
        let config = &stage.config.config;
        let mut env: Vec<(String, String)> =
            config.env.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let mut arguments: Vec<(String, String)> = Vec::new();
        for (name, value) in &stage.arguments {
            if let Some(value) = value
                && config.env_value(name).is_none()
            {
                arguments.push((name.clone(), value.clone()));
            }
        }
        let workdir = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() };
        let user = config.user.clone();
        let layers = stage.layer_paths(store);
        let key = format!("{args:?} {arguments:?}");
        env.extend(arguments);
        for name in PROXY_ARGUMENTS {
            if let Some(value) = self.options.build_args.get(*name)
                && !env.iter().any(|(n, _)| n == name)
            {
                self.used_arguments.insert((*name).to_owned());
                env.push(((*name).to_owned(), value.clone()));
            }
        }
        self.commit_layer(&instruction.original, &[&key], |builder| {
            let failed = |source| BuildError::Io { path: builder.store.temporary().to_owned(), source };
            let dir = tempfile::Builder::new().prefix("run.").tempdir_in(builder.store.temporary()).map_err(failed)?;
            let upper = dir.path().join("upper");
            std::fs::create_dir(&upper).map_err(failed)?;
            std::os::unix::fs::chown(&upper, Some(0), Some(0)).map_err(failed)?;
            let start = jiff::Timestamp::now().as_second();
            let container = crate::digest::Digest::of(dir.path().as_os_str().as_encoded_bytes());
            builder.say(format_args!(" ---> Running in {}", container.short()))?;
            let command = args.join(" ");
            let request = RunRequest { layers, upper: upper.clone(), args, env, workdir, user };
            let code = builder
                .runner
                .run(request, &mut *builder.out)
                .map_err(|source| BuildError::Runner { command: command.clone(), source })?;
            builder.out.flush().map_err(BuildError::Output)?;
            if code != 0 {
                return Err(BuildError::Run { command, code });
            }
            let mut layer = LayerWriter::new();
            layer.insert_upper(&upper, Some(start))?;
            let written = builder.write_layer(Some(layer))?;
            builder.say(format_args!("Removing intermediate container {}", container.short()))?;
            Ok(written)
        })
    }

    fn workdir(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let given = self.expand(&instruction.rest)?;
        let stage = self.stage()?;
        let path = absolute(&stage.config.config.working_dir, &given);
        stage.config.config.working_dir = path.clone();
        self.commit(&instruction.original, &[&path], |store, stage| {
            let mut layer = LayerWriter::new();
            let view = stage.view(store);
            super::copy::add_directories(&view, &mut layer, path.as_ref(), &Meta::root(0o755), false)?;
            let new = layer.entries().any(|(path, node, _)| matches!(node, Node::Directory) && matches!(view.lstat(path), Ok(None)));
            Ok(new.then_some(layer))
        })
    }

    fn pairs(&mut self, instruction: &Instruction) -> Result<Vec<(String, String)>, BuildError> {
        let pairs = name_values(&instruction.keyword, &instruction.rest, self.escape)
            .map_err(|message| BuildError::Instruction { line: instruction.line, message })?;
        pairs.into_iter().map(|(name, value)| Ok((self.expand(&name)?, self.expand(&value)?))).collect()
    }

    fn shell(&mut self) -> Result<Vec<String>, BuildError> {
        let shell = &self.stage()?.config.config.shell;
        Ok(if shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { shell.clone() })
    }

    // ---- expansion ----

    fn variable(&self, name: &str) -> Option<String> {
        match self.stages.last() {
            Some(stage) => {
                let config = &stage.config.config;
                config.env_value(name).map(str::to_owned).or_else(|| stage.arguments.get(name).cloned().flatten())
            }
            None => self.global_arguments.get(name).cloned().flatten(),
        }
    }

    pub(super) fn expand(&self, word: &str) -> Result<String, BuildError> {
        expand(word, self.escape, &|name| self.variable(name)).map_err(|source| BuildError::Expand { word: word.to_owned(), source })
    }

    pub(super) fn expand_words(&self, rest: &str) -> Result<Vec<String>, BuildError> {
        expand_words(rest, self.escape, &|name| self.variable(name))
            .map_err(|source| BuildError::Expand { word: rest.to_owned(), source })
    }

    /// FROM sees only the ARGs before the first FROM.
    fn expand_global(&self, word: &str) -> Result<String, BuildError> {
        expand(word, self.escape, &|name| self.global_arguments.get(name).cloned().flatten())
            .map_err(|source| BuildError::Expand { word: word.to_owned(), source })
    }

    /// Where the instructions for `--target` end.
    pub(super) fn target_end(&self, steps: &[Instruction], target: &str) -> Result<usize, BuildError> {
        let mut stage = 0;
        let mut found = false;
        for (i, step) in steps.iter().enumerate().filter(|(_, s)| s.keyword == "FROM") {
            if found {
                return Ok(i);
            }
            let name = step.rest.split_whitespace().nth(2).unwrap_or_default();
            found = name.eq_ignore_ascii_case(target) || stage.to_string() == target;
            stage += 1;
        }
        if found { Ok(steps.len()) } else { Err(BuildError::NoTarget(target.to_owned())) }
    }
}

/// `path` against the working directory so far, without `.` and `..`, as docker cleans it.
pub fn absolute(working_dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { working_dir };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn expose(word: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {word}");
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if last < first {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(instruction: &Instruction, shell: &[String]) -> Result<Healthcheck, String> {
    let (kind, rest) = match instruction.rest.split_once(char::is_whitespace) {
        Some((kind, rest)) => (kind, rest),
        None => (instruction.rest.as_str(), ""),
    };
    let duration = |name: &str| match instruction.flags.get(name) {
        Some(text) => nanoseconds(text).ok_or_else(|| format!("invalid duration {text:?} of --{name}")),
        None => Ok(0),
    };
    match kind.to_uppercase().as_str() {
        "NONE" => Ok(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() }),
        "CMD" => {
            let test = match Command::parse(rest) {
                Command::Exec(args) => [vec!["CMD".to_owned()], args].concat(),
                // With the default shell the engine chooses it; another one is spelled out.
                Command::Shell(line) if shell == DEFAULT_SHELL => vec!["CMD-SHELL".into(), line],
                Command::Shell(line) => ["CMD".to_owned()].into_iter().chain(shell.iter().cloned()).chain([line]).collect(),
            };
            if test.len() < 2 || test[1].is_empty() {
                return Err("Missing command after HEALTHCHECK CMD".into());
            }
            let retries = match instruction.flags.get("retries") {
                Some(text) => text.parse().ok().filter(|n| *n > 0).ok_or("--retries must be at least 1")?,
                None => 0,
            };
            Ok(Healthcheck {
                test,
                interval: duration("interval")?,
                timeout: duration("timeout")?,
                start_period: duration("start-period")?,
                retries,
            })
        }
        other => Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
}

/// A Go duration: `1s`, `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let value: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| n + digits);
        total += value
            * match &rest[digits..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parsers() {
        assert_eq!(absolute("/a/b", "../c"), "/a/c");
        assert_eq!(absolute("", "x"), "/x");
        assert_eq!(absolute("/a", "/"), "/");
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(expose("x").unwrap_err(), "invalid containerPort: x");
        assert!(expose("80/icmp").is_err() && expose("2-1").is_err() && expose("70000").is_err());
        assert_eq!(nanoseconds("1m30s"), Some(90_000_000_000));
        assert_eq!(nanoseconds("1.5s"), Some(1_500_000_000));
        assert_eq!((nanoseconds("5"), nanoseconds(""), nanoseconds("1y")), (None, None, None));
    }
}
