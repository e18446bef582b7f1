//! webui: the page with the live graph, and `/json` with what is in redis. Files are read anew for each request, so that a
//! mounted folder can be edited.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use dockercoins_common::date::now;
use dockercoins_common::port;
use dockercoins_common::redis::{Redis, RedisError};
use dockercoins_common::serve::{Concurrency, Exchange, Request, Response, Service, serve};

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

struct WebUi {
    redis: Mutex<Redis>,
    files: PathBuf,
}

impl WebUi {
    fn json(&self) -> Result<String, RedisError> {
        // A thread that panicked while holding it left at most a dropped connection behind.
        let mut redis = self.redis.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let coins = redis.number(&[b"HLEN", b"wallet"])?;
        let hashes = redis.text(&[b"GET", b"hashes"])?;
        Ok(document(coins, hashes.as_deref(), now()))
    }

    fn file(&self, path: &str) -> Option<Response> {
        let mut file = self.files.clone();
        for component in Path::new(path.trim_start_matches('/')).components() {
            match component {
                Component::Normal(name) => file.push(name),
                Component::CurDir => {}
                _ => return None,
            }
        }
        let content_type = match file.extension().and_then(|e| e.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "application/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("json") => JSON,
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("ico") => "image/x-icon",
            _ => "application/octet-stream",
        };
        fs::metadata(&file).ok().filter(|m| m.is_file())?;
        Some(Response::ok(content_type, fs::read(&file).ok()?).header("Cache-Control", "public, max-age=0"))
    }
}

impl Service for WebUi {
    fn respond(&self, request: &Request) -> Response {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Response::new(404, "Not Found", TEXT, format!("Cannot {} {}\n", request.method, request.path()));
        }
        match request.path() {
            "/" => Response::new(302, "Found", TEXT, "Found. Redirecting to /index.html").header("Location", "/index.html"),
            "/json" => match self.json() {
                Ok(body) => Response::ok(JSON, body).header("Cache-Control", "no-store"),
                Err(e) => {
                    eprintln!("Redis error {e}");
                    Response::new(500, "Internal Server Error", JSON, format!("{{\"error\":{}}}", quoted(&e.to_string())))
                }
            },
            path => self.file(path).unwrap_or_else(|| Response::new(404, "Not Found", TEXT, format!("Cannot GET {path}\n"))),
        }
    }

    /// The original writes no access log.
    fn log(&self, _exchange: &Exchange<'_>) {}
}

/// `hashes` is a string, as redis keeps it, or null before the first one.
fn document(coins: i64, hashes: Option<&str>, now: f64) -> String {
    let hashes = hashes.map_or("null".to_owned(), quoted);
    format!("{{\"coins\":{coins},\"hashes\":{hashes},\"now\":{now:.3}}}")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

fn main() -> ExitCode {
    let var = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let webui = WebUi { redis: Mutex::new(Redis::new(&var("REDIS_URL", "redis://redis:6379"))), files: var("FILES", "/files").into() };
    match serve(port(), Concurrency::ThreadEach, &webui, |port| println!("WEBUI running on port {port}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        assert_eq!(document(3, Some("42"), 1.5), r#"{"coins":3,"hashes":"42","now":1.500}"#);
        assert_eq!(document(0, None, 0.0), r#"{"coins":0,"hashes":null,"now":0.000}"#);
        assert_eq!(quoted("a\"\\\n"), r#""a\"\\\u000a""#);
    }

    #[test]
    fn files_stay_inside() {
        let webui = WebUi { redis: Mutex::new(Redis::new("redis")), files: concat!(env!("CARGO_MANIFEST_DIR"), "/files").into() };
        for file in ["/index.html", "/jquery.js", "/d3.min.js", "/rickshaw.min.js", "/rickshaw.min.css"] {
            assert!(webui.file(file).is_some(), "{file}");
        }
        for path in ["/../Cargo.toml", "/", "/nope", "/x/../../src/main.rs"] {
            assert!(webui.file(path).is_none(), "{path}");
        }
        let page = String::from_utf8(webui.file("/index.html").unwrap().body).unwrap();
        assert!(page.contains("<title>DockerCoin Miner WebUI</title>"));
        assert!(!page.contains("://"), "nothing is loaded from elsewhere");
    }
}
