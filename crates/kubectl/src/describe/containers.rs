//! Containers of a pod or of a template: image, ports, command, state, resources, probes, environment, mounts.

use api::kinds::json::{child, flag, list, map, text};
use api::quantity::Quantity;
use serde_json::Value;

use super::writer::{Writer, capital, has, integer, line, or, shown, shown_or};

/// `pod` is there to look up the fields an environment refers to; templates have none.
pub fn containers(label: &str, containers: &[Value], statuses: &[Value], pod: Option<&Value>, indent: &str, w: &mut Writer) {
    line!(w, 0, "{indent}{label}:{}", if containers.is_empty() { " <none>" } else { "" });
    for container in containers {
        let name = text(container, "name");
        let status = statuses.iter().find(|status| text(status, "name") == name);
        line!(w, 1, "{}{name}:", if indent.is_empty() { "" } else { " " });
        basics(container, status, w);
        command(container, w);
        if let Some(status) = status {
            state("State", status, "state", w);
            if has(status, "lastState.terminated") {
                state("Last State", status, "lastState", w);
            }
            line!(w, 2, "Ready:\t{}", capital(flag(status, "ready")));
            line!(w, 2, "Restart Count:\t{}", integer(status, "restartCount"));
        }
        resources(container, "resources", 2, w);
        for (title, field) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
            if let Some(given) = child(container, field) {
                line!(w, 2, "{title}:\t{}", probe(given));
            }
        }
        environment_from(container, w);
        environment(container, pod, w);
        mounts(container, w);
    }
}

fn basics(container: &Value, status: Option<&Value>, w: &mut Writer) {
    if let Some(status) = status {
        line!(w, 2, "Container ID:\t{}", text(status, "containerID"));
    }
    line!(w, 2, "Image:\t{}", text(container, "image"));
    if let Some(status) = status {
        line!(w, 2, "Image ID:\t{}", text(status, "imageID"));
    }
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports = ports(container, field);
        line!(w, 2, "{title}{}:\t{}", if ports.contains(',') { "s" } else { "" }, or(&ports, "<none>"));
    }
    let seccomp = text(container, "securityContext.seccompProfile.type");
    if !seccomp.is_empty() {
        line!(w, 2, "SeccompProfile:\t{seccomp}");
        if seccomp == "Localhost" {
            line!(w, 3, "LocalhostProfile:\t{}", text(container, "securityContext.seccompProfile.localhostProfile"));
        }
    }
}

fn ports(container: &Value, field: &str) -> String {
    let ports = list(container, "ports").iter().map(|port| {
        let number = format!("{}/{}", integer(port, field), text(port, "protocol"));
        match text(port, "name") {
            "" => number,
            name => format!("{number} ({name})"),
        }
    });
    ports.collect::<Vec<_>>().join(", ")
}

fn command(container: &Value, w: &mut Writer) {
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        let words = list(container, field);
        if !words.is_empty() {
            line!(w, 2, "{title}:");
        }
        for part in words.iter().filter_map(Value::as_str).flat_map(|word| word.split('\n')) {
            line!(w, 3, "{part}");
        }
    }
}

fn state(title: &str, status: &Value, path: &str, w: &mut Writer) {
    let none = Value::Null;
    let state = child(status, path).unwrap_or(&none);
    if has(state, "running") {
        line!(w, 2, "{title}:\tRunning");
        line!(w, 3, "Started:\t{}", w.time(state, "running.startedAt"));
    } else if let (Some(ended), false) = (child(state, "terminated"), has(state, "waiting")) {
        line!(w, 2, "{title}:\tTerminated");
        for (title, field) in [("Reason", "reason"), ("Message", "message")] {
            if !text(ended, field).is_empty() {
                line!(w, 3, "{title}:\t{}", text(ended, field));
            }
        }
        line!(w, 3, "Exit Code:\t{}", integer(ended, "exitCode"));
        if integer(ended, "signal") > 0 {
            line!(w, 3, "Signal:\t{}", integer(ended, "signal"));
        }
        line!(w, 3, "Started:\t{}", w.time(ended, "startedAt"));
        line!(w, 3, "Finished:\t{}", w.time(ended, "finishedAt"));
    } else {
        line!(w, 2, "{title}:\tWaiting");
        let reason = text(state, "waiting.reason");
        if !reason.is_empty() {
            line!(w, 3, "Reason:\t{reason}");
        }
    }
}

pub fn resources(object: &Value, path: &str, level: usize, w: &mut Writer) {
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let Some(amounts) = map(object, &format!("{path}.{field}")).filter(|amounts| !amounts.is_empty()) else { continue };
        line!(w, level, "{title}:");
        for (name, amount) in amounts {
            line!(w, level + 1, "{name}:\t{}", super::requests::canonical(amount));
        }
    }
}

fn probe(probe: &Value) -> String {
    let number = |field| integer(probe, field);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds"), number("timeoutSeconds"), number("periodSeconds"), number("successThreshold"), number("failureThreshold")
    );
    if has(probe, "exec") {
        return format!("exec {} {attributes}", shown_or(probe, "exec.command", "[]"));
    }
    if let Some(get) = child(probe, "httpGet") {
        let host = text(get, "host");
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let path = text(get, "path");
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        return format!("http-get {}://{host}:{}{slash}{} {attributes}", text(get, "scheme").to_lowercase(), shown_or(get, "port", ""), url_path(path));
    }
    if let Some(socket) = child(probe, "tcpSocket") {
        return format!("tcp-socket {}:{} {attributes}", text(socket, "host"), shown_or(socket, "port", ""));
    }
    if let Some(grpc) = child(probe, "grpc") {
        return format!("grpc <pod>:{} {} {attributes}", integer(grpc, "port"), text(grpc, "service"));
    }
    format!("unknown {attributes}")
}

