//! Builds a container's root in its own mount namespace, inside the forked child.
//!
//! Order, and why: every mount of something outside is first taken as a detached tree (so it keeps or loses its propagation as asked, and
//! can be found while the host's paths exist); then the namespace is cut off from the host, the overlay becomes the root, and all the rest
//! is mounted from inside it. A symbolic link in an image therefore cannot lead a mount out of the container. Since nothing is ever mounted in the
//! host's namespace, a container's mounts vanish with its last process.
//!
//! Mirrors containerd's default mounts and runc's masked and read-only paths.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::text::{errno, reason};
use crate::cgroup::Cgroups;
use crate::cri::{ContainerConfig, Mount, MountPropagation, NamespaceMode, PodSandboxConfig};
use crate::layout::Layout;
use crate::sys::{self, MountAttributes};

const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;

/// Longest option text mount(2) takes: one page with its final zero.
const MAX_OPTIONS: usize = 4095;

const MASKED: [&str; 11] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
];
const MASKED_TOO: [&str; 1] = ["/sys/devices/virtual/powercap"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Name, major, minor of the nodes every container has.
const NODES: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] =
    [("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"), ("/dev/stdout", "/proc/self/fd/1"), ("/dev/stderr", "/proc/self/fd/2"), ("/dev/ptmx", "pts/ptmx")];

/// What the root is made of.
pub struct Root<'a> {
    pub layout: &'a Layout,
    pub sandbox_id: &'a str,
    pub sandbox: &'a PodSandboxConfig,
    pub container_id: &'a str,
    pub config: &'a ContainerConfig,
    pub cgroups: &'a Cgroups,
    pub cgroup: &'a str,
}

/// A tree taken from outside, waiting to be mounted.
struct Pending {
    tree: OwnedFd,
    target: String,
    source: PathBuf,
}

/// A device node to be made.
struct Node {
    path: String,
    kind: FileType,
    mode: u32,
    device: Dev,
}

