//! A key management service: a plugin behind a unix socket, which keeps the seeds that values are sealed with.
//!
//! Mirrors kube-apiserver's `kms` provider, version v2 (server/options/encryptionconfig and envelope/kmsv2): the plugin is asked for its status every minute; when its key
//! id changes, a new seed is made and given to it to seal. Seeds it has unsealed once are remembered. Reads go on for ever; writes only for so long as the plugin
//! was well lately. A store seals and unseals where nothing can be awaited, so a thread of its own talks to the plugin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd::grpc::{self, Fields, wire};
use parking_lot::Mutex;
use tokio::net::UnixStream;

use super::envelope::{self, Envelope, Source, SourceKind};
use super::metrics::EncryptionMetrics;
use crate::metrics::hash;

const SERVICE: &str = "/v2.KeyManagementService/";
/// How often the plugin is asked how it is, while it is well and while it is not.
const POLL_WELL: Duration = Duration::from_secs(60);
const POLL_ILL: Duration = Duration::from_secs(10);
/// For so long after it was well values are sealed.
const WRITES_FOR: Duration = Duration::from_secs(180);
/// Seeds that are remembered; there is one for each life of a server and each key.
const SEEDS_MAX: usize = 1000;

/// `kms` of an EncryptionConfiguration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsConfig {
    pub name: String,
    pub socket: PathBuf,
    pub timeout: Duration,
}

/// What values are sealed with now.
struct Sealing {
    source: Source,
    seed: Arc<[u8]>,
    until: Instant,
}

#[derive(Default)]
struct State {
    sealing: Option<Sealing>,
    seeds: BTreeMap<Source, Arc<[u8]>>,
    /// Why the plugin is not well.
    ill: Option<String>,
    version: String,
}

struct Question {
    method: &'static str,
    message: Vec<u8>,
    answer: Sender<Result<Bytes, CallError>>,
}

#[derive(Debug, Clone)]
struct CallError {
    code: &'static str,
    why: String,
}

pub struct Kms {
    pub config: KmsConfig,
    state: Mutex<State>,
    questions: Mutex<Sender<Question>>,
    metrics: Arc<EncryptionMetrics>,
}

impl Kms {
    /// Asks the plugin at once; one that is not there yet is asked again and again.
    pub fn open(config: KmsConfig, metrics: Arc<EncryptionMetrics>) -> Result<Arc<Self>, String> {
        let (questions, asked) = channel();
        let (socket, timeout) = (config.socket.clone(), config.timeout);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        std::thread::Builder::new().name("kms".into()).spawn(move || talk(&runtime, &asked, &socket, timeout)).map_err(|error| error.to_string())?;
        let kms = Arc::new(Self { config, state: Mutex::new(State { ill: Some("never asked".into()), ..State::default() }), questions: Mutex::new(questions), metrics });
        kms.poll();
        // It ends when nobody needs the provider any more.
        let weak = Arc::downgrade(&kms);
        let (name, pause) = (format!("kms-{}", kms.config.name), kms.pause());
        let follow = move || {
            let mut pause = pause;
            loop {
                std::thread::park_timeout(pause);
                let Some(kms) = weak.upgrade() else { return };
                kms.poll();
                pause = kms.pause();
            }
        };
        std::thread::Builder::new().name(name.chars().take(15).collect()).spawn(follow).map_err(|error| error.to_string())?;
        Ok(kms)
    }

    fn pause(&self) -> Duration {
        if self.state.lock().ill.is_some() { POLL_ILL } else { POLL_WELL }
    }

    /// `None`: it is well.
    pub fn ill(&self) -> Option<String> {
        self.state.lock().ill.clone()
    }

