//! Builds for real, as root, on a root made of the busybox package (Debian's busybox-static, which xtask installs).

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::view::RootView;

const BUSYBOX: &str = "/bin/busybox";

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    /// A store with an image `base` that has a shell, and an empty context.
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let bench = Bench { dir, store };
        fs::create_dir(bench.context()).unwrap();
        fs::copy(BUSYBOX, bench.context().join("busybox")).expect("busybox-static is installed by cargo xtask test");
        for applet in ["sh", "cat", "rm", "mkdir", "id", "touch", "ln", "echo", "ls"] {
            std::os::unix::fs::symlink("/bin/busybox", bench.context().join(applet)).unwrap();
        }
        bench.file("passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n");
        bench.file("Dockerfile", "FROM scratch\nCOPY . /bin/\nCOPY passwd /etc/\nCMD [\"/bin/sh\"]\n");
        bench.build("base").unwrap();
        fs::remove_dir_all(bench.context()).unwrap();
        fs::create_dir(bench.context()).unwrap();
        bench
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn options(&self, tag: &str) -> BuildOptions {
        BuildOptions { context: self.context(), tags: vec![tag.to_owned()], ..BuildOptions::default() }
    }

    fn build(&self, tag: &str) -> Result<(Image, String), BuildError> {
        self.build_with(&self.options(tag))
    }

    fn build_with(&self, options: &BuildOptions) -> Result<(Image, String), BuildError> {
        let mut out = Vec::new();
        let result = build(&self.store, options, &ChrootRunner, &mut out);
        let text = String::from_utf8(out).unwrap();
        match result {
            Ok(image) => Ok((image, text)),
            Err(e) => {
                eprintln!("{text}");
                Err(e)
            }
        }
    }

    fn dockerfile(&self, text: &str) -> Result<(Image, RootView, String), BuildError> {
        self.file("Dockerfile", text);
        let (image, out) = self.build("test")?;
        let view = RootView::new(image.layers.clone());
        Ok((image, view, out))
    }
}

fn text(view: &RootView, path: &str) -> Option<String> {
    view.read(Path::new(path)).unwrap().map(|b| String::from_utf8(b).unwrap())
}

#[test]
fn runs_copies_and_configures() {
    let bench = Bench::new();
    bench.file("app/main", "one");
    bench.file("app/sub/x.txt", "x");
    bench.file("app/skip.log", "no");
    bench.file(".dockerignore", "**/*.log\n");
    let (image, view, out) = bench
        .dockerfile(
            "ARG BASE=base\nFROM $BASE AS build\nARG WHO=world\nENV GREETING=\"hello ${WHO}\" PATH=/bin\n\
             RUN echo \"$GREETING from $WHO\" > /greeting && mkdir /gone && touch /gone/file\n\
             RUN rm -r /gone && ln /greeting /hard && cat /proc/self/status | cat > /dev/null\n\
             RUN [ ! -e /gone ] && mkdir /gone && [ ! -e /gone/file ]\n\
             FROM base\nWORKDIR /srv/app\nCOPY --chown=web app/ ./\nCOPY --from=build --chmod=0600 /greeting /hard /data/\n\
             COPY <<EOF /inline\n$HOSTNAME_UNSET\"quoted\"\nEOF\n\
             USER web\nRUN id -u > /tmp-id || id -u > /srv/app/id || true\nEXPOSE 80 53/udp\nVOLUME /data\nLABEL a=b\nSTOPSIGNAL SIGINT\n\
             HEALTHCHECK --interval=1s --retries=3 CMD cat /inline\nENTRYPOINT [\"/bin/cat\"]\nCMD [\"/inline\"]\n",
        )
        .unwrap();
    assert_eq!(text(&view, "/data/greeting").unwrap(), "hello world from world\n");
    assert_eq!(text(&view, "/inline").unwrap(), "\"quoted\"\n");
    assert_eq!(text(&view, "/srv/app/sub/x.txt").unwrap(), "x");
    assert_eq!(text(&view, "/srv/app/skip.log"), None);
    assert_eq!(text(&view, "/srv/app/id"), None, "web may not write into root's directory");
    let meta = |path: &str| view.lstat(Path::new(path)).unwrap().unwrap().metadata;
    assert_eq!((meta("srv/app/main").uid(), meta("srv/app/main").gid(), meta("srv/app/main").mtime()), (33, 34, 0));
    assert_eq!(meta("srv/app").uid(), 0);
    assert_eq!(meta("data/hard").permissions().mode() & 0o7777, 0o600);
    assert!(view.lstat(Path::new("proc")).unwrap().is_none(), "mount points made for RUN stay out of layers");
    let config = &image.config;
    assert_eq!((config.entrypoint.as_slice(), config.cmd.as_slice()), (&["/bin/cat".to_owned()][..], &["/inline".to_owned()][..]));
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str(), config.stop_signal.as_str()), ("web", "/srv/app", "SIGINT"));
    assert_eq!(config.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "cat /inline"]);
    assert!(out.starts_with("Step 1/21 : ARG BASE=base\nStep 2/21 : FROM $BASE AS build\n ---> "), "{out}");
    assert!(out.ends_with(&format!("Successfully built {}\nSuccessfully tagged test:latest\n", image.id.short())), "{out}");
}

