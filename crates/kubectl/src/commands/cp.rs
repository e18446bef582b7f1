//! `kubectl cp`: files and folders between here and a container, through the container's `tar`.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/cp.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::pods::{self, text as at};
use super::{exec, streams};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[
    text("container", "", "Container name. If omitted, use the kubectl.kubernetes.io/default-container annotation for selecting the container to be attached or the first container in the pod will be chosen").short('c'),
    switch("no-preserve", "The copied file/directory's ownership and permissions will not be preserved in the container"),
    text("retries", "0", "Set number of retries to complete a copy operation from a container. Specify 0 to disable or any negative value for infinite retrying."),
];

command!(CP, "cp", [], "<file-spec-src> <file-spec-dest> [options]", "Copy files and directories to and from containers", [FLAGS], run);

/// `[[namespace/]pod:]file`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Spec {
    namespace: String,
    pod: String,
    file: String,
}

fn spec(word: &str) -> Result<Spec> {
    let Some((pod, file)) = word.split_once(':') else { return Ok(Spec { file: word.to_owned(), ..Spec::default() }) };
    // `:file` and Windows' drives are not pods; `./a:b` is a file.
    if pod.is_empty() {
        return fail("filespec must match the canonical format: [[namespace/]pod:]file/path");
    }
    match pod.split('/').collect::<Vec<_>>()[..] {
        [pod] => Ok(Spec { namespace: String::new(), pod: pod.to_owned(), file: file.to_owned() }),
        [".", ..] | ["..", ..] | ["", ..] => Ok(Spec { file: word.to_owned(), ..Spec::default() }),
        [namespace, pod] => Ok(Spec { namespace: namespace.to_owned(), pod: pod.to_owned(), file: file.to_owned() }),
        _ => fail("filespec must match the canonical format: [[namespace/]pod:]file/path"),
    }
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let [from, to] = &args.positional[..] else { return fail("source and destination are required") };
    let (from, to) = (spec(from)?, spec(to)?);
    if !from.pod.is_empty() && !to.pod.is_empty() {
        return fail("one of src or dest must be a local file specification");
    }
    if from.file.is_empty() || to.file.is_empty() {
        return fail("filepath can not be empty");
    }
    match (from.pod.is_empty(), to.pod.is_empty()) {
        (false, _) => from_pod(session, args, &from, Path::new(&to.file)).await,
        (true, false) => to_pod(session, args, Path::new(&from.file), &to).await,
        (true, true) => fail("one of src or dest must be a remote file specification"),
    }
}

/// The pod and its container.
async fn find(session: &Session, args: &Args, spec: &Spec) -> Result<(Value, String)> {
    let namespace = if spec.namespace.is_empty() { session.namespace()? } else { spec.namespace.clone() };
    let pod = session.get(&format!("/api/v1/namespaces/{namespace}/pods/{}", spec.pod)).await?;
    let container = pods::container_or(&pod, args.text("container"), false)?;
    Ok((pod, container))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn archive(from: &Path, name: &str, out: impl Write) -> std::io::Result<()> {
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    if std::fs::metadata(from)?.is_dir() {
        builder.append_dir_all(name, from)?;
    } else {
        builder.follow_symlinks(true);
        builder.append_path_with_name(from, name)?;
    }
    builder.into_inner()?.flush()
}

async fn to_pod(session: &Session, args: &Args, from: &Path, to: &Spec) -> Result<()> {
    if !from.exists() {
        return fail(format!("{} doesn't exist in local filesystem", from.display()));
    }
    let (pod, container) = find(session, args, to).await?;
    let mut target = PathBuf::from(&to.file);
    // An existing folder takes the file in.
    let folder = exec::path(&pod, &container, &words(&["test", "-d", &to.file]), false, false);
    let none: Option<&[u8]> = None;
    if streams::run(session, &folder, streams::Streams { stdin: none, stdout: std::io::sink(), stderr: std::io::sink(), tty: false }).await.is_ok() {
        let absolute = std::fs::canonicalize(from)?;
        target = target.join(absolute.file_name().unwrap_or_default());
    }
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).ok_or_else(|| Error::Message("filepath can not be empty".to_owned()))?;
    let mut command = if args.on("no-preserve") { words(&["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"]) } else { words(&["tar", "-xmf", "-"]) };
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        command.extend(["-C".to_owned(), folder.display().to_string()]);
    }
    let path = exec::path(&pod, &container, &command, true, false);
    let (reader, writer) = std::io::pipe()?;
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
    let from = from.to_owned();
    let packing = tokio::task::spawn_blocking(move || archive(&from, &name, writer));
    let sent = streams::run(session, &path, streams::Streams { stdin: Some(reader), stdout: std::io::stdout(), stderr: std::io::stderr(), tty: false }).await;
    match packing.await.map_err(std::io::Error::other)? {
        // Nobody reads any more: how the other side ended is what happened.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => sent,
    }
}

