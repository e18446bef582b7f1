//! `kubectl debug`: another container in a running pod, a changed copy of a pod, or a pod on a node.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/debug; what each profile grants is in `profiles`.

mod profiles;

use http::Method;
use serde_json::{Map, Value, json};

use super::pods::{array, text as at};
use super::{attach, change};
use crate::builder::{self, Found};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, on, switch, text};
use crate::output;
use crate::session::{Query, Session};
use profiles::{Profile, Style};

const FLAGS: &[Flag] = &[
    switch("arguments-only", "If specified, everything after -- will be passed to the new container as Args instead of Command."),
    switch("attach", "If true, wait for the container to start running, and then attach; so too with -i/--stdin."),
    text("container", "", "Container name to use for debug container.").short('c'),
    text("copy-to", "", "Create a copy of the target Pod with this name."),
    text("custom", "", "Path to a JSON or YAML file containing a partial container spec to customize built-in debug profiles."),
    list("env", "Environment variables to set in the container."),
    list("filename", "identifying the resource to debug").short('f'),
    text("image", "", "Container image to use for debug container."),
    text("image-pull-policy", "", "The image pull policy for the container."),
    switch("keep-annotations", "If true, keep the original pod annotations.(This flag only works when used with '--copy-to')"),
    on("keep-init-containers", "Run the init containers for the pod.(This flag only works when used with '--copy-to')"),
    switch("keep-labels", "If true, keep the original pod labels.(This flag only works when used with '--copy-to')"),
    switch("keep-liveness", "If true, keep the original pod liveness probes.(This flag only works when used with '--copy-to')"),
    switch("keep-readiness", "If true, keep the original pod readiness probes.(This flag only works when used with '--copy-to')"),
    switch("keep-startup", "If true, keep the original startup probes.(This flag only works when used with '--copy-to')"),
    text("profile", "general", "Options are \"general\", \"baseline\", \"restricted\", \"netadmin\" or \"sysadmin\"."),
    switch("quiet", "If true, suppress informational messages.").short('q'),
    switch("replace", "When used with '--copy-to', delete the original Pod."),
    switch("same-node", "When used with '--copy-to', schedule the copy of target Pod on the same node."),
    list("set-image", "When used with '--copy-to', a list of name=image pairs for changing container images."),
    on("share-processes", "When used with '--copy-to', enable process namespace sharing in the copy."),
    switch("stdin", "Keep stdin open on the container(s) in the pod, even if nothing is attached.").short('i'),
    text("target", "", "When using an ephemeral container, target processes in this container name."),
    switch("tty", "Allocate a TTY for the debugging container.").short('t'),
];
command!(DEBUG, "debug", [], "(POD | TYPE[[.VERSION].GROUP]/NAME) [ -- COMMAND [args...] ] [options]", "Create debugging sessions for troubleshooting workloads and nodes", [FLAGS], run);

const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// As upstream names what is made: letters that spell nothing.
fn suffix() -> String {
    // A fresh hasher is keyed by chance.
    use std::hash::{BuildHasher, Hasher};
    let mut chance = std::hash::RandomState::new().build_hasher().finish();
    let letters = SUFFIX_LETTERS.len() as u64;
    (0..SUFFIX_LENGTH)
        .map(|_| {
            let letter = SUFFIX_LETTERS[usize::try_from(chance % letters).unwrap_or(0)];
            chance /= letters;
            char::from(letter)
        })
        .collect()
}

/// `a=b,c=d`
fn pairs(args: &Args, flag: &str) -> Result<Vec<(String, String)>> {
    args.slice(flag)
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(args.wrong(format!("invalid argument {pair:?} for \"--{flag}\" flag: {pair} must be formatted as key=value"))),
        })
        .collect()
}

/// A rough form of the grammar of image references: what it lets through the server judges.
fn image_name(image: &str) -> bool {
    let (name, _) = image.split_once('@').unwrap_or((image, ""));
    let path = name.rsplit_once('/').map_or(name, |(_, last)| last);
    let (last, tag) = path.split_once(':').unwrap_or((path, "x"));
    let start = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    !last.is_empty() && start(name) && start(last) && last.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)) && !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

