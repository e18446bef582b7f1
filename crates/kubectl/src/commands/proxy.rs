//! `kubectl proxy`: the API server without its credentials, for this machine's programs and browsers.
//!
//! Mirrors k8s.io/kubectl/pkg/proxy: filters by path, host and method, static files, a TCP port or a Unix socket. Each request has a connection of its own to the server,
//! and what follows its head is passed on as it comes; so watches, logs and upgrades work, and the client connects anew for its next request.

mod files;

use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use regex::Regex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[
    text("accept-hosts", r"^localhost$,^127\.0\.0\.1$,^\[::1\]$", "Regular expression for hosts that the proxy should accept."),
    text("accept-paths", "^.*", "Regular expression for paths that the proxy should accept."),
    text("address", "127.0.0.1", "The IP address on which to serve on."),
    text("api-prefix", "/", "Prefix to serve the proxied API under."),
    switch("append-server-path", "If true, enables automatic path appending of the kube context server path to each request."),
    switch("disable-filter", "If true, disable request filtering in the proxy. This is dangerous."),
    text("keepalive", "0s", "keepalive specifies the keep-alive period for an active network connection."),
    text("port", "8001", "The port on which to run the proxy. Set to 0 to pick a random port.").short('p'),
    text("reject-methods", "^$", "Regular expression for HTTP methods that the proxy should reject (example --reject-methods='POST,PUT,PATCH'). "),
    text("reject-paths", "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach", "Regular expression for paths that the proxy should reject."),
    text("unix-socket", "", "Unix socket on which to run the proxy.").short('u'),
    text("www", "", "Also serve static files from the given directory under the specified prefix.").short('w'),
    text("www-prefix", "/static/", "Prefix to serve static files under, if static file directory is specified.").short('P'),
];
command!(PROXY, "proxy", [], "[--port=PORT] [--www=static-dir] [--www-prefix=prefix] [--api-prefix=prefix] [options]", "Run a proxy to the Kubernetes API server", [FLAGS], run);

/// A request's head may be this long.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const CHUNK: usize = 16 * 1024;

/// Who may ask for what.
struct Filter {
    accept_paths: Vec<Regex>,
    reject_paths: Vec<Regex>,
    accept_hosts: Vec<Regex>,
    reject_methods: Vec<Regex>,
}

fn patterns(text: &str) -> Result<Vec<Regex>> {
    let compile = |part: &str| Regex::new(part).map_err(|error| Error::Message(format!("Error compiling re: {error}")));
    if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(compile).collect() }
}

impl Filter {
    fn of(args: &Args) -> Result<Option<Self>> {
        if args.on("disable-filter") {
            if args.given("unix-socket").is_none() {
                output::complain("Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious");
            }
            return Ok(None);
        }
        let list = |flag: &str| patterns(args.text(flag));
        Ok(Some(Self { accept_paths: list("accept-paths")?, reject_paths: list("reject-paths")?, accept_hosts: list("accept-hosts")?, reject_methods: list("reject-methods")? }))
    }

    fn accepts(&self, method: &str, path: &str, host: &str) -> bool {
        let any = |patterns: &[Regex], text: &str| patterns.iter().any(|pattern| pattern.is_match(text));
        // With a port, the brackets around an IPv6 address are gone in Go's eyes; both forms are meant.
        let host_fits = any(&self.accept_hosts, host) || host.contains(':') && any(&self.accept_hosts, &format!("[{host}]"));
        !any(&self.reject_paths, path) && !any(&self.reject_methods, method) && any(&self.accept_paths, path) && host_fits
    }
}

/// A host without its port.
fn bare_host(header: &str) -> &str {
    match header.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((host, _)) => host,
        None if header.starts_with('[') => header,
        None => header.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(header, |(host, _)| host),
    }
}

fn slashed(prefix: &str) -> String {
    if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") }
}

struct Proxy<'a> {
    session: &'a Session,
    filter: Option<Filter>,
    api_prefix: String,
    files: Option<(String, PathBuf)>,
    append_server_path: bool,
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    args.none()?;
    session.http()?;
    if args.changed("port") && args.text("port") != "8001" && args.given("unix-socket").is_some() {
        return fail("cannot set --unix-socket and --port at the same time");
    }
    let proxy = Proxy {
        session,
        filter: Filter::of(args)?,
        api_prefix: slashed(args.text("api-prefix")),
        files: args.given("www").map(|folder| (slashed(args.text("www-prefix")), PathBuf::from(folder))),
        append_server_path: args.on("append-server-path"),
    };
    if let Some(path) = args.given("unix-socket") {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path).map_err(|error| Error::Message(format!("listen unix {path}: bind: {error}")))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        output::line(format!("Starting to serve on {path}"));
        let mut serving = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => serving.push(proxy.serve(accepted?.0)),
                Some(()) = serving.next(), if !serving.is_empty() => {}
            }
        }
    }
    let port = args.int("port")?;
    if u16::try_from(port).is_err() {
        return fail(format!("listen tcp: address {port}: invalid port"));
    }
    let address = format!("{}:{port}", args.text("address"));
    let listener = TcpListener::bind(&address).await.map_err(|error| {
        let reason = if error.kind() == std::io::ErrorKind::AddrInUse { "address already in use".to_owned() } else { error.to_string() };
        Error::Message(format!("listen tcp {address}: bind: {reason}"))
    })?;
    output::line(format!("Starting to serve on {}", listener.local_addr()?));
    let mut serving = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => serving.push(proxy.serve(accepted?.0)),
            Some(()) = serving.next(), if !serving.is_empty() => {}
        }
    }
}