    fn call(&self, method: &'static str, message: Vec<u8>) -> Result<Bytes, CallError> {
        let begun = Instant::now();
        let (answer, waiting) = channel();
        let gone = |why: &str| CallError { code: "unknown-non-grpc", why: why.to_owned() };
        let sent = self.questions.lock().send(Question { method, message, answer });
        let outcome = match sent {
            Err(_) => Err(gone("nobody talks to the plugin any more")),
            // The other side keeps the time; this is for a machine that stands still.
            Ok(()) => match waiting.recv_timeout(self.config.timeout * 2 + Duration::from_secs(1)) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Timeout) => Err(CallError { code: "DeadlineExceeded", why: "context deadline exceeded".into() }),
                Err(RecvTimeoutError::Disconnected) => Err(gone("nobody talks to the plugin any more")),
            },
        };
        let code = outcome.as_ref().map_or_else(|error| error.code, |_| "OK");
        self.metrics.operations.observe(&[&self.config.name, &format!("{SERVICE}{method}"), code], begun.elapsed().as_secs_f64());
        outcome
    }

    /// Asks how the plugin is, and takes its new key, if it has one.
    pub fn poll(&self) {
        let outcome = self.well();
        let mut state = self.state.lock();
        match outcome {
            Ok(()) => {
                if state.ill.take().is_some() {
                    tracing::info!(provider = self.config.name, "the KMS provider is well");
                }
            }
            Err(why) => {
                if state.ill.as_ref() != Some(&why) {
                    tracing::error!(provider = self.config.name, error = why, "the KMS provider is not well");
                }
                state.ill = Some(why);
            }
        }
    }

    fn well(&self) -> Result<(), String> {
        let name = &self.config.name;
        let answer = self.call("Status", Vec::new()).map_err(|error| format!("failed to perform status section of the healthz check for KMS Provider {name}, error: {}", error.why))?;
        let (mut version, mut healthz, mut key_id, mut fields) = (String::new(), String::new(), String::new(), Fields(answer));
        while let Some((tag, part)) = fields.next().map_err(|error| error.to_string())? {
            match tag {
                1 => version = part.text(),
                2 => healthz = part.text(),
                3 => key_id = part.text(),
                _ => {}
            }
        }
        let mut faults = Vec::new();
        if healthz != "ok" {
            faults.push(format!("got unexpected healthz status: {healthz}"));
        }
        if !matches!(version.as_str(), "v2" | "v2beta1") {
            faults.push(format!("expected KMSv2 API version v2, got {version}"));
        } else {
            let mut state = self.state.lock();
            if state.version.is_empty() {
                state.version = version.clone();
            }
            if state.version != version {
                faults.push(format!("KMSv2 API version should not change after the initial status response version {}, got {version}", state.version));
            }
        }
        match envelope::check_key_id(&key_id) {
            Err((fault, why)) => {
                self.metrics.invalid_key_ids.add(&[name, fault.code()], 1);
                faults.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", hash(key_id.as_bytes())));
            }
            Ok(()) => {
                self.metrics.status_key_ids.now(&[name, &hash(key_id.as_bytes()), &self.metrics.server]);
                faults.extend(self.rotate(&key_id).err());
            }
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("kmsv2 Provider {name} is not healthy, error: {one}")),
            more => Err(format!("kmsv2 Provider {name} is not healthy, error: [{}]", more.join(", "))),
        }
    }

    /// The same key as before: it may be used for longer. Another one: a new seed is sealed by it.
    fn rotate(&self, key_id: &str) -> Result<(), String> {
        let until = Instant::now() + WRITES_FOR;
        {
            let mut state = self.state.lock();
            if let Some(sealing) = state.sealing.as_mut().filter(|sealing| sealing.source.key_id == key_id) {
                sealing.until = until;
                return Ok(());
            }
        }
        let failed = |why: String| format!("failed to rotate DEK useSeed=true, errGen={why}, statusKeyIDHash={:?}", hash(key_id.as_bytes()));
        let seed = envelope::new_seed().map_err(|error| failed(error.to_string()))?;
        let mut message = Vec::new();
        wire::bytes(&mut message, 1, &seed);
        wire::bytes(&mut message, 2, hash(&seed).as_bytes());
        let answer = self.call("Encrypt", message).map_err(|error| failed(format!("failed to encrypt DEK, error: {}", error.why)))?;
        let (mut source, mut fields) = (Source { kind: SourceKind::Seed, ..Source::default() }, Fields(answer));
        while let Some((tag, part)) = fields.next().map_err(|error| failed(error.to_string()))? {
            match tag {
                1 => source.sealed = part.bytes().to_vec(),
                2 => source.key_id = part.text(),
                3 => {
                    let (name, value) = envelope::annotation(part.bytes()).map_err(failed)?;
                    source.annotations.insert(name, value);
                }
                _ => {}
            }
        }
        source.check().map_err(failed)?;
        if source.key_id != key_id {
            return Err(failed(format!("<nil>, encryptKeyIDHash={:?}", hash(source.key_id.as_bytes()))));
        }
        let seed: Arc<[u8]> = seed.into();
        let mut state = self.state.lock();
        self.remember(&mut state, source.clone(), seed.clone());
        state.sealing = Some(Sealing { source, seed, until });
        Ok(())
    }

    fn remember(&self, state: &mut State, source: Source, seed: Arc<[u8]>) {
        if state.seeds.len() >= SEEDS_MAX {
            state.seeds.clear();
        }
        state.seeds.insert(source, seed);
        self.metrics.cached.set(&[&self.config.name], state.seeds.len() as f64);
    }

    fn used(&self, direction: &str, key_id: &str) {
        let labels = [direction, &self.config.name, &hash(key_id.as_bytes()), &self.metrics.server];
        self.metrics.key_ids.add(&labels, 1);
        self.metrics.key_ids_last.now(&labels);
    }

    /// What is to be stored at `place`.
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
        let (source, seed) = {
            let state = self.state.lock();
            let Some(sealing) = &state.sealing else { return Err("got unexpected nil transformer".into()) };
            if Instant::now() > sealing.until {
                return Err(format!("encryptedDEKSource with keyID hash {:?} expired", hash(sealing.source.key_id.as_bytes())));
            }
            (sealing.source.clone(), sealing.seed.clone())
        };
        let data = envelope::seal(&seed, place, plain).map_err(|error| error.to_string())?;
        self.used("to_storage", &source.key_id);
        Ok(Envelope { source, data }.encode())
    }

    /// The value, and whether another key seals by now.
    pub fn unseal(&self, place: &[u8], stored: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let Envelope { source, data } = Envelope::decode(stored)?;
        let (known, current) = {
            let state = self.state.lock();
            let current = state.sealing.as_ref().map(|sealing| (sealing.source.key_id.clone(), sealing.source.kind));
            (state.seeds.get(&source).cloned(), current)
        };
        let seed = match known {
            Some(seed) => seed,
            None => self.unsealed(&source)?,
        };
        self.used("from_storage", &source.key_id);
        let plain = envelope::unseal(source.kind, &seed, place, &data).map_err(|error| error.to_string())?;
        let stale = current.is_none_or(|(key_id, kind)| key_id != source.key_id || kind != source.kind);
        Ok((plain, stale))
    }

    fn unsealed(&self, source: &Source) -> Result<Arc<[u8]>, String> {
        self.metrics.cache_misses.add(&[], 1);
        let mut message = Vec::new();
        wire::bytes(&mut message, 1, &source.sealed);
        wire::bytes(&mut message, 2, hash(&source.sealed).as_bytes());
        wire::bytes(&mut message, 3, source.key_id.as_bytes());
        envelope::annotations(&mut message, 4, &source.annotations);
        let answer = self.call("Decrypt", message).map_err(|error| format!("failed to decrypt DEK, error: {}", error.why))?;
        let (mut seed, mut fields) = (Vec::new(), Fields(answer));
        while let Some((tag, part)) = fields.next().map_err(|error| error.to_string())? {
            if tag == 1 {
                seed = part.bytes().to_vec();
            }
        }
        // Remembered, it would stay wrong when the plugin has long been right again.
        envelope::check_secret(source.kind, &seed)?;
        let seed: Arc<[u8]> = seed.into();
        self.remember(&mut self.state.lock(), source.clone(), seed.clone());
        Ok(seed)
    }
}

