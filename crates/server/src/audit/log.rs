//! The audit log's file: one line an event, rotated by size, old ones removed by age and number.
//!
//! Mirrors what kube-apiserver has of lumberjack: `audit-2006-01-02T15-04-05.000.log` beside `audit.log`. An event is in the file before its request's answer goes out
//! (upstream's `blocking` mode).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ::api::validation::go_quote;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::batches::BatchOptions;
use super::truncation::Truncation;

const MEGABYTE: u64 = 1024 * 1024;
/// Lumberjack's, when no size is given.
const DEFAULT_SIZE: u64 = 100 * MEGABYTE;
const COMPRESSED: &str = ".gz";
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";
/// Who may read what everybody did.
const MODE: u32 = 0o600;

/// `--audit-log-path`, `--audit-log-maxage`, `--audit-log-maxbackup`, `--audit-log-maxsize`; 0 is no limit, but of the size.
/// `--audit-log-format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Json,
    /// One line of text.
    Legacy,
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// `-` is the standard output.
    pub path: PathBuf,
    pub max_age_days: u64,
    pub max_backups: usize,
    pub max_size_megabytes: u64,
    pub format: LogFormat,
    /// `--audit-log-mode=blocking-strict`: a request whose arrival cannot be written is refused.
    pub strict: bool,
    /// `--audit-log-mode=batch`: events are written when their turn comes, and no request waits.
    pub batch: Option<BatchOptions>,
    pub truncation: Option<Truncation>,
    /// Rotated files are kept compressed.
    pub compress: bool,
}

enum Target {
    Standard,
    File { file: File, size: u64 },
}

pub struct Log {
    options: LogOptions,
    limit: u64,
    target: Target,
}

fn append(path: &Path) -> io::Result<Target> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    let size = file.metadata()?.len();
    Ok(Target::File { file, size })
}

impl Log {
    pub fn open(options: LogOptions) -> io::Result<Self> {
        let target = if options.path == Path::new("-") {
            Target::Standard
        } else {
            if let Some(folder) = options.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                fs::create_dir_all(folder)?;
            }
            append(&options.path)?
        };
        let limit = if options.max_size_megabytes == 0 { DEFAULT_SIZE } else { options.max_size_megabytes * MEGABYTE };
        Ok(Self { options, limit, target })
    }

    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    pub fn is_strict(&self) -> bool {
        self.options.strict
    }

    pub fn event(&mut self, event: &Value, now: Timestamp) -> io::Result<()> {
        let mut line = match self.options.format {
            LogFormat::Json => event.to_string(),
            LogFormat::Legacy => legacy(event),
        };
        line.push('\n');
        self.write(line.as_bytes(), now)
    }

    /// `line` ends with its newline.
    fn write(&mut self, line: &[u8], now: Timestamp) -> io::Result<()> {
        let too_large = matches!(&self.target, Target::File { size, .. } if *size > 0 && *size + line.len() as u64 > self.limit);
        if too_large {
            self.rotate(now)?;
        }
        match &mut self.target {
            Target::Standard => io::stdout().lock().write_all(line),
            Target::File { file, size } => {
                file.write_all(line)?;
                *size += line.len() as u64;
                Ok(())
            }
        }
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let path = &self.options.path;
        let (stem, extension) = names(path);
        let stamp = now.to_zoned(TimeZone::UTC).strftime(STAMP);
        let kept = path.with_file_name(format!("{stem}-{stamp}{extension}"));
        let there = match fs::rename(path, &kept) {
            Ok(()) => true,
            // Somebody took it away: nothing is to be put aside, and what comes must not be lost for that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        self.target = append(path)?;
        if self.options.compress && there {
            // Requests do not wait for this; a file that was not finished stays as it was.
            std::thread::spawn(move || {
                if let Err(error) = compress(&kept) {
                    tracing::error!(%error, file = %kept.display(), "a rotated audit log cannot be compressed");
                }
            });
        }
        // One that stays, or that was compressed meanwhile, costs no event.
        if let Err(error) = remove_obsolete(path, &self.options, now) {
            tracing::error!(%error, file = %path.display(), "old audit logs cannot be removed");
        }
        Ok(())
    }
}

