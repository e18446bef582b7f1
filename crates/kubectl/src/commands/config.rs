//! `kubectl config`: the kubeconfig shown and changed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::kubeconfig::Kubeconfig;
use serde_json::{Map, Value};

use crate::command::{command, family};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::printers::{OUTPUT, Printer};
use crate::session::Session;
use crate::tabwriter::TABLE;
use crate::{builder, output, yaml};

family!(CONFIG, "config", "Modify kubeconfig files", [
    &CURRENT_CONTEXT, &DELETE_CLUSTER, &DELETE_CONTEXT, &DELETE_USER, &GET_CLUSTERS, &GET_CONTEXTS, &GET_USERS, &RENAME_CONTEXT, &SET, &SET_CLUSTER, &SET_CONTEXT, &SET_CREDENTIALS, &UNSET, &USE_CONTEXT, &VIEW
]);
command!(VIEW, "view", [], "[flags] [options]", "Display merged kubeconfig settings or a specified kubeconfig file", [&[switch("flatten", "Flatten the resulting kubeconfig file into self-contained output"), switch("merge", "Merge the full hierarchy of kubeconfig files"), switch("minify", "Remove all information not used by current-context from the output"), switch("raw", "Display raw byte data and sensitive data")], OUTPUT], view);
command!(CURRENT_CONTEXT, "current-context", [], "", "Display the current-context", [], current_context);
command!(USE_CONTEXT, "use-context", ["use"], "CONTEXT_NAME", "Set the current-context in a kubeconfig file", [], use_context);
command!(GET_CONTEXTS, "get-contexts", [], "[(-o|--output=)name)] [options]", "Describe one or many contexts", [&[switch("no-headers", "When using the default or custom-column output format, don't print headers (default print headers)."), text("output", "", "Output format. One of: (name).").short('o')]], get_contexts);
command!(GET_CLUSTERS, "get-clusters", [], "", "Display clusters defined in the kubeconfig", [], get_clusters);
command!(GET_USERS, "get-users", [], "", "Display users defined in the kubeconfig", [], get_users);
command!(DELETE_CONTEXT, "delete-context", [], "NAME", "Delete the specified context from the kubeconfig", [], delete_context);
command!(DELETE_CLUSTER, "delete-cluster", [], "NAME", "Delete the specified cluster from the kubeconfig", [], delete_cluster);
command!(DELETE_USER, "delete-user", [], "NAME", "Delete the specified user from the kubeconfig", [], delete_user);
command!(RENAME_CONTEXT, "rename-context", [], "CONTEXT_NAME NEW_NAME", "Rename a context from the kubeconfig file", [], rename_context);
command!(SET_CONTEXT, "set-context", [], "[NAME | --current] [--cluster=cluster_nickname] [--user=user_nickname] [--namespace=namespace] [options]", "Set a context entry in kubeconfig", [&[switch("current", "Modify the current context")]], set_context);
command!(SET_CLUSTER, "set-cluster", [], "NAME [--server=server] [--certificate-authority=path/to/certificate/authority] [--insecure-skip-tls-verify=true] [--tls-server-name=example.com] [options]", "Set a cluster entry in kubeconfig", [EMBED], set_cluster);
command!(SET_CREDENTIALS, "set-credentials", [], "NAME [--client-certificate=path/to/certfile] [--client-key=path/to/keyfile] [--token=bearer_token] [--username=basic_user] [--password=basic_password] [options]", "Set a user entry in kubeconfig", [EMBED, EXEC], set_credentials);
const EXEC: &[Flag] = &[
    text("auth-provider", "", "Auth provider for the user entry in kubeconfig"),
    crate::flags::list("auth-provider-arg", "'key=value' arguments for the auth provider"),
    text("exec-api-version", "", "API version of the exec credential plugin for the user entry in kubeconfig"),
    crate::flags::list("exec-arg", "New arguments for the exec credential plugin command for the user entry in kubeconfig"),
    text("exec-command", "", "Command for the exec credential plugin for the user entry in kubeconfig"),
    crate::flags::list("exec-env", "'key=value' environment values for the exec credential plugin"),
    text("exec-interactive-mode", "", "InteractiveMode of the exec credentials plugin for the user entry in kubeconfig"),
    switch("exec-provide-cluster-info", "ProvideClusterInfo of the exec credentials plugin for the user entry in kubeconfig"),
];
const EMBED: &[Flag] = &[switch("embed-certs", "Embed the certificates in the kubeconfig"), text("proxy-url", "", "proxy-url for the cluster entry in kubeconfig")];
command!(SET, "set", [], "PROPERTY_NAME PROPERTY_VALUE [options]", "Set an individual value in a kubeconfig file", [&[switch("set-raw-bytes", "When writing a []byte PROPERTY_VALUE, write the given string directly without base64 decoding.")]], set);
command!(UNSET, "unset", [], "PROPERTY_NAME", "Unset an individual value in a kubeconfig file", [], unset);