/// A request's first line and headers.
struct Head {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers = lines.filter(|line| !line.is_empty()).map(|line| line.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))).collect::<Option<_>>()?;
        Some(Self { method, target, headers })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn upgrades(&self) -> bool {
        self.header("connection").to_ascii_lowercase().contains("upgrade") && !self.header("upgrade").is_empty()
    }
}

pub fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn plain(status: &str, text: &str) -> Vec<u8> {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n").as_bytes())
}

impl Proxy<'_> {
    async fn serve(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        let mut chunk = vec![0; CHUNK];
        let end = loop {
            if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            match client.read(&mut chunk).await {
                Ok(count) if count > 0 && head.len() + count <= HEAD_BYTES_MAX => head.extend_from_slice(&chunk[..count]),
                _ => return,
            }
        };
        let rest = head.split_off(end + 4);
        let refusal = match Head::parse(&head[..end]) {
            None => plain("400 Bad Request", "400 Bad Request"),
            Some(head) => match self.pass(&mut client, &head, &rest).await {
                Ok(None) => return,
                Ok(Some(answer)) => answer,
                Err(error) => plain("500 Internal Server Error", &error.to_string()),
            },
        };
        // Whoever went away hears nothing.
        let _ = client.write_all(&refusal).await;
        let _ = client.shutdown().await;
    }

    /// Passes a request on, or says what to answer instead.
    async fn pass(&self, client: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &Head, rest: &[u8]) -> Result<Option<Vec<u8>>> {
        let (path, query) = head.target.split_once('?').map_or((head.target.as_str(), None), |(path, query)| (path, Some(query)));
        if let Some((prefix, folder)) = &self.files
            && path.starts_with(prefix.as_str())
            && prefix.len() >= self.api_prefix.len()
        {
            return Ok(Some(files::serve(folder, &path[prefix.len()..], path)));
        }
        let Some(below) = path.strip_prefix(&self.api_prefix) else { return Ok(Some(plain("404 Not Found", "404 page not found"))) };
        let path = if self.api_prefix.starts_with("/api") { path.to_owned() } else { format!("/{below}") };
        if self.filter.as_ref().is_some_and(|filter| !filter.accepts(&head.method, &path, bare_host(head.header("host")))) {
            return Ok(Some(plain("403 Forbidden", "Forbidden")));
        }
        let http = self.session.http()?;
        let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        let target = if self.append_server_path { http.path(&target) } else { target };
        let mut request = format!("{} {target} HTTP/1.1\r\nHost: {}\r\n", head.method, http.authority());
        for (name, value) in &head.headers {
            if !["host", "connection", "keep-alive", "proxy-connection"].contains(&name.to_ascii_lowercase().as_str()) {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let common = http.common_headers().await.map_err(|error| Error::Message(error.to_string()))?;
        for (name, value) in &common {
            if head.header(name.as_str()).is_empty()
                && let Ok(value) = value.to_str()
            {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        request.push_str(if head.upgrades() { "Connection: Upgrade\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        let failed = |error: &dyn std::fmt::Display| Error::Message(error.to_string());
        let mut server = http.raw().await.map_err(|error| failed(&error))?;
        server.write_all(request.as_bytes()).await?;
        server.write_all(rest).await?;
        server.flush().await?;
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let up = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            // A client that says no more may still listen.
            std::future::pending::<()>().await;
        };
        let down = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            let _ = to_client.shutdown().await;
        };
        tokio::select! {
            () = up => {}
            () = down => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classic::Dialect;
    use crate::command::ROOT;

    #[test]
    fn who_may_ask_for_what() {
        let args = |line: &str| Args::parse_in(&ROOT, line.split(' ').map(str::to_owned).collect(), Dialect::Modern).unwrap();
        let usual = Filter::of(&args("proxy")).unwrap().unwrap();
        let read_only = Filter::of(&args("proxy --reject-methods=POST,PUT --accept-paths=^/api/v1/pods --accept-hosts=^.*$")).unwrap().unwrap();
        for (filter, method, path, host, want) in [
            (&usual, "GET", "/api/v1/pods", "localhost", true),
            (&usual, "GET", "/api/v1/pods", "127.0.0.1", true),
            (&usual, "GET", "/api/v1/pods", "::1", true),
            (&usual, "GET", "/api/v1/pods", "evil.example.com", false),
            (&usual, "POST", "/api/v1/namespaces/default/pods/x/exec", "localhost", false),
            (&usual, "POST", "/api/v1/namespaces/default/pods/x/attach", "localhost", false),
            (&read_only, "POST", "/api/v1/pods", "x", false),
            (&read_only, "GET", "/api/v1/pods", "x", true),
            (&read_only, "GET", "/api/v1/services", "x", false),
        ] {
            assert_eq!(filter.accepts(method, path, host), want, "{method} {path} {host}");
        }
        for (header, want) in [("localhost:8001", "localhost"), ("localhost", "localhost"), ("[::1]:8001", "::1"), ("[::1]", "[::1]"), ("127.0.0.1:1", "127.0.0.1")] {
            assert_eq!(bare_host(header), want);
        }
    }
}