/// What Go's url package leaves as it is in a path.
fn url_path(path: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b'$').remove(b'&').remove(b'+').remove(b',').remove(b':').remove(b';').remove(b'=').remove(b'@');
    utf8_percent_encode(path, KEPT).to_string()
}

fn environment_from(container: &Value, w: &mut Writer) {
    let sources = list(container, "envFrom");
    if sources.is_empty() {
        return;
    }
    line!(w, 2, "Environment Variables from:");
    for source in sources {
        let (from, reference) = match (child(source, "configMapRef"), child(source, "secretRef")) {
            (Some(reference), _) => ("ConfigMap", reference),
            (None, Some(reference)) => ("Secret", reference),
            (None, None) => ("", &Value::Null),
        };
        let prefix = match text(source, "prefix") {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        line!(w, 3, "{}\t{from}{prefix}\tOptional: {}", text(reference, "name"), flag(reference, "optional"));
    }
}

fn environment(container: &Value, pod: Option<&Value>, w: &mut Writer) {
    let variables = list(container, "env");
    line!(w, 2, "Environment:{}", if variables.is_empty() { "\t<none>" } else { "" });
    for variable in variables {
        let name = text(variable, "name");
        let Some(from) = child(variable, "valueFrom") else {
            for (at, part) in text(variable, "value").split('\n').enumerate() {
                if at == 0 { line!(w, 3, "{name}:\t{part}") } else { line!(w, 3, "\t{part}") }
            }
            continue;
        };
        if let Some(field) = child(from, "fieldRef") {
            let path = text(field, "fieldPath");
            let value = pod.map(|pod| field_of(pod, path)).unwrap_or_default();
            line!(w, 3, "{name}:\t{value} ({}:{path})", text(field, "apiVersion"));
        } else if let Some(field) = child(from, "resourceFieldRef") {
            let resource = text(field, "resource");
            let mut value = resource_of(container, field).unwrap_or_default();
            if value == "0" && ["limits.cpu", "limits.memory"].contains(&resource) {
                value = "node allocatable".to_owned();
            }
            line!(w, 3, "{name}:\t{value} ({resource})");
        } else if let Some(key) = child(from, "secretKeyRef") {
            line!(w, 3, "{name}:\t<set to the key '{}' in secret '{}'>\tOptional: {}", text(key, "key"), text(key, "name"), flag(key, "optional"));
        } else if let Some(key) = child(from, "configMapKeyRef") {
            line!(w, 3, "{name}:\t<set to the key '{}' of config map '{}'>\tOptional: {}", text(key, "key"), text(key, "name"), flag(key, "optional"));
        }
    }
}

/// The few fields upstream's client can resolve; others, known to the node alone, are empty.
fn field_of(pod: &Value, path: &str) -> String {
    let quoted = |path: &str| map(pod, path).into_iter().flatten().map(|(key, value)| format!("{key}={:?}", shown(value))).collect::<Vec<_>>().join("\n");
    if let Some((path @ ("metadata.labels" | "metadata.annotations"), key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return api::kinds::json::entry(pod, path, key).unwrap_or("").to_owned();
    }
    match path {
        "metadata.labels" | "metadata.annotations" => quoted(path),
        "metadata.name" | "metadata.namespace" | "metadata.uid" => text(pod, path).to_owned(),
        _ => String::new(),
    }
}

/// An amount in units of the divisor, rounded up.
fn resource_of(container: &Value, field: &Value) -> Option<String> {
    let (list @ ("limits" | "requests"), name) = text(field, "resource").split_once('.')? else { return None };
    if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !name.starts_with("hugepages-") {
        return None;
    }
    let amounts = map(container, &format!("resources.{list}"));
    let amount = amounts.and_then(|amounts| amounts.get(name)).and_then(|amount| Quantity::from_json(amount).ok()).unwrap_or_default();
    let divisor = child(field, "divisor").and_then(|divisor| Quantity::from_json(divisor).ok()).filter(|divisor| divisor.sign() > 0);
    let divisor = divisor.unwrap_or(Quantity::new(1, api::quantity::Format::DecimalSi));
    let (amount, divisor) = if name == "cpu" { (amount.milli_value(), divisor.milli_value()) } else { (amount.value(), divisor.value()) };
    Some(amount.checked_add(divisor - 1)?.checked_div(divisor)?.to_string())
}

fn mounts(container: &Value, w: &mut Writer) {
    let mut mounts: Vec<&Value> = list(container, "volumeMounts").iter().collect();
    mounts.sort_by_key(|mount| text(mount, "mountPath"));
    let none = if mounts.is_empty() { "\t<none>" } else { "" };
    line!(w, 2, "Mounts:{none}");
    for mount in mounts {
        let access = if flag(mount, "readOnly") { "ro" } else { "rw" };
        let part = match text(mount, "subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        line!(w, 3, "{} from {} ({access}{part})", text(mount, "mountPath"), text(mount, "name"));
    }
    let mut devices: Vec<&Value> = list(container, "volumeDevices").iter().collect();
    devices.sort_by_key(|device| text(device, "devicePath"));
    if !devices.is_empty() {
        line!(w, 2, "Devices:{none}");
    }
    for device in devices {
        line!(w, 3, "{} from {}", text(device, "devicePath"), text(device, "name"));
    }
}
