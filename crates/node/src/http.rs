//! The kubelet's own HTTP API: logs, exec, attach, port-forward, pods, stats. Served over TLS on port 10250 and to the API server in the same process.
//!
//! Paths and answers mirror upstream's pkg/kubelet/server. Errors are `metav1.Status`, so that what the API server passes on is what clients know; those of
//! streams are plain text, as upstream's: clients show them after "unable to upgrade connection: ".

use client::BoxFuture;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use api::Typed as _;
use api::k8s::api::core::v1::{ContainerStatus as ApiStatus, Pod};
use api::{Reason, Status};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::{SignedDuration, Timestamp};
use sandbox::cri::{ContainerState, Runtime, StreamOptions, Streams};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::static_pods::is_of_file;
use crate::channels::{ERROR, Frame as ChannelFrame, STDERR, STDOUT};
use crate::cx::Cx;
use crate::log_line::Wanted;
use crate::node::Node;
use crate::upgrade::{self, Refused};
use crate::websocket::{self, PORT_FORWARD, REMOTE_COMMAND};
use crate::{cadvisor, forward, logs, pod, session, spdy_channels, stats};

pub type BoxBody = UnsyncBoxBody<Bytes, Infallible>;
pub type Answer = Response<BoxBody>;

/// Chunks of a log waiting for the reader.
const LOG_BACKLOG: usize = 8;

pub(crate) fn empty(status: StatusCode) -> Answer {
    full(status, "text/plain; charset=utf-8", Bytes::new())
}