/// Answers questions until nobody asks any more.
fn talk(runtime: &tokio::runtime::Runtime, asked: &Receiver<Question>, socket: &Path, timeout: Duration) {
    let mut connection = None;
    while let Ok(question) = asked.recv() {
        let outcome = runtime.block_on(async {
            match tokio::time::timeout(timeout, ask(&mut connection, socket, &question)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    connection = None;
                    Err(CallError { code: "DeadlineExceeded", why: "rpc error: code = DeadlineExceeded desc = context deadline exceeded".into() })
                }
            }
        });
        // Who asked may have gone.
        let _ = question.answer.send(outcome);
    }
}

async fn ask(connection: &mut Option<grpc::Connection>, socket: &Path, question: &Question) -> Result<Bytes, CallError> {
    let unavailable = |why: String| CallError { code: "Unavailable", why: format!("rpc error: code = Unavailable desc = {why}") };
    let path = format!("{SERVICE}{}", question.method);
    let message = grpc::framed(&question.message);
    // One that was left open may have been closed by the other side meanwhile.
    if let Some(open) = connection.take_if(|open| !open.is_closed())
        && let Ok(answer) = open.unary(&path, message.clone()).await
    {
        *connection = Some(open);
        return Ok(answer);
    }
    let stream = UnixStream::connect(socket).await.map_err(|error| unavailable(format!("connection error: desc = \"transport: Error while dialing: dial unix {}: {error}\"", socket.display())))?;
    let open = grpc::Connection::over(stream, "http://localhost").await.map_err(|error| unavailable(error.to_string()))?;
    match open.unary(&path, message).await {
        Ok(answer) => {
            *connection = Some(open);
            Ok(answer)
        }
        Err(etcd::Error::Refused { code, message }) => Err(CallError { code: code.name(), why: format!("rpc error: code = {} desc = {message}", code.name()) }),
        Err(error) => Err(unavailable(error.to_string())),
    }
}