const SECRETS: [&str; 3] = ["client-key-data", "token", "password"];
const DATA: [&str; 2] = ["certificate-authority-data", "client-certificate-data"];

async fn view(session: &Session, args: &Args) -> Result<()> {
    let files = session.kubeconfig(false)?;
    let mut merged = files.merged();
    if args.on("minify") {
        let name = session.overrides().context.clone().unwrap_or_else(|| files.current_context());
        let Some(context) = files.entry("contexts", &name) else { return fail(if name.is_empty() { "current-context must exist in order to minify".to_owned() } else { format!("cannot locate context {name}") }) };
        for (list, keep) in [("contexts", name.as_str()), ("clusters", text_of(&context, "cluster")), ("users", text_of(&context, "user"))] {
            if let Some(entries) = merged[list].as_array_mut() {
                entries.retain(|entry| entry["name"] == keep);
            }
        }
        merged["current-context"] = name.into();
    }
    if args.on("flatten") {
        for (list, inner) in [("clusters", "cluster"), ("users", "user")] {
            for entry in merged[list].as_array_mut().into_iter().flatten() {
                for key in ["certificate-authority", "client-certificate", "client-key"] {
                    if let Some(path) = entry[inner].get(key).and_then(Value::as_str).map(str::to_owned) {
                        entry[inner][format!("{key}-data")] = STANDARD.encode(std::fs::read(&path)?).into();
                        if let Some(inner) = entry[inner].as_object_mut() {
                            inner.remove(key);
                        }
                    }
                }
            }
        }
    }
    if !args.on("raw") {
        for (list, inner) in [("clusters", "cluster"), ("users", "user")] {
            for entry in merged[list].as_array_mut().into_iter().flatten() {
                for (key, value) in entry[inner].as_object_mut().into_iter().flatten() {
                    if SECRETS.contains(&key.as_str()) {
                        *value = if key == "token" || key == "password" { "REDACTED" } else { "DATA+OMITTED" }.into();
                    } else if DATA.contains(&key.as_str()) {
                        *value = "DATA+OMITTED".into();
                    }
                }
            }
        }
    }
    match Printer::of(args)? {
        Some(printer) => printer.print(&merged, ""),
        None => {
            output::write(yaml::emit(&merged).as_bytes());
            Ok(())
        }
    }
}

fn text_of<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

async fn current_context(session: &Session, _: &Args) -> Result<()> {
    match session.kubeconfig(false)?.current_context() {
        name if name.is_empty() => fail("current-context is not set"),
        name => {
            output::line(name);
            Ok(())
        }
    }
}

fn single<'a>(args: &'a Args, what: &str) -> Result<&'a str> {
    match args.positional.as_slice() {
        [name] if !name.is_empty() => Ok(name),
        [_] | [] => Err(args.wrong(format!("you must specify a non-empty {what} name"))),
        other => Err(args.wrong(format!("Unexpected args: {other:?}"))),
    }
}

