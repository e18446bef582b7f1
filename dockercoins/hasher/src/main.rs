//! hasher: `POST /` gives the SHA-256 of the body in hex after 0.1 s; many at once. Banner and access log as of the original.

use std::process::ExitCode;
use std::time::Duration;

use dockercoins_common::date::{date_and_time, now};
use dockercoins_common::serve::{Concurrency, Exchange, Request, Response, Service, serve};
use dockercoins_common::{hostname, port};
use sha2::{Digest, Sha256};

const DELAY: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain;charset=utf-8";

struct Hasher;

impl Service for Hasher {
    fn respond(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path()) {
            ("GET" | "HEAD", "/") => Response::ok("text/html;charset=utf-8", format!("HASHER running on {}\n", hostname())),
            ("POST", "/") => {
                // The delay is the service's work.
                std::thread::sleep(DELAY);
                let hash: String = Sha256::digest(&request.body).iter().map(|byte| format!("{byte:02x}")).collect();
                Response::ok(TEXT, hash)
            }
            _ => Response::new(404, "Not Found", "text/html;charset=utf-8", "Not Found\n"),
        }
    }

    fn log(&self, exchange: &Exchange<'_>) {
        let (date, time) = date_and_time(now() as u64);
        let Request { method, target, version, .. } = exchange.request;
        eprintln!(
            "{} - - [{date}:{time} +0000] \"{method} {target} {version}\" {} {} {:.4}",
            exchange.peer, exchange.status, exchange.length, exchange.seconds
        );
    }
}

fn main() -> ExitCode {
    let result = serve(port(), Concurrency::ThreadEach, &Hasher, |port| {
        eprintln!("== Sinatra (v3.2.0) has taken the stage on {port} for development with backup from Thin");
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
