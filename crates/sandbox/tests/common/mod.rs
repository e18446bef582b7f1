//! A runtime of its own for each test: own directories, own cgroup parent, busybox as the image, a pod network which does nothing.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sandbox::cri::*;
use sandbox::{Config, Embedded};

/// No single step of a test may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct NoNetwork;

impl PodNetwork for NoNetwork {
    fn attach<'a>(&'a self, _: &'a str, _: &'a Path, _: &'a PodSandboxConfig) -> BoxFuture<'a, std::result::Result<Vec<IpAddr>, String>> {
        Box::pin(async { Ok(vec![IpAddr::from([10, 244, 0, 7])]) })
    }
    fn detach<'a>(&'a self, _: &'a str, _: &'a PodSandboxConfig) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

pub struct World {
    pub dir: PathBuf,
    pub config: Config,
    pub runtime: Embedded,
    pub cgroup: String,
}

impl World {
    pub fn new() -> Self {
        Self::at(Self::new_dir())
    }

    pub fn new_dir() -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        std::env::temp_dir().join(format!("coracle-sandbox-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn config(dir: &Path) -> Config {
        Config {
            root_dir: dir.join("root"),
            state_dir: dir.join("state"),
            shim_exe: PathBuf::from(env!("CARGO_BIN_EXE_sandbox-shim")),
            network: Arc::new(NoNetwork),
        }
    }

    pub fn at(dir: PathBuf) -> Self {
        make_image(&dir.join("image"));
        let config = Self::config(&dir);
        let runtime = Embedded::open(config.clone()).expect("open");
        let cgroup = dir.file_name().unwrap().to_str().unwrap().to_owned();
        Self { dir, config, runtime, cgroup }
    }

    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata { name: name.to_owned(), namespace: "default".to_owned(), uid: format!("uid-{name}"), attempt: 0 },
            hostname: name.to_owned(),
            log_directory: self.dir.join("logs").join(name),
            dns: Some(DnsConfig { servers: vec![IpAddr::from([10, 96, 0, 10])], searches: vec!["svc.cluster.local".to_owned()], options: vec!["ndots:5".to_owned()] }),
            cgroup_parent: format!("{}/burstable/pod-{name}", self.cgroup),
            namespaces: NamespaceOptions { pid: NamespaceMode::Container, ..Default::default() },
            ..Default::default()
        }
    }

    pub fn container(&self, args: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: ContainerMetadata { name: "main".to_owned(), attempt: 0 },
            image: "busybox".to_owned(),
            rootfs: RootFs { layers: vec![self.dir.join("image")] },
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            log_path: PathBuf::from("main/0.log"),
            security: SecurityContext { seccomp: SeccompProfile::RuntimeDefault, ..Default::default() },
            ..Default::default()
        }
    }

    pub fn shell(&self, script: &str) -> ContainerConfig {
        self.container(&["sh", "-c", script])
    }

    pub async fn sandbox(&self, name: &str) -> String {
        within(self.runtime.run_pod_sandbox(self.pod(name))).await.expect("run sandbox")
    }

    pub async fn start(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.runtime.create_container(sandbox, config).await.expect("create");
        within(self.runtime.start_container(&id)).await.expect("start");
        id
    }

    /// Runs it to its end and gives the status and the log.
    pub async fn run(&self, sandbox: &str, config: ContainerConfig) -> (ContainerStatus, String) {
        let mut events = self.runtime.events();
        let id = self.start(sandbox, config).await;
        self.ended(&mut events, &id).await;
        let status = self.runtime.container_status(&id).await.expect("status");
        let log = std::fs::read_to_string(&status.log_path).expect("log");
        within(self.runtime.remove_container(&id)).await.expect("remove");
        std::fs::remove_file(&status.log_path).expect("remove log");
        (status, log)
    }

    /// Waits for the event which says that the container has ended.
    pub async fn ended(&self, events: &mut tokio::sync::broadcast::Receiver<ContainerEvent>, id: &str) {
        within(async {
            loop {
                let event = events.recv().await.expect("event");
                if event.container_id.as_deref() == Some(id) && event.kind == ContainerEventKind::Stopped {
                    return;
                }
            }
        })
        .await
    }

    /// Nothing may be left of this world.
    pub fn reset(self) {
        sandbox::reset(&self.config).expect("reset");
        assert_clean(&self.dir, &self.cgroup);
    }
}

impl Drop for World {
    /// Also after a test that failed.
    fn drop(&mut self) {
        let _ = sandbox::reset(&self.config);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn assert_clean(dir: &Path, cgroup: &str) {
    let marker = dir.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(marker), "mounts left:\n{mounts}");
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let path = entry.unwrap().path().join(cgroup);
        assert!(!path.exists(), "cgroup left: {}", path.display());
    }
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(!(command.contains(" shim ") && command.contains(marker)), "process left: {} {command}", path.display());
    }
    assert!(!dir.join("root").exists(), "root directory left");
    assert!(!dir.join("state").exists(), "state directory left");
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// A root with busybox under every name.
fn make_image(dir: &Path) {
    if dir.exists() {
        return;
    }
    for name in ["bin", "etc", "tmp", "work", "root"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "echo", "true", "false", "cat", "id", "sleep", "ls", "env", "pwd", "hostname", "mount", "ps", "grep", "dd", "tr", "head", "kill", "tty", "stat", "nc", "touch", "mkdir", "wc", "stty", "tail", "readlink", "unshare", "trap", "test", "mkfifo", "mknod"] {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(name)).unwrap();
    }
    std::fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n").unwrap();
    std::fs::write(dir.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:1500:app\n").unwrap();
    std::fs::write(dir.join("bin/script"), "no interpreter").unwrap();
    std::fs::set_permissions(dir.join("bin/script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(dir.join("etc/plain"), "not executable").unwrap();
}

/// The text of a log without times and stream names.
pub fn text(log: &str) -> String {
    log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n").collect()
}

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