struct Debug<'a> {
    args: &'a Args,
    words: &'a [String],
    profile: Profile,
    custom: Option<Value>,
    env: Vec<(String, String)>,
    images: Vec<(String, String)>,
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    let (names, words) = args.split();
    let debug = Debug { args, words, profile: Profile::of(args.text("profile"))?, custom: custom(args)?, env: pairs(args, "env")?, images: pairs(args, "set-image")? };
    debug.check(names)?;
    let attaches = if args.changed("attach") { args.on("attach") } else { args.on("stdin") };
    let targets: Vec<Result<Found>> = if args.changed("filename") {
        builder::resolve(session, args, names).await?
    } else {
        let mut found = Vec::new();
        for name in names {
            found.push(builder::one(session, name, "pods").await);
        }
        found
    };
    for target in targets {
        let target = target?;
        let (namespace, pod, container) = match (target.resource.kind.as_str(), target.resource.group.as_str()) {
            ("Pod", "") if args.given("copy-to").is_some() => debug.copy(session, &target).await?,
            ("Pod", "") => debug.ephemeral(session, &target).await?,
            ("Node", "") => debug.node(session, &target).await?,
            _ => return fail(format!("\"{}, Kind={}\" not supported by debug", target.resource.api_version(), target.resource.kind)),
        };
        if attaches && !container.is_empty() {
            join(session, args, &namespace, &pod, &container).await?;
        }
    }
    Ok(())
}

fn custom(args: &Args) -> Result<Option<Value>> {
    let Some(path) = args.given("custom") else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let reason = if error.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { error.to_string() };
        Error::Message(format!("must pass a container spec json file for custom profile: open {path}: {reason}"))
    })?;
    match crate::yaml::parse(&text) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => fail(format!("{path} does not contain a valid container spec: it is no object")),
        Err(error) => fail(format!("{path} does not contain a valid container spec: {error}")),
    }
}