pub(crate) fn full(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn text(body: impl Into<Bytes>) -> Answer {
    full(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn json(value: &Value) -> Answer {
    full(StatusCode::OK, "application/json", value.to_string())
}

fn refused(status: &Status) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    full(code, "application/json", serde_json::to_vec(status).unwrap_or_default())
}

/// Name and values of the query, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// As upstream: `1` or `true`.
    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v == "1" || v == "true")
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut rest = bytes.clone();
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        bytes = rest;
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Node {
    /// Answers one request of the kubelet's API. The caller has authenticated and authorised it.
    pub fn handle(self: Arc<Self>, request: Request<Incoming>) -> BoxFuture<'static, Answer> {
        Box::pin(self.answer(request))
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let query = Query::of(request.uri().query());
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let result = match (request.method(), parts.as_slice()) {
            (&Method::GET | &Method::HEAD, ["healthz" | "livez" | "readyz", ..]) => Ok(text("ok")),
            (&Method::GET, ["pods" | "runningpods"]) => Ok(json(&self.pod_list())),
            (&Method::GET, ["configz"]) => Ok(json(&json!({"kubeletconfig": self.config.settings.whole}))),
            (_, ["containerLogs" | "exec" | "attach" | "portForward" | "runningpods", ..]) if !self.config.settings.debugging_handlers => {
                Ok(full(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "Debug endpoints are disabled.\n"))
            }
            (&Method::GET, ["stats", "summary"]) => Ok(json(&stats::summary(&self).await)),
            (&Method::GET, ["metrics"]) => Ok(full(StatusCode::OK, "text/plain; version=0.0.4", stats::own_metrics(&self))),
            (&Method::GET, ["metrics", "cadvisor"]) => Ok(full(StatusCode::OK, "text/plain; version=0.0.4", cadvisor::metrics(&self).await)),
            (&Method::GET, ["metrics", "probes"]) => Ok(full(StatusCode::OK, "text/plain; version=0.0.4", self.measured.probes(|uid| self.all().iter().any(|cx| pod::uid(&cx.pod) == uid)))),
            (&Method::GET, ["metrics", "slis"]) => Ok(full(StatusCode::OK, "text/plain; version=0.0.4", basics::metrics::indicators())),
            (&Method::GET, ["metrics", "resource"]) => Ok(full(StatusCode::OK, "text/plain; version=0.0.4", stats::resource_metrics(&self).await)),
            (&Method::GET, ["containerLogs", namespace, name, container]) => self.container_logs(namespace, name, container, &query).await.map(|chunks| log_answer(&mut request, chunks)),
            (&Method::GET | &Method::POST, [verb @ ("exec" | "attach"), namespace, name, container] | [verb @ ("exec" | "attach"), namespace, name, _, container]) => {
                Ok(self.remote_command(&mut request, namespace, name, container, &query, *verb == "exec").unwrap_or_else(Answer::from))
            }
            (&Method::GET | &Method::POST, ["portForward", namespace, name] | ["portForward", namespace, name, _]) => {
                Ok(self.port_forward(&mut request, namespace, name, &query).unwrap_or_else(Answer::from))
            }
            _ => Err(Status::no_route()),
        };
        result.unwrap_or_else(|status| refused(&status))
    }

    fn pod_list(self: &Arc<Self>) -> Value {
        let items: Vec<Value> = self
            .all()
            .into_iter()
            .map(|cx| {
                let mut pod = (*cx.pod).clone();
                pod.status = Some(cx.shared.lock().status.clone());
                pod.to_value().unwrap_or_default()
            })
            .collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    fn pod(self: &Arc<Self>, namespace: &str, name: &str) -> Result<Cx, Status> {
        self.find(namespace, name, None).ok_or_else(|| Status::failure(404, Reason::NotFound, format!("pod does not exist: {name}_{namespace}")))
    }

    async fn container_logs(self: &Arc<Self>, namespace: &str, name: &str, container: &str, query: &Query) -> Result<mpsc::Receiver<Bytes>, Status> {
        if let Some(pod) = self.mirror(namespace, name).filter(|pod| !is_of_file(pod)) {
            let path = self.mirror_log(&pod, container, query.flag("previous"))?;
            return self.log_chunks(None, container.to_owned(), path, query, !query.flag("previous"));
        }
        let cx = self.pod(namespace, name)?;
        if pod::container(&cx.pod, container).is_none() {
            return Err(no_container(container, name));
        }
        let previous = query.flag("previous");
        let status = cx.shared.lock().status.clone();
        let id = log_container(&cx, &status, container, previous).map_err(Status::bad_request)?;
        let found = cx.shared.lock().runtime.by_id(&id).cloned();
        let found = match found {
            Some(found) => found,
            // Newer than what was last seen.
            None => self.runtime.container_status(&id).await.map_err(|error| Status::bad_request(error.to_string()))?,
        };
        self.log_chunks(Some(self.runtime.clone()), id, found.log_path, query, found.state != ContainerState::Exited)
    }

    /// The file a part of this process writes to in place of the container its mirror pod shows.
    fn mirror_log(&self, pod: &Pod, container: &str, previous: bool) -> Result<PathBuf, Status> {
        let name = pod::name(pod);
        if pod::container(pod, container).is_none() {
            return Err(no_container(container, name));
        }
        let status = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).find(|status| status.name == container);
        let attempt = status.map_or(0, |status| status.restart_count) - i32::from(previous);
        let path = pod::log_file(&self.config.log_dir, pod, container, attempt);
        match (attempt >= 0 && path.exists(), previous) {
            (true, _) => Ok(path),
            (false, true) => Err(Status::bad_request(format!("previous terminated container {container:?} in pod {name:?} not found"))),
            (false, false) => Err(Status::bad_request(format!("container {container:?} in pod {name:?} is not available"))),
        }
    }

    /// `runtime` and `id` tell when the container ends; without a runtime it lives as long as this process.
    fn log_chunks(&self, runtime: Option<Arc<dyn Runtime>>, id: String, path: PathBuf, query: &Query, grows: bool) -> Result<mpsc::Receiver<Bytes>, Status> {
        let number = |name: &str| query.get(name).and_then(|v| v.parse::<u64>().ok());
        let since = match (number("sinceSeconds"), query.get("sinceTime")) {
            (Some(seconds), _) => self.now().checked_sub(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))).ok(),
            (None, Some(time)) => Some(time.parse::<Timestamp>().map_err(|_| Status::bad_request(format!("parsing time {time:?}: invalid")))?),
            (None, None) => None,
        };
        let stream = query.get("stream").filter(|s| *s != "All").map(str::to_lowercase);
        let options = logs::Options {
            wanted: Wanted { since, timestamps: query.flag("timestamps"), stream, limit_bytes: number("limitBytes") },
            tail_lines: number("tailLines"),
            follow: query.flag("follow") && grows,
        };
        let (sender, receiver) = mpsc::channel(LOG_BACKLOG);
        tokio::spawn(logs::read(runtime, id, path, options, sender));
        Ok(receiver)
    }

    fn streamed(self: &Arc<Self>, namespace: &str, name: &str) -> Result<Cx, Refused> {
        self.find(namespace, name, None).ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "pod does not exist"))
    }

    fn remote_command(self: &Arc<Self>, request: &mut Request<Incoming>, namespace: &str, name: &str, container: &str, query: &Query, is_exec: bool) -> Result<Answer, Refused> {
        let either = |a: &str, b: &str| query.flag(a) || query.flag(b);
        let tty = query.flag("tty");
        let options = StreamOptions { stdin: either("input", "stdin"), stdout: either("output", "stdout"), stderr: either("error", "stderr") && !tty, tty };
        if !options.stdin && !options.stdout && !options.stderr {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"));
        }
        let cx = self.streamed(namespace, name)?;
        let running = cx.shared.lock().runtime.latest(container).filter(|c| c.state == ContainerState::Running).map(|c| c.id.clone());
        let id = running.ok_or_else(|| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})")))?;
        let command = query.all("command");
        let runtime = self.runtime.clone();
        let (wanted, asked) = (options.clone(), options.clone());
        let session = move |channels| async move {
            let streams = if is_exec {
                runtime.exec(&id, command.clone(), asked).await
            } else {
                // The end of the container is the end of the session, whatever its exit code: that one is in the pod's status.
                runtime.attach(&id, asked).await.map(|streams| Streams { exit: Box::pin(async { streams.exit.await.map(|_| 0) }), ..streams })
            };
            session::run(channels, streams, command).await;
        };
        if !websocket::is_websocket(request.headers()) {
            return upgrade::spdy(request, &spdy_channels::PROTOCOLS, move |io, protocol| spdy_channels::serve(io, protocol, wanted, session));
        }
        websocket::channels(request, &REMOTE_COMMAND, move |channels| async move {
            // Says that the connection stands.
            let lowest = if wanted.stdout { STDOUT } else if wanted.stderr { STDERR } else { ERROR };
            if channels.outgoing.send(ChannelFrame::Data(lowest, Bytes::new())).await.is_ok() {
                session(channels).await;
            }
        })
    }

    fn port_forward(self: &Arc<Self>, request: &mut Request<Incoming>, namespace: &str, name: &str, query: &Query) -> Result<Answer, Refused> {
        let tunnelled = websocket::tunnelled(request.headers(), forward::PROTOCOL).transpose()?;
        let with_channels = tunnelled.is_none() && websocket::is_websocket(request.headers());
        let ports = if with_channels { forwarded_ports(query)? } else { Vec::new() };
        let cx = self.streamed(namespace, name)?;
        let sandbox = cx.shared.lock().runtime.sandbox().map(|s| s.id.clone());
        let sandbox_id = sandbox.ok_or_else(|| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to find sandbox for pod {name}")))?;
        let target = forward::Target { runtime: self.runtime.clone(), sandbox_id, pod: name.to_owned(), uid: pod::uid(&cx.pod).to_owned() };
        match tunnelled {
            Some(protocol) => websocket::tunnel(request, protocol, move |io| forward::streams(io, target)),
            None if with_channels => websocket::channels(request, &PORT_FORWARD, move |channels| forward::channels(channels, target, ports)),
            None => upgrade::spdy(request, &[forward::PROTOCOL], move |io, _| forward::streams(io, target)),
        }
    }
}

