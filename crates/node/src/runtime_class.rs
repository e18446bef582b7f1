//! Which handlers a pod's RuntimeClass may name here: there is one runtime, under the two names it has on every upstream node.
//!
//! Mirrors upstream's `runtimeclass.Manager.LookupRuntimeHandler` and containerd's words for a handler it does not have.

use api::k8s::api::node::v1::RuntimeClass;

use crate::cx::Cx;
use crate::pod;

/// The default one, and what containerd calls it.
pub const HANDLERS: [&str; 2] = ["", "runc"];

/// Why the pod's sandbox cannot be had, if so.
pub async fn check(cx: &Cx) -> Result<(), String> {
    let Some(name) = pod::spec(&cx.pod).runtime_class_name.clone().filter(|name| !name.is_empty()) else { return Ok(()) };
    let class = cx.node.objects.get::<RuntimeClass>(None, &name).await?;
    known(&name, class.as_deref())
}

fn known(name: &str, class: Option<&RuntimeClass>) -> Result<(), String> {
    let class = class.ok_or_else(|| format!("failed to get sandbox runtime: runtimeclass.node.k8s.io {name:?} not found"))?;
    if HANDLERS.contains(&class.handler.as_str()) { Ok(()) } else { Err(format!("failed to get sandbox runtime: no runtime for {:?} is configured", class.handler)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is() {
        let class = |handler: &str| RuntimeClass { handler: handler.to_owned(), ..RuntimeClass::default() };
        assert_eq!(known("a", Some(&class("runc"))), Ok(()));
        assert_eq!(known("a", Some(&class("gvisor"))).unwrap_err(), "failed to get sandbox runtime: no runtime for \"gvisor\" is configured");
        assert_eq!(known("a", None).unwrap_err(), "failed to get sandbox runtime: runtimeclass.node.k8s.io \"a\" not found");
    }
}