impl Debug<'_> {
    fn check(&self, names: &[String]) -> Result<()> {
        let (args, given) = (self.args, |flag: &str| self.args.given(flag).is_some());
        if args.changed("attach") && args.on("attach") && !given("image") && !given("container") {
            return fail("you must specify --container or create a new container using --image in order to attach.");
        }
        if given("copy-to") {
            if !given("image") && self.images.is_empty() && self.words.is_empty() {
                return fail("you must specify --image, --set-image or command arguments.");
            }
            if !self.words.is_empty() && !given("container") && !given("image") {
                return fail("you must specify an existing container or a new image when specifying args.");
            }
        } else {
            for (wrong, flag) in [(args.on("replace"), "replace"), (args.on("same-node"), "same-node"), (!self.images.is_empty(), "set-image")] {
                if wrong {
                    return fail(format!("--{flag} may only be used with --copy-to."));
                }
            }
            if !given("image") {
                return fail("you must specify --image when not using --copy-to.");
            }
        }
        if let Some(image) = args.given("image").filter(|image| !image_name(image)) {
            return fail(format!("invalid image name {image:?}: invalid reference format"));
        }
        if names.is_empty() && !args.changed("filename") {
            return fail("NAME or filename is required for debug");
        }
        if !matches!(args.text("image-pull-policy"), "" | "Always" | "IfNotPresent" | "Never") {
            return fail(format!("invalid image pull policy: {}", args.text("image-pull-policy")));
        }
        if let Some((name, image)) = self.images.iter().find(|(_, image)| !image_name(image)) {
            return fail(format!("invalid image name {image:?} for container {name:?}: invalid reference format"));
        }
        if let Some(target) = args.given("target") {
            if given("copy-to") {
                return fail("--target is incompatible with --copy-to. Use --share-processes instead.");
            }
            if !args.on("quiet") {
                output::line(format!("Targeting container {target:?}. If you don't see processes from this container it may be because the container runtime doesn't support this feature."));
            }
        }
        if args.on("tty") && !args.on("stdin") {
            return fail("-i/--stdin is required for containers with -t/--tty=true");
        }
        if self.custom.as_ref().is_some_and(|custom| ["name", "command", "image", "lifecycle", "volumeDevices"].iter().any(|key| custom.get(key).is_some())) {
            return fail("name, command, image, lifecycle and volume devices are not modifiable via custom profile");
        }
        if self.profile == Profile::Legacy {
            output::complain("--profile=legacy is deprecated and planned to be removed in v1.39. It is recommended to specify other profile, for example \"--profile=general\".");
        }
        Ok(())
    }

    fn new_name(&self, pod: &Value) -> String {
        if let Some(name) = self.args.given("container") {
            return name.to_owned();
        }
        let taken = |name: &str| ["containers", "initContainers", "ephemeralContainers"].iter().any(|list| array(pod, &format!("/spec/{list}")).any(|container| at(container, "/name") == name));
        let name = loop {
            let name = format!("debugger-{}", suffix());
            if !taken(&name) {
                break name;
            }
        };
        if !self.args.on("quiet") {
            output::line(format!("Defaulting debug container name to {name}."));
        }
        name
    }

    /// What the flags say of the container.
    fn fill(&self, container: &mut Value) {
        let args = self.args;
        if !self.words.is_empty() {
            if args.on("arguments-only") {
                container["args"] = self.words.into();
            } else {
                container["command"] = self.words.into();
                if let Some(container) = container.as_object_mut() {
                    container.remove("args");
                }
            }
        }
        if !self.env.is_empty() {
            container["env"] = self.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        }
        for (flag, field) in [("image", "image"), ("image-pull-policy", "imagePullPolicy")] {
            if let Some(text) = args.given(flag) {
                container[field] = text.into();
            }
        }
        for field in ["stdin", "tty"] {
            if args.on(field) {
                container[field] = true.into();
            } else if let Some(container) = container.as_object_mut() {
                container.remove(field);
            }
        }
    }

    /// The profile, and what `--custom` changes of it.
    fn grant(&self, pod: &mut Value, list: &str, name: &str, style: Style) -> Result<()> {
        self.profile.apply(pod, list, name, style, self.args);
        let Some(custom) = &self.custom else { return Ok(()) };
        let container = profiles::container(pod, list, name);
        let Some(container) = container else { return fail(format!("unable to find the {name} container in the pod")) };
        patch::strategic(container, custom, api::schema::of("io.k8s.api.core.v1.Container")).map_err(|error| Error::Message(format!("error creating three way patch to add debug container: {error}")))
    }

    async fn ephemeral(&self, session: &Session, target: &Found) -> Result<(String, String, String)> {
        let name = self.new_name(&target.object);
        let mut container = json!({"name": name, "resources": {}, "terminationMessagePolicy": "File"});
        self.fill(&mut container);
        if let Some(other) = self.args.given("target") {
            container["targetContainerName"] = other.into();
        }
        let mut pod = target.object.clone();
        if !pod["spec"]["ephemeralContainers"].is_array() {
            pod["spec"]["ephemeralContainers"] = json!([]);
        }
        if let Some(list) = pod["spec"]["ephemeralContainers"].as_array_mut() {
            list.push(container);
        }
        self.grant(&mut pod, "ephemeralContainers", &name, Style::Ephemeral)?;
        warn(&pod, "ephemeralContainers", &name);
        let (kind, change) = change::difference(target, &pod)?;
        let answer = session.patch(&target.sub("ephemeralcontainers"), kind, &change).await;
        answer.map_err(|error| match error.status() {
            Some(status) if status.is_not_found() && status.details.name.is_empty() => Error::Message(format!("ephemeral containers are disabled for this cluster (error from server: {:?})", status.message)),
            _ => error,
        })?;
        Ok((target.namespace.clone().unwrap_or_default(), target.name.clone(), name))
    }

    async fn copy(&self, session: &Session, target: &Found) -> Result<(String, String, String)> {
        let args = self.args;
        let namespace = target.namespace.clone().unwrap_or_default();
        let mut metadata = Map::from_iter([("name".to_owned(), args.text("copy-to").into()), ("namespace".to_owned(), namespace.clone().into())]);
        for key in ["annotations", "labels"] {
            if let Some(texts) = target.object["metadata"].get(key) {
                metadata.insert(key.into(), texts.clone());
            }
        }
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": target.object["spec"]});
        if let Some(spec) = pod["spec"].as_object_mut() {
            spec.remove("ephemeralContainers");
            if args.changed("share-processes") {
                spec.insert("shareProcessNamespace".into(), args.on("share-processes").into());
            }
            if !args.on("same-node") {
                spec.remove("nodeName");
            }
        }
        let of = |name: &str| self.images.iter().rev().find(|(key, _)| key == name).or_else(|| self.images.iter().rev().find(|(key, _)| key == "*"));
        for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
            if let Some((_, image)) = of(at(container, "/name")) {
                container["image"] = image.clone().into();
            }
        }
        let mut name = args.text("container").to_owned();
        let list = if array(&pod, "/spec/initContainers").any(|container| at(container, "/name") == name) { "initContainers" } else { "containers" };
        if profiles::container(&mut pod, list, &name).is_none() {
            if args.given("image").is_none() {
                if self.images.is_empty() {
                    return fail("you must specify image when creating new container");
                }
                return self.submit_copy(session, target, &pod, String::new()).await;
            }
            name = self.new_name(&pod);
            if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
                containers.push(json!({"name": name, "resources": {}, "terminationMessagePolicy": "File"}));
            }
        }
        if let Some(container) = profiles::container(&mut pod, list, &name) {
            self.fill(container);
        }
        self.grant(&mut pod, list, &name, Style::Copy)?;
        warn(&pod, list, &name);
        self.submit_copy(session, target, &pod, name).await
    }

    async fn submit_copy(&self, session: &Session, target: &Found, pod: &Value, container: String) -> Result<(String, String, String)> {
        let namespace = target.namespace.clone().unwrap_or_default();
        session.post(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await?;
        if self.args.on("replace") {
            session.delete(&target.path(), &json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})).await?;
        }
        Ok((namespace, self.args.text("copy-to").to_owned(), container))
    }

    async fn node(&self, session: &Session, target: &Found) -> Result<(String, String, String)> {
        let namespace = session.namespace()?;
        let container = self.args.given("container").unwrap_or("debugger").to_owned();
        let name = format!("node-debugger-{}-{}", target.name, suffix());
        if !self.args.on("quiet") {
            output::line(format!("Creating debugging pod {name} with container {container} on node {}.", target.name));
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "kubectl-debug"}},
            "spec": {
                "containers": [{"name": container, "resources": {}, "terminationMessagePolicy": "File"}],
                "nodeName": target.name, "restartPolicy": "Never", "tolerations": [{"operator": "Exists"}],
            },
        });
        if let Some(made) = profiles::container(&mut pod, "containers", &container) {
            self.fill(made);
        }
        self.grant(&mut pod, "containers", &container, Style::Node)?;
        session.post(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).await?;
        Ok((namespace, name, container))
    }
}