impl Root<'_> {
    /// Called in the new mount namespace; afterwards the container's root is ours.
    pub fn enter(&self) -> Result<(), String> {
        let binds = self.take_binds()?;
        let cgroup_views = self.take_cgroup_views();
        let nodes = self.list_devices()?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|error| format!("make / private: {}", errno(error)))?;
        self.mount_root()?;
        self.mount_system(cgroup_views).map_err(|error| format!("error mounting the system directories: {error}"))?;
        self.make_devices(&nodes)?;
        for bind in binds {
            place(&bind.tree, &bind.target).map_err(|error| {
                format!("error during container init: error mounting {:?} to rootfs at {:?}: {}", bind.source.display().to_string(), bind.target, reason(&error))
            })?;
        }
        if !self.config.security.privileged && !self.config.security.unmasked_proc {
            self.mask().map_err(|error| format!("error masking paths: {error}"))?;
        }
        if self.config.security.readonly_rootfs {
            sys::mount_setattr(None, c"/", false, MountAttributes { set: ATTR_RDONLY, ..Default::default() }).map_err(|error| format!("make / read-only: {error}"))?;
        }
        Ok(())
    }

    /// The node's mounts, and the files the runtime itself provides unless the node has its own for them.
    fn take_binds(&self) -> Result<Vec<Pending>, String> {
        let mut mounts: Vec<Mount> = Vec::new();
        let own = |target: &str, source: PathBuf, readonly: bool| Mount { container_path: target.to_owned(), host_path: source, readonly, ..Mount::default() };
        let readonly = self.config.security.readonly_rootfs;
        let hostname = self.layout.hostname(self.sandbox_id);
        mounts.push(own("/etc/hostname", hostname, readonly));
        if self.sandbox.dns.is_some() {
            mounts.push(own("/etc/resolv.conf", self.layout.resolv_conf(self.sandbox_id), readonly));
        }
        let shm = if self.sandbox.namespaces.ipc == NamespaceMode::Node { PathBuf::from("/dev/shm") } else { self.layout.shm(self.sandbox_id) };
        mounts.push(own("/dev/shm", shm, false));
        mounts.retain(|own| !self.config.mounts.iter().any(|mount| same_path(&mount.container_path, &own.container_path)));
        mounts.extend(self.config.mounts.iter().cloned());
        // Outer directories first, or they would cover the inner ones.
        mounts.sort_by_key(|mount| mount.container_path.split('/').filter(|part| !part.is_empty()).count());
        mounts.into_iter().map(take).collect()
    }

    fn take_cgroup_views(&self) -> Option<Vec<(String, OwnedFd)>> {
        let views = self.cgroups.views(self.cgroup)?;
        Some(views.into_iter().filter_map(|(name, path)| Some((name, clone_tree(&path).ok()?))).collect())
    }

    /// Devices asked for by name, and all of the host's for a privileged container.
    fn list_devices(&self) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        if self.config.security.privileged {
            host_devices(Path::new("/dev"), &mut nodes);
        }
        for device in &self.config.devices {
            let stat = rustix::fs::stat(device.host_path.as_str()).map_err(|error| format!("error gathering device information while adding custom device {:?}: {}", device.host_path, errno(error)))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
                return Err(format!("error gathering device information while adding custom device {:?}: not a device node", device.host_path));
            }
            nodes.push(Node { path: device.container_path.clone(), kind, mode: stat.st_mode & 0o777, device: stat.st_rdev });
        }
        Ok(nodes)
    }

    fn mount_root(&self) -> Result<(), String> {
        let root = self.layout.rootfs(self.container_id);
        let failed = |error: io::Error| format!("failed to mount rootfs: {}", reason(&error));
        if self.config.rootfs.layers.is_empty() {
            rustix::mount::mount_bind(self.layout.upper(self.container_id), &root).map_err(|error| failed(error.into()))?;
        } else {
            self.mount_overlay(&root).map_err(failed)?;
        }
        let pivot = || -> rustix::io::Result<()> {
            rustix::process::chdir(&root)?;
            // Both on the same directory: the old root ends up above the new one, from where it is taken off.
            rustix::process::pivot_root(".", ".")?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)?;
            rustix::process::chdir("/")
        };
        pivot().map_err(|error| format!("error jailing process inside rootfs: pivot_root: {}", errno(error)))
    }

    fn mount_overlay(&self, root: &Path) -> io::Result<()> {
        let (upper, work) = (self.layout.upper(self.container_id), self.layout.work(self.container_id));
        let mut options = Vec::with_capacity(512);
        options.extend_from_slice(b"lowerdir=");
        for (index, layer) in self.config.rootfs.layers.iter().enumerate() {
            if index > 0 {
                options.push(b':');
            }
            escape(layer, &mut options);
        }
        options.extend_from_slice(b",upperdir=");
        escape(&upper, &mut options);
        options.extend_from_slice(b",workdir=");
        escape(&work, &mut options);
        if options.len() + b",volatile".len() > MAX_OPTIONS {
            return self.mount_many_layers(root, &upper, &work);
        }
        let plain = CString::new(options.clone())?;
        // A container's layer never outlives a crash of the machine, so nobody needs it synced when it is unmounted.
        options.extend_from_slice(b",volatile");
        let volatile = CString::new(options)?;
        match rustix::mount::mount("overlay", root, "overlay", MountFlags::empty(), volatile.as_c_str()) {
            Err(rustix::io::Errno::INVAL) => rustix::mount::mount("overlay", root, "overlay", MountFlags::empty(), plain.as_c_str())?,
            other => other?,
        }
        Ok(())
    }

    /// One option per layer (Linux 6.5).
    fn mount_many_layers(&self, root: &Path, upper: &Path, work: &Path) -> io::Result<()> {
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
        let filesystem = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in &self.config.rootfs.layers {
            fsconfig_set_string(filesystem.as_fd(), "lowerdir+", layer)?;
        }
        fsconfig_set_string(filesystem.as_fd(), "upperdir", upper)?;
        fsconfig_set_string(filesystem.as_fd(), "workdir", work)?;
        fsconfig_set_flag(filesystem.as_fd(), "volatile")?;
        fsconfig_create(filesystem.as_fd())?;
        let tree = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        rustix::mount::move_mount(&tree, "", CWD, root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(())
    }

    fn mount_system(&self, cgroup_views: Option<Vec<(String, OwnedFd)>>) -> Result<(), String> {
        let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
        let privileged = self.config.security.privileged;
        let readonly = if privileged { MountFlags::empty() } else { MountFlags::RDONLY };
        self.mount("/proc", "proc", safe, None)?;
        self.mount("/dev", "tmpfs", MountFlags::NOSUID | MountFlags::STRICTATIME, Some(c"mode=755,size=65536k"))?;
        self.mount("/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
        self.mount("/dev/mqueue", "mqueue", safe, None)?;
        self.mount("/sys", "sysfs", safe | readonly, None)?;
        if self.is_mounted_by_node("/sys/fs/cgroup") {
            return Ok(());
        }
        match cgroup_views {
            None => self.mount("/sys/fs/cgroup", "cgroup2", safe | readonly | MountFlags::RELATIME, None),
            Some(views) => {
                self.mount("/sys/fs/cgroup", "tmpfs", safe, Some(c"mode=755"))?;
                for (name, tree) in views {
                    let set = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | if privileged { 0 } else { ATTR_RDONLY };
                    let target = format!("/sys/fs/cgroup/{name}");
                    sys::mount_setattr(Some(tree.as_fd()), c"", true, MountAttributes { set, ..Default::default() })
                        .and_then(|()| place(&tree, &target))
                        .map_err(|error| format!("{target}: {}", reason(&error)))?;
                }
                let attributes = MountAttributes { set: if privileged { 0 } else { ATTR_RDONLY }, ..Default::default() };
                sys::mount_setattr(None, c"/sys/fs/cgroup", false, attributes).map_err(|error| format!("/sys/fs/cgroup: {}", reason(&error)))
            }
        }
    }

    fn is_mounted_by_node(&self, target: &str) -> bool {
        self.config.mounts.iter().any(|mount| same_path(&mount.container_path, target))
    }

    /// Mounts a new filesystem, unless the node brings its own.
    fn mount(&self, target: &str, kind: &str, flags: MountFlags, options: Option<&std::ffi::CStr>) -> Result<(), String> {
        if self.is_mounted_by_node(target) {
            return Ok(());
        }
        let mount = || -> io::Result<()> {
            // Through the descriptor: the path has been resolved once, without following links such as /proc/self/fd.
            let directory = ensure(target, true)?;
            rustix::process::fchdir(&directory)?;
            rustix::mount::mount(kind, ".", kind, flags, options)?;
            rustix::process::chdir("/")?;
            Ok(())
        };
        mount().map_err(|error| format!("{target}: {}", reason(&error)))
    }

    fn make_devices(&self, nodes: &[Node]) -> Result<(), String> {
        if self.is_mounted_by_node("/dev") {
            return Ok(());
        }
        let standard = NODES.iter().map(|(name, major, minor)| Node {
            path: format!("/dev/{name}"),
            kind: FileType::CharacterDevice,
            mode: 0o666,
            device: rustix::fs::makedev(*major, *minor),
        });
        for node in standard.chain(nodes.iter().map(|node| Node { path: node.path.clone(), ..*node })) {
            make_node(&node).map_err(|error| format!("error creating device nodes: {}: {}", node.path, reason(&error)))?;
        }
        for (link, target) in LINKS {
            match rustix::fs::symlink(target, link) {
                Err(error) if error != rustix::io::Errno::EXIST => return Err(format!("error setting up /dev symlinks: {link}: {}", errno(error))),
                _ => {}
            }
        }
        Ok(())
    }

    fn mask(&self) -> io::Result<()> {
        for path in MASKED.iter().chain(&MASKED_TOO) {
            let Ok(target) = open_path(path) else { continue };
            if FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) == FileType::Directory {
                rustix::process::fchdir(&target)?;
                rustix::mount::mount("tmpfs", ".", "tmpfs", MountFlags::RDONLY, Some(c"size=0k"))?;
            } else {
                attach(&clone_tree(c"/dev/null")?, &target)?;
            }
        }
        rustix::process::chdir("/")?;
        for path in READ_ONLY {
            let Ok(target) = open_path(path) else { continue };
            let tree = clone_tree(&CString::new(path)?)?;
            sys::mount_setattr(Some(tree.as_fd()), c"", true, MountAttributes { set: ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, ..Default::default() })?;
            attach(&tree, &target)?;
        }
        Ok(())
    }
}

