//! rng: `GET /<n>` gives n random bytes after 0.1 s, strictly one request at a time.
//!
//! That is the bottleneck the workshop is about (ten workers, one rng: ten hashes a second). The access log is that of
//! werkzeug, as of the original.

use std::process::ExitCode;
use std::time::Duration;

use dockercoins_common::date::{date_and_time, now};
use dockercoins_common::serve::{Concurrency, Exchange, Request, Response, Service, serve};
use dockercoins_common::{debug, hostname, port};

const DELAY: Duration = Duration::from_millis(100);
const BYTES_MAX: usize = 64 << 20;
const HTML: &str = "text/html; charset=utf-8";

struct Rng;

impl Service for Rng {
    fn respond(&self, request: &Request) -> Response {
        let path = request.path();
        let number = path.strip_prefix('/').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if path != "/" && number.is_none() {
            return not_found();
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Response::new(405, "METHOD NOT ALLOWED", HTML, "Method Not Allowed\n").header("Allow", "GET, HEAD");
        }
        let Some(number) = number else {
            return Response::ok(HTML, format!("RNG running on {}\n", hostname()));
        };
        let Some(count) = number.parse().ok().filter(|n| *n <= BYTES_MAX) else { return not_found() };
        // The delay is the service's work: what makes it a bottleneck.
        std::thread::sleep(DELAY);
        let mut bytes = vec![0; count];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Response::ok("application/octet-stream", bytes),
            Err(e) => Response::new(500, "INTERNAL SERVER ERROR", HTML, format!("{e}\n")),
        }
    }

    fn log(&self, exchange: &Exchange<'_>) {
        let (date, time) = date_and_time(now() as u64);
        let Request { method, target, version, .. } = exchange.request;
        eprintln!("{} - - [{date} {time}] \"{method} {target} {version}\" {} -", exchange.peer, exchange.status);
        if debug() {
            eprintln!("DEBUG: {} bytes in {:.4} s", exchange.length, exchange.seconds);
        }
    }

    fn version(&self) -> &'static str {
        "HTTP/1.0"
    }
}

fn not_found() -> Response {
    Response::new(404, "NOT FOUND", HTML, "Not Found\n")
}

fn main() -> ExitCode {
    let result = serve(port(), Concurrency::OneAtATime, &Rng, |port| {
        eprintln!(" * Debug mode: {}", if debug() { "on" } else { "off" });
        eprintln!(" * Running on http://0.0.0.0:{port}/ (Press CTRL+C to quit)");
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
