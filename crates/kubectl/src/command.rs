//! The tree of commands, and their help.

use std::future::Future;
use std::pin::Pin;

use crate::commands as c;
use crate::error::{Result, usage};
use crate::flags::{Args, Flag, GLOBAL, Kind};
use crate::output;
use crate::session::Session;

pub type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;
pub type Run = for<'a> fn(&'a Session, &'a Args) -> Outcome<'a>;

pub struct Command {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// What follows the command's name in its usage line.
    pub usage: &'static str,
    pub short: &'static str,
    pub flags: &'static [&'static [Flag]],
    pub subcommands: &'static [&'static Command],
    pub run: Option<Run>,
}

/// A command without subcommands: `command!(GET, "get", ["g"], "usage", "short", [FLAGS], run)`.
macro_rules! command {
    ($id:ident, $name:literal, $aliases:expr, $usage:literal, $short:literal, $flags:expr, $run:path) => {
        pub static $id: $crate::command::Command = $crate::command::Command {
            name: $name,
            aliases: &$aliases,
            usage: $usage,
            short: $short,
            flags: &$flags,
            subcommands: &[],
            run: Some(|session, args| Box::pin($run(session, args))),
        };
    };
}
/// A command that only holds others.
macro_rules! family {
    ($id:ident, $name:literal, $short:literal, $subcommands:expr) => {
        pub static $id: $crate::command::Command =
            $crate::command::Command { name: $name, aliases: &[], usage: "SUBCOMMAND", short: $short, flags: &[], subcommands: &$subcommands, run: None };
    };
}
pub(crate) use {command, family};

pub static ROOT: Command = Command {
    name: "kubectl",
    aliases: &[],
    usage: "[flags] [options]",
    short: "kubectl controls the Kubernetes cluster manager.",
    flags: &[],
    subcommands: c::ALL,
    run: None,
};

/// Flags that come to a command with a group it shares with others, and that it has no use for: refused, as upstream's does.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["create clusterrolebinding"], &["role"]),
    (&["create role"], &["aggregation-rule", "non-resource-url"]),
    (&["expose", "run", "autoscale"], &["validate"]),
    (&["set env", "set resources", "patch", "label", "annotate"], &["save-config", "validate"]),
    (&["set image", "set subject"], &["containers", "save-config", "validate"]),
    (&["set selector"], &["containers", "kustomize", "save-config", "selector", "validate"]),
    (&["set serviceaccount"], &["containers", "save-config", "selector", "validate"]),
    (&["edit"], &["dry-run"]),
    (&["rollout pause", "rollout restart", "rollout resume"], &["dry-run", "save-config", "validate"]),
    (&["rollout undo"], &["field-manager", "save-config", "validate"]),
    (&["scale"], &["all-namespaces", "field-manager", "field-selector", "save-config", "validate"]),
    (&["certificate approve", "certificate deny"], &["selector"]),
    (&["cordon", "uncordon", "drain"], &["allow-missing-template-keys", "field-manager", "output", "save-config", "show-managed-fields", "template", "validate"]),
    (&["taint", "apply"], &["save-config"]),
    (&["attach"], &["filename", "kustomize", "recursive"]),
    (&["exec"], &["kustomize", "recursive"]),
    (&["wait"], &["kustomize"]),
    (&["config set-credentials"], &["proxy-url"]),
];

/// Is this flag one of that command's?
pub fn takes(path: &str, flag: &str) -> bool {
    let command = path.split_once(' ').map_or("", |(_, command)| command);
    !REFUSED.iter().any(|(commands, flags)| commands.contains(&command) && flags.contains(&flag))
}

fn help(args: &Args) -> String {
    let command = args.command;
    let mut out = format!("{}\n\n", command.short);
    let table = |rows: Vec<(String, &str)>| -> String {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().map(|(name, text)| format!("  {name:width$}  {text}\n")).collect()
    };
    if !command.subcommands.is_empty() {
        out.push_str("Available Commands:\n");
        out.push_str(&table(command.subcommands.iter().map(|sub| (sub.name.to_owned(), sub.short)).collect()));
        out.push('\n');
    }
    let own: String = command.flags.iter().flat_map(|flags| flags.iter()).chain(args.dialect.flags(&args.path)).filter(|flag| !flag.hidden && takes(&args.path, flag.name)).map(|flag| described(flag, &args.path)).collect();
    if !own.is_empty() {
        out.push_str(&format!("Options:\n{own}"));
    }
    out.push_str(&format!("Usage:\n  {} {}\n\nUse \"kubectl options\" for a list of global command-line options (applies to all commands).\n", args.path, command.usage));
    out
}

fn described(flag: &Flag, path: &str) -> String {
    let short = flag.short.map_or(String::new(), |short| format!("-{short}, "));
    let number = flag.default.parse::<i64>().is_ok() || crate::flags::seconds(flag.default).is_some();
    let default = match flag.kind {
        Kind::Bool => flag.default.to_owned(),
        Kind::List => "[]".to_owned(),
        // Each command has its own.
        _ if flag.name == "field-manager" => match path.split(' ').nth(1) {
            Some("apply" | "diff") => "'kubectl-client-side-apply'".to_owned(),
            Some(command) => format!("'kubectl-{command}'"),
            None => "''".to_owned(),
        },
        // Numbers and durations stand bare; the one that is a text in Go does not.
        Kind::Text if number && flag.name != "request-timeout" => flag.default.to_owned(),
        _ => format!("'{}'", flag.default),
    };
    format!("    {short}--{}={default}:\n\t{}\n\n", flag.name, flag.help)
}

/// What `kubectl options` prints.
pub fn global_options() -> String {
    format!("The following options can be passed to any command:\n\n{}", GLOBAL.iter().map(|flag| described(flag, "")).collect::<String>())
}

pub async fn run(arguments: Vec<String>) -> Result<()> {
    let arguments = crate::kuberc::applied(arguments)?;
    c::plugin::instead(&arguments)?;
    let args = Args::parse(&ROOT, arguments)?;
    let Some(run) = args.command.run.filter(|_| !args.help) else {
        let family = !args.help && args.path.contains(' ') && !args.command.subcommands.is_empty();
        // Upstream's families want a member; two of them tell it otherwise.
        if family && args.command.name != "certificate" {
            let told = help(&args);
            if args.command.name == "rollout" { output::write(told.as_bytes()) } else { output::complain(told.trim_end_matches('\n')) }
            return Err(crate::error::Error::Silent(1));
        }
        output::write(help(&args).as_bytes());
        if !args.help && args.command.name != "kubectl" && args.positional.is_empty() && args.command.subcommands.is_empty() {
            return usage(&args.path, "must specify a subcommand");
        }
        return Ok(());
    };
    let session = Session::new(&args);
    if args.on("match-server-version") {
        c::discover::match_server_version(&session).await?;
    }
    run(&session, &args).await?;
    match session.warnings() {
        count if args.on("warnings-as-errors") && count > 0 => crate::error::fail(format!("{count} warning{} received", if count == 1 { "" } else { "s" })),
        _ => Ok(()),
    }
}