fn same_path(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn take(mount: Mount) -> Result<Pending, String> {
    // Without an empty part at its end it is the path of a file as well.
    let source = if mount.sub_path.as_os_str().is_empty() { mount.host_path.clone() } else { mount.host_path.join(&mount.sub_path) };
    let failed =
        |error: io::Error| format!("error during container init: error mounting {:?} to rootfs at {:?}: {}", source.display().to_string(), mount.container_path, reason(&error));
    let tree = if mount.sub_path.as_os_str().is_empty() {
        CString::new(mount.host_path.as_os_str().as_bytes()).map_err(io::Error::from).and_then(|path| clone_tree(&path))
    } else {
        clone_part(&mount.host_path, &mount.sub_path).map_err(io::Error::from)
    };
    let tree = tree.map_err(failed)?;
    let propagation = match mount.propagation {
        MountPropagation::Private => Some(libc::MS_PRIVATE),
        MountPropagation::HostToContainer => Some(libc::MS_SLAVE),
        // As it is on the host: a peer of it when that is shared.
        MountPropagation::Bidirectional => None,
    };
    let attributes = MountAttributes { set: if mount.readonly { ATTR_RDONLY } else { 0 }, clear: 0, propagation: propagation.unwrap_or(0) };
    if mount.readonly || propagation.is_some() {
        sys::mount_setattr(Some(tree.as_fd()), c"", true, attributes).map_err(failed)?;
    }
    Ok(Pending { tree, target: mount.container_path, source })
}

fn clone_tree(path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// As `clone_tree`, of what lies below a directory by a path without links.
fn clone_part(directory: &Path, part: &Path) -> rustix::io::Result<OwnedFd> {
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let found = rustix::fs::openat2(&directory, part, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&found, "", flags)
}

/// Mounts a detached tree at a path in the container, which is made if it is missing.
fn place(tree: &OwnedFd, target: &str) -> io::Result<()> {
    let directory = FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode) == FileType::Directory;
    attach(tree, &ensure(target, directory)?)
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}

/// Symbolic links are followed, as they stay in the container; links like /proc/self/fd/3, through which our own descriptors could be reached, are not.
fn open_path(path: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Opens a path, making what is missing of it: directories, and at the end a directory or an empty file.
fn ensure(path: &str, directory: bool) -> io::Result<OwnedFd> {
    match open_path(path) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mut current = open_path("/")?;
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    let mut so_far = String::new();
    while let Some(part) = parts.next() {
        so_far.push('/');
        so_far.push_str(part);
        match open_path(&so_far) {
            Ok(next) => {
                current = next;
                continue;
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        if parts.peek().is_some() || directory {
            match rustix::fs::mkdirat(&current, part, Mode::from_raw_mode(0o755)) {
                Err(rustix::io::Errno::EXIST) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(&current, part, flags, Mode::from_raw_mode(0o644))?;
        }
        current = open_path(&so_far)?;
    }
    Ok(current)
}

/// Makes the working directory if it is missing, as containerd does.
pub fn ensure_directory(path: &str) -> io::Result<()> {
    ensure(path, true).map(drop)
}

fn make_node(node: &Node) -> io::Result<()> {
    let path = Path::new(&node.path);
    if let Some(parent) = path.parent().and_then(Path::to_str).filter(|parent| *parent != "/dev") {
        ensure(parent, true)?;
    }
    match rustix::fs::mknodat(CWD, path, node.kind, Mode::from_raw_mode(node.mode), node.device) {
        // The umask has no say here.
        Ok(()) => Ok(rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(node.mode), AtFlags::empty())?),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Every device node below a directory, but for what each container has of its own.
fn host_devices(directory: &Path, nodes: &mut Vec<Node>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name());
        if matches!(name.to_str(), None | Some("pts" | "shm" | "fd" | "mqueue" | "console" | ".udev" | ".lxc" | ".lxd-mounts")) {
            continue;
        }
        let Ok(stat) = rustix::fs::lstat(&path) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => host_devices(&path, nodes),
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) if name != "ptmx" => {
                nodes.push(Node { path: path.to_string_lossy().into_owned(), kind, mode: stat.st_mode & 0o777, device: stat.st_rdev });
            }
            _ => {}
        }
    }
}

/// Colons and commas separate in overlay's options.
fn escape(path: &Path, out: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}
