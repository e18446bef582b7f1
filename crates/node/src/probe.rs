//! One probe, carried out once: exec, HTTP, TCP or gRPC. Mirrors upstream's pkg/probe, with its words for failures.

use std::time::Duration;

use api::k8s::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sandbox::cri::RuntimeError;

use crate::cx::Cx;
use crate::hooks::port;
use crate::probe_http::{self, Answer, Request, connect, joined};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// A success that is worth an event.
    Warning(String),
    Failure(String),
    /// Says nothing about the container.
    Unknown(String),
}

/// A gRPC answer larger than this is none.
const GRPC_ANSWER_MAX: usize = 64 * 1024;
const SERVING: u64 = 1;
/// Of one HTTP probe, redirects included (Go's default).
const REQUESTS_MAX: u32 = 10;

fn pod_ip(cx: &Cx) -> String {
    cx.pod_ips().into_iter().next().unwrap_or_default()
}

pub async fn run(cx: &Cx, id: &str, container: &Container, probe: &Probe) -> Outcome {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1);
    let timeout = Duration::from_secs(seconds);
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match cx.node.runtime.exec_sync(id, command.clone(), seconds).await {
            Ok(result) if result.exit_code == 0 => Outcome::Success,
            Ok(result) => Outcome::Failure([result.stdout, result.stderr].iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect()),
            Err(RuntimeError::Timeout(_)) => Outcome::Failure(format!("command timed out: {:?} timed out after {seconds}s", command.join(" "))),
            Err(error) => Outcome::Unknown(error.to_string()),
        };
    }
    if let Some(http) = &probe.http_get {
        return of_http(cx, container, http, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let Some(port) = port(container, &tcp.port) else { return Outcome::Unknown("invalid port".to_owned()) };
        let host = tcp.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| pod_ip(cx));
        return match tokio::time::timeout(timeout, connect(&host, port)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(why)) => Outcome::Failure(why),
            Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", joined(&host, port))),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let host = pod_ip(cx);
        return match tokio::time::timeout(timeout, of_grpc(&host, grpc)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failure(format!("timeout: failed to connect service {:?} within {seconds}s: context deadline exceeded", joined(&host, u16::try_from(grpc.port).unwrap_or(0)))),
        };
    }
    Outcome::Success
}

async fn of_http(cx: &Cx, container: &Container, http: &HTTPGetAction, timeout: Duration) -> Outcome {
    let Some(port) = port(container, &http.port) else { return Outcome::Unknown("invalid port".to_owned()) };
    let host = http.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| pod_ip(cx));
    let request = Request::of(http, &host, port);
    match tokio::time::timeout(timeout, following(&request)).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Outcome::Success,
        Ok(Ok(answer)) if (300..400).contains(&answer.status) => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        Ok(Ok(answer)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
        Ok(Err(why)) => Outcome::Failure(why),
        Err(_) => Outcome::Failure(format!("Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", request.url())),
    }
}

/// Follows redirects as long as they stay with the host asked first; one that leads away is the answer.
async fn following(first: &Request) -> Result<Answer, String> {
    let mut answer = probe_http::get(first).await?;
    let mut at = first.redirected(&first.path);
    for made in 1..=REQUESTS_MAX {
        let leads = matches!(answer.status, 301 | 302 | 303 | 307 | 308).then_some(answer.location.as_deref()).flatten();
        at = leads.zip(at).and_then(|(location, at)| at.redirected(location)).filter(|next| next.host == first.host);
        let Some(next) = &at else { return Ok(answer) };
        if made == REQUESTS_MAX {
            break;
        }
        answer = probe_http::get(next).await?;
    }
    Err(format!("Get {:?}: stopped after {REQUESTS_MAX} redirects", first.url()))
}

/// `grpc.health.v1.Health/Check` by hand: one string in, one number out.
async fn of_grpc(host: &str, grpc: &GRPCAction) -> Outcome {
    match grpc_status(host, grpc).await {
        Ok(SERVING) => Outcome::Success,
        Ok(status) => Outcome::Failure(format!("service unhealthy (responded with {:?})", match status {
            2 => "NOT_SERVING",
            3 => "SERVICE_UNKNOWN",
            _ => "UNKNOWN",
        })),
        Err(why) => Outcome::Failure(format!("error: health rpc probe failed: {why}")),
    }
}

async fn grpc_status(host: &str, grpc: &GRPCAction) -> Result<u64, String> {
    let port = u16::try_from(grpc.port).map_err(|e| e.to_string())?;
    let stream = connect(host, port).await?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    let result = async {
        let service = grpc.service.clone().unwrap_or_default().into_bytes();
        let mut message = Vec::with_capacity(service.len() + 8);
        if !service.is_empty() {
            // Field 1, length-delimited; service names are short (the length fits a byte or two).
            message.push(0x0a);
            let mut length = service.len();
            while length >= 0x80 {
                message.push((length as u8 & 0x7f) | 0x80);
                length >>= 7;
            }
            message.push(length as u8);
            message.extend_from_slice(&service);
        }
        let mut framed = vec![0u8];
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
        framed.extend_from_slice(&message);
        let request = hyper::Request::post(format!("http://{}/grpc.health.v1.Health/Check", joined(host, port)))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.36")
            .body(Full::new(Bytes::from(framed)))
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let header_status = answer.headers().get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let collected = Limited::new(answer.into_body(), GRPC_ANSWER_MAX).collect().await.map_err(|e| e.to_string())?;
        let status = header_status.or_else(|| collected.trailers().and_then(|t| t.get("grpc-status")).and_then(|v| v.to_str().ok()).map(str::to_owned));
        if let Some(status) = status.filter(|s| s != "0") {
            return Err(format!("rpc error: code = {status}"));
        }
        Ok(serving_status(&collected.to_bytes()))
    }
    .await;
    driver.abort();
    result
}

/// Field 1 as a varint, of a message behind a five-byte frame head. Absent means 0.
fn serving_status(framed: &[u8]) -> u64 {
    match framed.get(5..) {
        Some([0x08, value, ..]) => u64::from(*value),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_health_answer() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), 1);
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), 0);
        assert_eq!(serving_status(&[]), 0);
    }
}
