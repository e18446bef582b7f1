//! Life-cycle hooks: postStart and preStop by exec, httpGet, tcpSocket or sleep. Mirrors upstream's lifecycle/handlers.go.

use std::time::Duration;

use api::k8s::api::core::v1::{Container, LifecycleHandler};
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;

use crate::cx::Cx;
use crate::probe_http;

/// A hook by HTTP or TCP gives up after this.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// A port by number or by the name a container gave it.
pub fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|p| *p > 0),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .and_then(|p| u16::try_from(p.container_port).ok())
            .or_else(|| name.parse().ok()),
    }
}

/// Runs it to its end. Errors are for the container's status.
pub async fn run(cx: &Cx, container_id: &str, container: &Container, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result = cx.node.runtime.exec_sync(container_id, command.clone(), 0).await.map_err(|e| e.to_string())?;
        if result.exit_code == 0 {
            return Ok(());
        }
        let output: String = [result.stdout, result.stderr].iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        return Err(format!("Exec lifecycle hook ({}) for Container {:?} failed - error: command '{}' exited with {}: {output}, message: {output:?}",
            command.join(" "), container.name, command.join(" "), result.exit_code));
    }
    if let Some(http) = &handler.http_get {
        let ip = cx.pod_ips().into_iter().next().unwrap_or_default();
        let host = http.host.clone().filter(|h| !h.is_empty()).unwrap_or(ip);
        let port = port(container, &http.port).ok_or_else(|| format!("invalid port number: {:?}", http.port))?;
        let request = probe_http::Request::of(http, &host, port);
        let answer = tokio::time::timeout(NETWORK_TIMEOUT, probe_http::get(&request)).await.map_err(|_| "hook timed out".to_owned())?;
        return answer.and_then(|answer| if answer.status < 400 { Ok(()) } else { Err(format!("HTTP lifecycle hook ({}) failed: status {}", request.path, answer.status)) });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if handler.tcp_socket.is_some() {
        return Err("tcpSocket hooks are not supported".to_owned());
    }
    Err("cannot run handler: {}".to_owned())
}