async fn use_context(session: &Session, args: &Args) -> Result<()> {
    let name = single(args, "context")?;
    let mut files = session.kubeconfig(true)?;
    if files.entry("contexts", name).is_none() {
        return fail(format!("no context exists with the name: {name:?}"));
    }
    files.set_current_context(name)?;
    output::line(format!("Switched to context {name:?}."));
    Ok(())
}

async fn get_contexts(session: &Session, args: &Args) -> Result<()> {
    let files = session.kubeconfig(false)?;
    let mut names = files.names("contexts");
    let mut errors = Vec::new();
    if !args.positional.is_empty() {
        errors.extend(args.positional.iter().filter(|name| !names.contains(name)).map(|name| Error::Message(format!("context {name} not found"))));
        names.retain(|name| args.positional.contains(name));
    }
    names.sort();
    if args.text("output") == "name" {
        names.iter().for_each(output::line);
        return builder::gather(errors);
    }
    let mut rows = String::new();
    if !args.on("no-headers") {
        rows.push_str("CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n");
    }
    let current = files.current_context();
    for name in names {
        let context = files.entry("contexts", &name).unwrap_or_default();
        rows.push_str(&format!("{}\t{name}\t{}\t{}\t{}\n", if name == current { "*" } else { " " }, text_of(&context, "cluster"), text_of(&context, "user"), text_of(&context, "namespace")));
    }
    if !rows.is_empty() {
        output::write(TABLE.format(&rows).as_bytes());
    }
    builder::gather(errors)
}

fn names(session: &Session, list: &str) -> Result<()> {
    output::line("NAME");
    let mut names = session.kubeconfig(false)?.names(list);
    names.sort();
    names.iter().for_each(output::line);
    Ok(())
}

async fn get_clusters(session: &Session, _: &Args) -> Result<()> {
    names(session, "clusters")
}

async fn get_users(session: &Session, _: &Args) -> Result<()> {
    names(session, "users")
}

fn delete(session: &Session, args: &Args, list: &str, what: &str) -> Result<()> {
    let name = single(args, what)?;
    let mut files = session.kubeconfig(true)?;
    let path = files.path().display().to_string();
    if files.entry(list, name).is_none() {
        return fail(format!("cannot delete {what} {name}, not in {path}"));
    }
    if what == "context" && files.current_context() == name {
        output::complain("warning: this removed your active context, use \"kubectl config use-context\" to select a different one");
    }
    files.remove(list, name)?;
    output::line(format!("deleted {what} {name} from {path}"));
    Ok(())
}

async fn delete_context(session: &Session, args: &Args) -> Result<()> {
    delete(session, args, "contexts", "context")
}
async fn delete_cluster(session: &Session, args: &Args) -> Result<()> {
    delete(session, args, "clusters", "cluster")
}
async fn delete_user(session: &Session, args: &Args) -> Result<()> {
    delete(session, args, "users", "user")
}

async fn rename_context(session: &Session, args: &Args) -> Result<()> {
    let [from, to] = args.positional.as_slice() else { return Err(args.wrong(format!("Unexpected args: {:?}", args.positional))) };
    let mut files = session.kubeconfig(true)?;
    let path = files.path().display().to_string();
    let Some(context) = files.entry("contexts", from) else { return fail(format!("cannot rename the context {from:?}, it's not in {path}")) };
    if files.entry("contexts", to).is_some() {
        return fail(format!("cannot rename the context {from:?}, the context {to:?} already exists in {path}"));
    }
    let current = files.current_context() == *from;
    files.set("contexts", to, context)?;
    files.remove("contexts", from)?;
    if current {
        files.set_current_context(to)?;
    }
    output::line(format!("Context {from:?} renamed to {to:?}."));
    Ok(())
}