/// The ports of a WebSocket with channels: `port=80&port=90,100`.
fn forwarded_ports(query: &Query) -> Result<Vec<u16>, Refused> {
    let bad = |text: String| Refused::new(StatusCode::BAD_REQUEST, text);
    let given = [query.all("port"), query.all("ports")].concat();
    if given.is_empty() {
        return Err(bad("query parameter \"port\" is required".to_owned()));
    }
    let mut ports = Vec::new();
    for list in &given {
        if list.is_empty() {
            return Err(bad("query parameter \"port\" cannot be empty".to_owned()));
        }
        for port in list.split(',') {
            match port.parse::<u16>() {
                Ok(0) => return Err(bad(format!("port {list:?} must be > 0"))),
                Ok(port) => ports.push(port),
                Err(_) => return Err(bad(format!("unable to parse {list:?} as a port: strconv.ParseUint: parsing {port:?}: invalid syntax"))),
            }
        }
    }
    if ports.len() > forward::PORTS_MAX {
        return Err(bad(format!("at most {} ports can be forwarded at once", forward::PORTS_MAX)));
    }
    Ok(ports)
}

/// A log as it is read: a body, or a WebSocket's messages.
fn log_answer(request: &mut Request<Incoming>, chunks: mpsc::Receiver<Bytes>) -> Answer {
    if websocket::is_websocket(request.headers()) {
        return websocket::reader(request, chunks).unwrap_or_else(Answer::from);
    }
    let frames = futures_util::stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|bytes| (Ok(Frame::data(bytes)), chunks)) });
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

fn no_container(container: &str, pod: &str) -> Status {
    Status::failure(404, Reason::NotFound, format!("container {container:?} not found in pod {pod:?}"))
}

/// The ID of the container whose log is meant; else upstream's words of why there is none.
fn log_container(cx: &Cx, status: &api::k8s::api::core::v1::PodStatus, container: &str, previous: bool) -> Result<String, String> {
    let name = pod::name(&cx.pod);
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found: Option<&ApiStatus> = lists.into_iter().flatten().flatten().find(|s| s.name == container);
    let found = found.ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"))?;
    let scheme = cx.node.container_id_scheme();
    let bare = |id: Option<&String>| id.and_then(|id| id.strip_prefix(scheme)).map(str::to_owned);
    let ended = |state: Option<&api::k8s::api::core::v1::ContainerState>| bare(state.and_then(|s| s.terminated.as_ref()).and_then(|t| t.container_id.as_ref()));
    let (last, state) = (found.last_state.as_ref(), found.state.as_ref());
    if previous {
        return ended(last).ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    let waiting = state.and_then(|s| s.waiting.as_ref());
    match (waiting, ended(last)) {
        (Some(_), Some(id)) => Ok(id),
        (Some(waiting), None) => {
            let why = match waiting.reason.as_deref().unwrap_or_default() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            Err(format!("container {container:?} in pod {name:?} is waiting to start: {why}"))
        }
        (None, _) => bare(found.container_id.as_ref()).ok_or_else(|| format!("container {container:?} in pod {name:?} is not available")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Query::of(Some("command=sh&command=-c&command=echo+a%26b%zz&tty=1&stdin=false"));
        assert_eq!(query.all("command"), ["sh", "-c", "echo a&b%zz"]);
        assert!(query.flag("tty") && !query.flag("stdin") && !query.flag("none"));
    }
}