#[test]
fn cache_follows_instruction_and_content() {
    let bench = Bench::new();
    bench.file("a", "1");
    bench.file("b", "1");
    let dockerfile = "FROM base\nENV PATH=/bin\nCOPY a /\nRUN echo built > /built\nCOPY b /\nENV PAUSE=0.1\n";
    let (first, _, out) = bench.dockerfile(dockerfile).unwrap();
    assert!(!out.contains("Using cache"));
    let (again, _, out) = bench.dockerfile(dockerfile).unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(out.matches("Using cache").count(), 5, "{out}");
    // One edit re-makes only what follows.
    bench.file("b", "2");
    let (edited, view, out) = bench.dockerfile(&dockerfile.replace("0.1", "1")).unwrap();
    assert_eq!(out.matches("Using cache").count(), 3, "{out}");
    assert_eq!(text(&view, "b").unwrap(), "2");
    assert_eq!(edited.config.env_value("PAUSE"), Some("1"));
    assert_eq!(edited.layers[1..], first.layers[1..]);
    // The same content gives the same layers in another store, whatever the time.
    let other = Bench::new();
    other.file("a", "1");
    other.file("b", "1");
    let (elsewhere, _, _) = other.dockerfile(dockerfile).unwrap();
    let names = |image: &Image| image.layers.iter().map(|l| l.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&elsewhere), names(&first));
    // The image that lost its tag is still there, until it is removed and swept.
    assert_eq!(bench.store.resolve(first.id.as_str()).unwrap().unwrap().repo_tags, Vec::<String>::new());
    assert!(bench.store.remove(first.id.as_str()).unwrap());
    assert!(bench.store.gc(&HashSet::new()).unwrap() > 0);
    assert!(bench.store.resolve("test").unwrap().unwrap().layers.iter().all(|l| l.is_dir()));
    let no_cache = BuildOptions { no_cache: true, ..bench.options("test") };
    assert!(!bench.build_with(&no_cache).unwrap().1.contains("Using cache"));
}

#[test]
fn add_extracts_local_archives() {
    let bench = Bench::new();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(5);
    header.set_size(2);
    header.set_mtime(9);
    tar.append_data(&mut header, "in/side", &b"ok"[..]).unwrap();
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    fs::write(bench.context().join("a.tgz"), bytes).unwrap();
    let (_, view, _) = bench.dockerfile("FROM scratch\nADD a.tgz /root/\nCOPY a.tgz /root/\n").unwrap();
    assert_eq!(text(&view, "/root/in/side").unwrap(), "ok");
    let meta = view.lstat(Path::new("root/in/side")).unwrap().unwrap().metadata;
    assert_eq!((meta.uid(), meta.mtime()), (5, 9));
    assert!(view.lstat(Path::new("root/a.tgz")).unwrap().is_some());
}

#[test]
fn copies_into_what_is_there() {
    let bench = Bench::new();
    bench.file("one/lib/a", "a");
    bench.file("one/tmp/x", "x");
    fs::create_dir_all(bench.context().join("base/usr/lib")).unwrap();
    fs::create_dir_all(bench.context().join("base/tmp")).unwrap();
    fs::set_permissions(bench.context().join("base/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink("usr/lib", bench.context().join("base/lib")).unwrap();
    let (_, view, _) = bench.dockerfile("FROM scratch\nCOPY base/ /\nCOPY one/ /\nCOPY one/lib/a /lib/b\n").unwrap();
    let meta = |path: &str| view.lstat(Path::new(path)).unwrap().unwrap().metadata;
    assert!(meta("lib").is_symlink() && meta("usr/lib/a").is_file() && meta("usr/lib/b").is_file());
    assert_eq!(meta("tmp").permissions().mode() & 0o7777, 0o1777);
}

#[test]
fn refuses_clearly() {
    let bench = Bench::new();
    bench.file("f", "x");
    let error = |text: &str| bench.dockerfile(text).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        error("FROM scratch\nCOPY nope /"),
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"
    );
    assert_eq!(error("FROM scratch\nCOPY n*pe /"), "COPY failed: no source files were specified");
    assert!(error("FROM nosuch").starts_with("pull access denied for nosuch:latest"));
    assert!(error("FROM scratch\nADD https://example.com/x /").contains("URLs is not supported"));
    assert!(error("FROM scratch\nONBUILD RUN x").contains("ONBUILD is not supported"));
    assert!(error("RUN x").contains("first instruction must be FROM"));
    assert!(error("FROM base\nENV PATH=/bin\nRUN exit 3").ends_with("The command '/bin/sh -c exit 3' returned a non-zero code: 3"));
    assert!(error("FROM scratch\nRUN [\"/nope\"]").ends_with("returned a non-zero code: 127"));
    assert!(error("FROM scratch\nCOPY --chown=nobody f /").contains("unable to find user nobody"));
    assert!(error("FROM scratch\nCOPY f f /x").contains("must be a directory and end with a /"));
    assert!(error("FROM scratch\nCOPY ../../../etc/hostname /").contains("file not found in build context"));
    assert!(bench.store.resolve("test").unwrap().is_none(), "a failed build tags nothing");
    let target = BuildOptions { target: Some("nope".into()), ..bench.options("test") };
    bench.file("Dockerfile", "FROM scratch AS a\nCOPY f /\nFROM a AS b\nCOPY nope /");
    assert!(matches!(bench.build_with(&target), Err(BuildError::NoTarget(_))));
    let target = BuildOptions { target: Some("a".into()), ..bench.options("test") };
    assert!(bench.build_with(&target).is_ok());
}