fn put(entry: &mut Map<String, Value>, args: &Args, flags: &[(&str, &str)]) {
    for (flag, key) in flags {
        if args.changed(flag) {
            entry.insert((*key).to_owned(), args.text(flag).into());
        }
    }
}

/// A file's path, or with `--embed-certs` its contents.
fn put_file(entry: &mut Map<String, Value>, args: &Args, flag: &str) -> Result<()> {
    let Some(path) = args.given(flag) else { return Ok(()) };
    let data = format!("{flag}-data");
    if args.on("embed-certs") {
        let bytes = std::fs::read(path).map_err(|error| Error::Message(format!("could not stat {flag} file {path}: {error}")))?;
        entry.remove(flag);
        entry.insert(data, STANDARD.encode(bytes).into());
    } else {
        entry.remove(&data);
        let absolute = std::path::absolute(path)?;
        entry.insert(flag.to_owned(), absolute.display().to_string().into());
    }
    Ok(())
}

async fn set_context(session: &Session, args: &Args) -> Result<()> {
    let mut files = session.kubeconfig(true)?;
    let name = match (args.on("current"), args.positional.as_slice()) {
        (true, []) => match files.current_context() {
            name if name.is_empty() => return fail("no current context is set"),
            name => name,
        },
        (true, _) => return fail("you cannot specify both a context name and --current"),
        (false, _) => single(args, "context").map_err(|_| Error::Message("you must specify a non-empty context name or --current".to_owned()))?.to_owned(),
    };
    let known = files.entry("contexts", &name);
    let created = known.is_none();
    let mut entry = known.unwrap_or_default();
    put(&mut entry, args, &[("cluster", "cluster"), ("user", "user"), ("namespace", "namespace")]);
    files.set("contexts", &name, entry)?;
    output::line(format!("Context {name:?} {}.", if created { "created" } else { "modified" }));
    Ok(())
}

async fn set_cluster(session: &Session, args: &Args) -> Result<()> {
    let name = single(args, "cluster")?;
    let mut files = session.kubeconfig(true)?;
    let mut entry = files.entry("clusters", name).unwrap_or_default();
    put(&mut entry, args, &[("server", "server"), ("tls-server-name", "tls-server-name"), ("proxy-url", "proxy-url")]);
    put_file(&mut entry, args, "certificate-authority")?;
    if args.changed("insecure-skip-tls-verify") {
        entry.insert("insecure-skip-tls-verify".into(), args.on("insecure-skip-tls-verify").into());
    }
    files.set("clusters", name, entry)?;
    output::line(format!("Cluster {name:?} set."));
    Ok(())
}

async fn set_credentials(session: &Session, args: &Args) -> Result<()> {
    let name = single(args, "user")?;
    let mut files = session.kubeconfig(true)?;
    let mut entry = files.entry("users", name).unwrap_or_default();
    put(&mut entry, args, &[("token", "token"), ("username", "username"), ("password", "password")]);
    put_file(&mut entry, args, "client-certificate")?;
    put_file(&mut entry, args, "client-key")?;
    put_exec(&mut entry, args)?;
    files.set("users", name, entry)?;
    output::line(format!("User {name:?} set."));
    Ok(())
}

