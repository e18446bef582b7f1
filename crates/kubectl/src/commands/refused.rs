//! Commands of upstream's that are not here, refused by name and with what to do instead; and `options`, `plugin list`.

use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::Args;
use crate::session::Session;

command!(DEBUG, "debug", [], "(POD | TYPE[[.VERSION].GROUP]/NAME) [ -- COMMAND [args...] ]", "Create debugging sessions for troubleshooting workloads and nodes", [LOOSE], debug);
command!(PROXY, "proxy", [], "[--port=PORT]", "Run a proxy to the Kubernetes API server", [&[crate::flags::text("port", "8001", "The port on which to run the proxy.").short('p')]], proxy);
command!(KUSTOMIZE, "kustomize", [], "DIR [flags]", "Build a kustomization target from a directory or URL", [LOOSE], kustomize);
command!(PLUGIN, "plugin", [], "[flags]", "Provides utilities for interacting with plugins", [], plugin);
command!(OPTIONS, "options", [], "", "List of all global command-line options that apply to all commands", [], options);

const LOOSE: &[crate::flags::Flag] = &[
    crate::flags::text("image", "", "Container image to use for debug container."),
    crate::flags::switch("stdin", "Keep stdin open.").short('i'),
    crate::flags::switch("tty", "Allocate a TTY.").short('t'),
    crate::flags::text("target", "", "Container whose processes the debugger shall see."),
];

async fn debug(_: &Session, _: &Args) -> Result<()> {
    fail("kubectl debug is not part of Coracle's kubectl yet; try: kubectl exec -it POD -- sh, or kubectl run -it --rm debug --image=alpine -- sh")
}

async fn proxy(_: &Session, _: &Args) -> Result<()> {
    fail("kubectl proxy is not part of Coracle's kubectl yet; for single requests, try: kubectl get --raw PATH")
}

async fn kustomize(_: &Session, _: &Args) -> Result<()> {
    fail("kustomize is not part of Coracle's kubectl; use the kustomize program and pipe what it prints to: kubectl apply -f -")
}

async fn plugin(_: &Session, _: &Args) -> Result<()> {
    fail("plugins are not run by Coracle's kubectl; call them by their full name (kubectl-NAME)")
}

async fn options(_: &Session, _: &Args) -> Result<()> {
    crate::output::write(crate::command::global_options().as_bytes());
    Ok(())
}
