//! worker: asks rng for bytes, hasher for their hash, and counts in redis; for ever.
//!
//! Any failure is logged with its causes, then it waits 10 s and starts again. It takes no notice of SIGTERM: as PID 1
//! without a handler the kernel drops the signal, which is what the lesson shows (pods stay Terminating for 30 s).

use std::error::Error;
use std::time::{Duration, Instant};

use dockercoins_common::client::{RequestError, request};
use dockercoins_common::debug;
use dockercoins_common::redis::{RedisError, Redis};

const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
const RESTART_DELAY: Duration = Duration::from_secs(10);
/// When WORK_PAUSE is not set.
const PAUSE: Duration = Duration::from_millis(100);

struct Worker {
    rng: String,
    hasher: String,
    redis: Redis,
    /// `WORK_PAUSE`, in seconds: the lesson's knob.
    pause: Duration,
}

/// What went wrong, and during what.
struct Failure {
    during: &'static str,
    kind: &'static str,
    cause: Box<dyn Error>,
}

impl Worker {
    fn from_env() -> Worker {
        let var = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Worker {
            rng: var("RNG_URL", "http://rng"),
            hasher: var("HASHER_URL", "http://hasher"),
            redis: Redis::new(&var("REDIS_URL", "redis://redis:6379")),
            pause: std::env::var("WORK_PAUSE").ok().and_then(|p| pause(&p)).unwrap_or(PAUSE),
        }
    }

    fn work_loop(&mut self) -> Result<(), Failure> {
        let mut next_update = Instant::now();
        let mut units = 0u64;
        loop {
            if Instant::now() >= next_update {
                info(&format!("{units} units of work done, updating hash counter"));
                self.redis
                    .number(&[b"INCRBY", b"hashes", units.to_string().as_bytes()])
                    .map_err(|e| redis_failure("updating the hash counter", e))?;
                units = 0;
                next_update = Instant::now() + UPDATE_INTERVAL;
            }
            self.work_once()?;
            units += 1;
        }
    }

    fn work_once(&mut self) -> Result<(), Failure> {
        debug_line("Doing one unit of work");
        // The pause is part of the work: the lesson changes it to make a slower worker.
        std::thread::sleep(self.pause);
        let bytes = request("GET", &self.rng, "/32", None).map_err(|e| http_failure("getting random bytes", e))?;
        let hash = request("POST", &self.hasher, "/", Some(("application/octet-stream", &bytes)))
            .map_err(|e| http_failure("hashing them", e))?;
        if !hash.starts_with(b"0") {
            debug_line("No coin found");
            return Ok(());
        }
        info(&format!("Coin found: {}...", String::from_utf8_lossy(&hash[..hash.len().min(8)])));
        let created =
            self.redis.number(&[b"HSET", b"wallet", &hash, &bytes]).map_err(|e| redis_failure("putting the coin into the wallet", e))?;
        if created == 0 {
            info("We already had that coin");
        }
        Ok(())
    }
}

fn http_failure(during: &'static str, e: RequestError) -> Failure {
    let kind = if matches!(e, RequestError::Resolve(_)) { "NameResolutionError" } else { "ConnectionError" };
    Failure { during, kind, cause: e.into() }
}

fn redis_failure(during: &'static str, e: RedisError) -> Failure {
    let kind = match e {
        RedisError::Connect(RequestError::Resolve(_)) => "NameResolutionError",
        RedisError::Server(_) => "ResponseError",
        _ => "ConnectionError",
    };
    Failure { during, kind, cause: e.into() }
}

fn pause(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

fn info(message: &str) {
    eprintln!("INFO:__main__:{message}");
}

fn debug_line(message: &str) {
    if debug() {
        eprintln!("DEBUG:__main__:{message}");
    }
}

fn main() {
    let mut worker = Worker::from_env();
    loop {
        if let Err(Failure { during, kind, cause }) = worker.work_loop() {
            eprintln!("ERROR:__main__:In work loop:\nTraceback (most recent call last):\n  in work_loop, {during}\n{kind}: {cause}");
            eprintln!("ERROR:__main__:Waiting 10s and restarting.");
            std::thread::sleep(RESTART_DELAY);
        }
    }
}