/// The program that brings credentials; `KEY-` takes a variable of its environment away.
fn put_exec(entry: &mut Map<String, Value>, args: &Args) -> Result<()> {
    if args.changed("auth-provider") || args.changed("auth-provider-arg") {
        let mut provider = entry.get("auth-provider").and_then(Value::as_object).cloned().unwrap_or_default();
        put(&mut provider, args, &[("auth-provider", "name")]);
        let mut config = provider.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        for pair in args.slice("auth-provider-arg") {
            match pair.split_once('=') {
                Some((key, value)) => {
                    config.insert(key.into(), value.into());
                }
                None => {
                    config.remove(pair.trim_end_matches('-'));
                }
            }
        }
        provider.insert("config".into(), if config.is_empty() { Value::Null } else { config.into() });
        entry.insert("auth-provider".into(), provider.into());
    }
    if !EXEC.iter().any(|flag| flag.name.starts_with("exec-") && args.changed(flag.name)) {
        return Ok(());
    }
    let mut exec = entry.get("exec").and_then(Value::as_object).cloned().unwrap_or_default();
    if exec.is_empty() && args.given("exec-command").is_none() {
        return fail("--exec-command is required for a new exec credential plugin");
    }
    put(&mut exec, args, &[("exec-api-version", "apiVersion"), ("exec-command", "command"), ("exec-interactive-mode", "interactiveMode")]);
    if args.changed("exec-arg") {
        exec.insert("args".into(), args.slice("exec-arg").into());
    }
    let mut env = exec.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
    for pair in args.slice("exec-env") {
        let (key, value) = match pair.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (pair.trim_end_matches('-'), None),
        };
        env.retain(|one| one["name"] != key);
        env.extend(value.map(|value| serde_json::json!({"name": key, "value": value})));
    }
    exec.insert("env".into(), if env.is_empty() { Value::Null } else { env.into() });
    exec.entry("args").or_insert(Value::Null);
    exec.entry("interactiveMode").or_insert_with(|| "IfAvailable".into());
    let provide = args.on("exec-provide-cluster-info") || exec.get("provideClusterInfo").is_some_and(|value| value == true && !args.changed("exec-provide-cluster-info"));
    exec.insert("provideClusterInfo".into(), provide.into());
    entry.insert("exec".into(), exec.into());
    Ok(())
}

/// `contexts.NAME.namespace` as list, name (which may have dots), field.
fn property(files: &Kubeconfig, text: &str) -> Result<(String, String, String)> {
    let (list, rest) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(list, "clusters" | "contexts" | "users") {
        return fail(format!("unable to locate path {text:?}"));
    }
    let known = files.names(list).into_iter().find(|name| rest == name || rest.strip_prefix(name.as_str()).is_some_and(|after| after.starts_with('.')));
    Ok(match known {
        Some(name) => {
            let field = rest[name.len()..].trim_start_matches('.').to_owned();
            (list.to_owned(), name, field)
        }
        None => {
            let (name, field) = rest.rsplit_once('.').unwrap_or((rest, ""));
            (list.to_owned(), name.to_owned(), field.to_owned())
        }
    })
}

async fn set(session: &Session, args: &Args) -> Result<()> {
    let [name, value] = args.positional.as_slice() else { return Err(args.wrong(format!("Unexpected args: {:?}", args.positional))) };
    let mut files = session.kubeconfig(true)?;
    if name == "current-context" {
        files.set_current_context(value)?;
    } else {
        let (list, entry_name, field) = property(&files, name)?;
        if field.is_empty() {
            return fail("can't set a map to a value");
        }
        let mut entry = files.entry(&list, &entry_name).unwrap_or_default();
        let value = match value.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => text.into(),
        };
        entry.insert(field, value);
        files.set(&list, &entry_name, entry)?;
    }
    output::line(format!("Property {name:?} set."));
    Ok(())
}

async fn unset(session: &Session, args: &Args) -> Result<()> {
    let [name] = args.positional.as_slice() else { return Err(args.wrong(format!("Unexpected args: {:?}", args.positional))) };
    let mut files = session.kubeconfig(true)?;
    if name == "current-context" {
        files.set_current_context("")?;
    } else {
        let (list, entry_name, field) = property(&files, name)?;
        if field.is_empty() {
            files.remove(&list, &entry_name)?;
        } else if let Some(mut entry) = files.entry(&list, &entry_name) {
            entry.remove(&field);
            files.set(&list, &entry_name, entry)?;
        }
    }
    output::line(format!("Property {name:?} unset."));
    Ok(())
}