/// Capabilities are nothing to a process that is not root's.
fn warn(pod: &Value, list: &str, name: &str) {
    let mut pod = pod.clone();
    if pod.pointer("/spec/securityContext/runAsUser").and_then(Value::as_i64).is_none_or(|user| user == 0) {
        return;
    }
    let Some(context) = profiles::container(&mut pod, list, name).and_then(|container| container.get("securityContext").cloned()) else { return };
    let granted = context["privileged"] == true || context.pointer("/capabilities/add").and_then(Value::as_array).is_some_and(|add| !add.is_empty());
    if context["runAsUser"] != 0 && granted {
        output::complain("Warning: Non-root user is configured for the entire target Pod, and some capabilities granted by debug profile may not work. Please consider using \"--custom\" with a custom profile that specifies \"securityContext.runAsUser: 0\".");
    }
}

fn status<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    ["/status/containerStatuses", "/status/initContainerStatuses", "/status/ephemeralContainerStatuses"].iter().flat_map(|list| array(pod, list)).find(|status| at(status, "/name") == container)
}

/// Waits until the container runs and joins it; of one that has ended it shows the log.
async fn join(session: &Session, args: &Args, namespace: &str, name: &str, container: &str) -> Result<()> {
    let resource = session.resource("pods").await?;
    let (mut last, mut told) = (Value::Null, String::new());
    change::until(session, &resource, Some(namespace), name, |pod| {
        let Some(pod) = pod else { return Err(api::Status::not_found("", "pods", "").into()) };
        let Some(status) = status(pod, container) else { return Ok(false) };
        last = pod.clone();
        if status.pointer("/state/running").is_some() || status.pointer("/state/terminated").is_some() {
            return Ok(true);
        }
        let message = at(status, "/state/waiting/message");
        if !args.on("quiet") && !message.is_empty() && told != message {
            output::complain(format!("Warning: container {container}: {message}"));
            message.clone_into(&mut told);
        }
        Ok(false)
    })
    .await?;
    if status(&last, container).is_some_and(|status| status.pointer("/state/terminated").is_none()) {
        match attach::to(session, &last, container, args.on("stdin"), args.on("tty"), args.on("quiet"), "").await {
            Ok(()) => return Ok(()),
            Err(error) => output::complain(format!("warning: couldn't attach to pod/{name}, falling back to streaming logs: {error}")),
        }
    }
    let path = Query::of(format!("/api/v1/namespaces/{namespace}/pods/{name}/log")).with("container", container).with("follow", "true").end();
    let mut response = session.open(Method::GET, &path, &[], Vec::new()).await?;
    while let Some(chunk) = response.chunk().await {
        output::write(&chunk.map_err(|error| Error::Message(error.to_string()))?);
    }
    Ok(())
}