async fn from_pod(session: &Session, args: &Args, from: &Spec, to: &Path) -> Result<()> {
    let retries = args.text("retries");
    let retries: i64 = retries.parse().map_err(|_| Error::Message(format!("invalid argument {retries:?} for \"--retries\" flag: strconv.ParseInt: parsing {retries:?}: invalid syntax")))?;
    let (pod, container) = find(session, args, from).await?;
    let (reader, writer) = std::io::pipe()?;
    let (below, to, source) = (prefix(&from.file), to.to_owned(), format!("{}/{}:{}", at(&pod, "/metadata/namespace"), from.pod, from.file));
    let unpacking = tokio::task::spawn_blocking(move || extract(reader, &below, &to, &source));
    let received = receive(session, &pod, &container, &from.file, writer, retries).await;
    match (received, unpacking.await.map_err(std::io::Error::other)?) {
        // Who unpacks takes no more, and knows why.
        (Err(Error::Silent(_)), Err(error)) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(()), unpacked) => unpacked,
    }
}

struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The container's archive, from where it broke off after a lost connection, as often as `retries` says; negative: for ever.
async fn receive(session: &Session, pod: &Value, container: &str, file: &str, out: impl Write, retries: i64) -> Result<()> {
    let mut out = Counted { out, bytes: 0 };
    let mut tried = 0;
    loop {
        let path = exec::path(pod, container, &packing(file, out.bytes), false, false);
        let none: Option<&[u8]> = None;
        let ended = streams::run(session, &path, streams::Streams { stdin: none, stdout: &mut out, stderr: std::io::stderr(), tty: false }).await;
        match ended {
            Err(error) if is_lost(&error) && (retries < 0 || tried < retries) => {
                tried += 1;
                let of = if retries < 0 { String::new() } else { format!("/{retries}") };
                output::complain(format!("Resuming copy at {} bytes, retry {tried}{of}", out.bytes));
            }
            ended => return ended,
        }
    }
}

/// Neither the program's own end nor the server's refusal.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Message(_) | Error::Reach { .. })
}

/// The container packs `file`; what came already is left out.
fn packing(file: &str, from: u64) -> Vec<String> {
    match from {
        0 => words(&["tar", "cf", "-", file]),
        _ => words(&["sh", "-c", &format!("tar cf - '{}' | tail -c+{}", file.replace('\'', "'\\''"), from + 1)]),
    }
}

/// How tar names what it packs: no leading slash, no way up.
fn prefix(file: &str) -> PathBuf {
    Path::new(file).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Unpacks what lies below `prefix` to `to`, and nothing outside of it.
fn extract(archive: impl Read, prefix: &Path, to: &Path, source: &str) -> Result<()> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name: PathBuf = entry.path()?.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir)).collect();
        let Ok(rest) = name.strip_prefix(prefix) else { return fail("tar contents corrupted") };
        if rest.components().any(|part| !matches!(part, Component::Normal(_))) {
            output::complain(format!("warning: file {:?} is outside target destination, skipping", name.display()));
            continue;
        }
        let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
        } else if kind.is_symlink() {
            let link = entry.link_name()?.unwrap_or_default();
            output::complain(format!("warning: skipping symlink: {:?} -> {:?} (consider using \"kubectl exec\" with tar for {source})", target.display(), link.display()));
        } else if kind.is_file() {
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = std::fs::File::create(&target).map_err(|error| Error::Message(format!("open {}: {error}", target.display())))?;
            std::io::copy(&mut entry, &mut file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let of = |namespace: &str, pod: &str, file: &str| Spec { namespace: namespace.into(), pod: pod.into(), file: file.into() };
        for (word, want) in [("a", of("", "", "a")), ("p:/x", of("", "p", "/x")), ("n/p:x:y", of("n", "p", "x:y")), ("./a:b", of("", "", "./a:b")), ("/tmp/a:b", of("", "", "/tmp/a:b"))] {
            assert_eq!(spec(word).unwrap(), want, "{word}");
        }
        assert!(spec(":x").is_err());
    }

    #[test]
    fn a_copy_goes_on_where_it_broke_off() {
        assert_eq!(packing("/a b", 0), ["tar", "cf", "-", "/a b"]);
        assert_eq!(packing("/it's", 9), ["sh", "-c", "tar cf - '/it'\\''s' | tail -c+10"]);
        assert!(is_lost(&Error::Message("connection reset".into())) && !is_lost(&Error::Exit(2)) && !is_lost(&Error::Silent(141)));
    }

    #[test]
    fn there_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::write(from.join("sub/file"), "hello").unwrap();
        let mut bytes = Vec::new();
        archive(&from, "etc/from", &mut bytes).unwrap();
        let to = folder.path().join("to");
        extract(&bytes[..], &prefix("/etc/from/"), &to, "").unwrap();
        assert_eq!(std::fs::read_to_string(to.join("sub/file")).unwrap(), "hello");
        assert_eq!(extract(&bytes[..], Path::new("other"), &to, "").unwrap_err().to_string(), "tar contents corrupted");
    }
}