fn remove_obsolete(path: &Path, options: &LogOptions, now: Timestamp) -> io::Result<()> {
    for old in obsolete(backups(path)?, options, now) {
        match fs::remove_file(path.with_file_name(old)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `audit-….log` as `audit-….log.gz`, in one step for whoever looks.
fn compress(file: &Path) -> io::Result<()> {
    let named = |suffix: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (unfinished, finished) = (named(".gz.tmp"), named(COMPRESSED));
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&unfinished)?;
    let mut encoder = flate2::write::GzEncoder::new(written, flate2::Compression::default());
    io::copy(&mut File::open(file)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, &finished)?;
    fs::remove_file(file)
}

/// What upstream's `EventString` makes of an event.
fn legacy(event: &Value) -> String {
    let at = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let or = |text: &str, instead: &str| if text.is_empty() { instead.to_owned() } else { text.to_owned() };
    let list = |pointer: &str| event.pointer(pointer).and_then(Value::as_array).map(|all| all.iter().filter_map(Value::as_str).map(go_quote).collect::<Vec<_>>().join(","));
    let (user, groups) = match at("/user/username") {
        "" => ("<none>".to_owned(), "<none>".to_owned()),
        name => (name.to_owned(), or(&list("/user/groups").unwrap_or_default(), "<none>")),
    };
    let impersonated = event.get("impersonatedUser").is_some();
    let as_user = if impersonated { at("/impersonatedUser/username").to_owned() } else { "<self>".to_owned() };
    let as_groups = list("/impersonatedUser/groups").unwrap_or_else(|| "<lookup>".to_owned());
    let response = event.pointer("/responseStatus/code").map_or_else(|| "<deferred>".to_owned(), Value::to_string);
    format!(
        "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} response=\"{response}\"",
        at("/requestReceivedTimestamp"),
        go_quote(at("/auditID")),
        go_quote(at("/stage")),
        go_quote(&or(at("/sourceIPs/0"), "<unknown>")),
        go_quote(at("/verb")),
        go_quote(&user),
        go_quote(&groups),
        go_quote(&as_user),
        go_quote(&as_groups),
        go_quote(at("/userAgent")),
        go_quote(&or(at("/objectRef/namespace"), "<none>")),
        go_quote(at("/requestURI")),
    )
}

fn names(path: &Path) -> (String, String) {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = part(path.extension());
    (part(path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
}

/// The rotated files beside `path`, with when they were.
fn backups(path: &Path) -> io::Result<Vec<(Timestamp, String)>> {
    let (stem, extension) = names(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        let stamp = plain.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        if let Some(when) = stamp.and_then(|stamp| jiff::civil::DateTime::strptime(STAMP, stamp).ok()).and_then(|when| when.to_zoned(TimeZone::UTC).ok()) {
            found.push((when.timestamp(), name));
        }
    }
    Ok(found)
}

fn obsolete(mut backups: Vec<(Timestamp, String)>, options: &LogOptions, now: Timestamp) -> Vec<String> {
    backups.sort_by(|one, other| other.cmp(one));
    // One that is being compressed is there twice, and is one (as lumberjack counts).
    let mut counted = BTreeSet::new();
    let mut too_many = |name: &str| {
        counted.insert(name.strip_suffix(COMPRESSED).unwrap_or(name).to_owned());
        options.max_backups > 0 && counted.len() > options.max_backups
    };
    let too_old = |when: Timestamp| options.max_age_days > 0 && now.as_second() - when.as_second() > options.max_age_days as i64 * 86_400;
    backups.into_iter().filter(|(when, name)| too_many(name) || too_old(*when)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/audit.log");
        let options = LogOptions { path: path.clone(), max_backups: 2, max_size_megabytes: 1, ..LogOptions::default() };
        let mut log = Log::open(options).unwrap();
        let line = vec![b'x'; 700 * 1024];
        for second in 0..5 {
            log.write(&line, Timestamp::from_second(1_700_000_000 + second).unwrap()).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["audit-2023-11-14T22-13-23.000.log", "audit-2023-11-14T22-13-24.000.log", "audit.log"]);
        assert_eq!(fs::metadata(&path).unwrap().len(), line.len() as u64);
        drop(log);
        // It goes on where it was.
        let mut log = Log::open(LogOptions { path: path.clone(), ..LogOptions::default() }).unwrap();
        log.write(b"y\n", Timestamp::from_second(1_700_000_100).unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), line.len() as u64 + 2);
    }

    #[test]
    fn a_full_log_that_somebody_took_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = Log::open(LogOptions { path: path.clone(), max_size_megabytes: 1, ..LogOptions::default() }).unwrap();
        let line = vec![b'x'; 700 * 1024];
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        log.write(&line, now).unwrap();
        fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            log.write(b"a line\n", now).unwrap();
            log.write(&line, now).unwrap();
        }
        assert!(path.exists());
    }

    #[test]
    fn compressed_files_are_whole_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit-2023-11-14T22-13-23.000.log");
        fs::write(&file, "a line\n").unwrap();
        compress(&file).unwrap();
        assert!(!file.exists());
        let mut text = String::new();
        let packed = File::open(folder.path().join("audit-2023-11-14T22-13-23.000.log.gz")).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut text).unwrap();
        assert_eq!(text, "a line\n");
        let found = backups(&folder.path().join("audit.log")).unwrap();
        assert_eq!(found, [(Timestamp::from_second(1_700_000_003).unwrap(), "audit-2023-11-14T22-13-23.000.log.gz".to_owned())]);
    }

    #[test]
    fn one_line_of_text() {
        let event = serde_json::json!({"auditID": "i", "stage": "ResponseComplete", "sourceIPs": ["192.0.2.1"], "verb": "get", "user": {"username": "bob", "groups": ["a", "b"]}, "userAgent": "k",
            "objectRef": {"namespace": "n"}, "requestURI": "/api", "responseStatus": {"code": 200}, "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z"});
        assert_eq!(
            legacy(&event),
            r#"2026-01-01T00:00:00.000001Z AUDIT: id="i" stage="ResponseComplete" ip="192.0.2.1" method="get" user="bob" groups="\"a\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="k" namespace="n" uri="/api" response="200""#
        );
    }

    #[test]
    fn which_are_too_old_or_too_many() {
        let at = |days: i64| Timestamp::from_second(days * 86_400).unwrap();
        let all = || vec![(at(1), "one".to_owned()), (at(3), "three".to_owned()), (at(2), "two".to_owned())];
        let options = |max_age_days, max_backups| LogOptions { max_age_days, max_backups, ..LogOptions::default() };
        assert_eq!(obsolete(all(), &options(0, 0), at(100)), Vec::<String>::new());
        assert_eq!(obsolete(all(), &options(0, 1), at(100)), ["two", "one"]);
        assert_eq!(obsolete(all(), &options(3, 0), at(5)), ["one"]);
        let twice = || [all(), vec![(at(3), "three.gz".to_owned())]].concat();
        assert_eq!(obsolete(twice(), &options(0, 2), at(5)), ["one"]);
        assert_eq!(obsolete(twice(), &options(0, 1), at(5)), ["two", "one"]);
    }
}
