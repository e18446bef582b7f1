//! `kubectl kustomize`: prints what a kustomization builds.

use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::kustomize::{Options, build, text as shown};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[
    switch("as-current-user", "use the uid and gid of the command executor to run the function in the container"),
    switch("enable-alpha-plugins", "enable kustomize plugins"),
    switch("enable-helm", "Enable use of the Helm chart inflator generator."),
    switch("enable-managedby-label", "enable adding app.kubernetes.io/managed-by").hidden(),
    list("env", "a list of environment variables to be used by functions").short('e'),
    list("helm-api-versions", "Kubernetes api versions used by Helm for Capabilities.APIVersions"),
    text("helm-command", "helm", "helm command (path to executable)"),
    switch("helm-debug", "Enable debug output from the Helm chart inflator generator."),
    text("helm-kube-version", "", "Kubernetes version used by Helm for Capabilities.KubeVersion"),
    text("load-restrictor", "LoadRestrictionsRootOnly", "if set to 'LoadRestrictionsNone', local kustomizations may load files from outside their root. This does, however, break the relocatability of the kustomization."),
    list("mount", "a list of storage options read from the filesystem"),
    switch("network", "enable network access for functions that declare it"),
    text("network-name", "bridge", "the docker network to run the container in"),
    text("output", "", "If specified, write output to this path.").short('o'),
    text("reorder", "legacy", "Reorder the resources just before output.").hidden(),
];

command!(KUSTOMIZE, "kustomize", [], "DIR [flags] [options]", "Build a kustomization target from a directory or URL", [FLAGS], run);

async fn run(_: &Session, args: &Args) -> Result<()> {
    let folder = match &args.positional[..] {
        [] => ".",
        [one] => one,
        _ => return fail("specify one path to kustomization.yaml"),
    };
    let anywhere = match args.text("load-restrictor") {
        "LoadRestrictionsNone" | "none" => true,
        "LoadRestrictionsRootOnly" | "rootOnly" => false,
        other => return fail(format!("illegal flag value --load-restrictor {other}; legal values: [LoadRestrictionsRootOnly LoadRestrictionsNone]")),
    };
    let unsorted = match args.text("reorder") {
        "none" => true,
        "legacy" => false,
        other => return fail(format!("illegal flag value --reorder {other}; legal values: [legacy none]")),
    };
    for (flag, told) in [
        ("enable-managedby-label", "The flag `enable-managedby-label` has been deprecated. Use the `managedByLabel` option in the `buildMetadata` field instead."),
        ("reorder", "use the new 'sortOptions' field in kustomization.yaml instead."),
    ] {
        if args.changed(flag) {
            output::complain(format!("Flag --{flag} has been deprecated, {told}"));
        }
    }
    let objects = build(folder, Options { anywhere, unsorted, managed_by_label: args.on("enable-managedby-label") })?;
    let Some(path) = args.given("output") else {
        output::write(shown(&objects).as_bytes());
        return Ok(());
    };
    if !std::path::Path::new(path).is_dir() {
        std::fs::write(path, shown(&objects))?;
        return Ok(());
    }
    for object in &objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("").to_lowercase();
        let version = text("/apiVersion").replace('/', "_");
        let several = objects.iter().filter_map(|object| object.pointer("/metadata/namespace")).any(|namespace| Some(namespace) != objects[0].pointer("/metadata/namespace"));
        let namespace = if several { format!("{}_", text("/metadata/namespace")) } else { String::new() };
        std::fs::write(format!("{path}/{namespace}{version}_{}_{}.yaml", text("/kind"), text("/metadata/name")), crate::yaml::emit(object))?;
    }
    Ok(())
}
