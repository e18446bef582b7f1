//! A node's root: its own disk, with the host's programs on it.
//!
//! | what | whose |
//! |---|---|
//! | `/var`, `/root`, `/tmp`, `/mnt`, `/media`, `/srv` | the node's, plain folders on its disk: containers' overlays may lie there |
//! | `/etc`, `/usr/local`, `/opt` | the host's until the node changes it; changes are the node's (an overlay) |
//! | `/proc`, `/sys`, `/dev`, `/run`, cgroups | the node's, fresh at each start |
//! | all else: `/usr`, `/lib`, `/home`, … | the host's, to read |
//!
//! Nothing here is mounted where the host could see it, and nothing of the host's can be changed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sandbox::cgroup::Cgroups;
use sandbox::sys::{MountAttributes, mount_setattr};

use crate::init::Spec;
use crate::layout::Layout;

/// Folders of the host's root that a node has of its own.
const OWN: [&str; 12] = ["opt", "proc", "sys", "dev", "run", "tmp", "etc", "var", "root", "mnt", "media", "srv"];
const OWN_FOLDERS: [(&str, u32); 17] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("root", 0o700),
    ("mnt", 0o755),
    ("media", 0o755),
    ("srv", 0o755),
    ("var/lib/coracle", 0o700),
    ("var/lib/kubelet", 0o755),
    ("var/log/pods", 0o755),
    ("var/cache", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("root/.kube", 0o700),
];
/// Of the host's devices, those that name no hardware.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun"];
const DEV_LINKS: [(&str, &str); 6] =
    [("pts/ptmx", "ptmx"), ("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout"), ("/proc/self/fd/2", "stderr"), ("/proc/kcore", "core")];
/// Where distributions keep the authorities they trust.
const AUTHORITIES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const MOUNT_ATTR_RDONLY: u64 = 1;

type Result<T, E = String> = std::result::Result<T, E>;

fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn folder(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).map_err(failed(format_args!("make {}", path.display())))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed(format_args!("set the mode of {}", path.display())))
}

fn link(target: &str, path: &Path) -> Result<()> {
    match symlink(target, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(format!("link {}: {error}", path.display())),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(failed(format_args!("write {}", path.display())))
}

/// Something to bind a file on.
fn touch(path: &Path) -> Result<()> {
    fs::File::options().create(true).append(true).open(path).map(drop).map_err(failed(format_args!("make {}", path.display())))
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>).map_err(failed(format_args!("bind {} to {}", from.display(), to.display())))
}

fn fresh(kind: &str, to: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(kind), to, Some(kind), flags, Some(options)).map_err(failed(format_args!("mount {kind} on {}", to.display())))
}

/// Goes into the node's root. Called by process 1, in new namespaces.
pub fn enter(spec: &Spec, cgroups: &Cgroups) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).map_err(failed("make the mounts private"))?;
    let root = spec.layout().root();
    for (name, mode) in OWN_FOLDERS {
        folder(&root.join(name), mode)?;
    }
    link("/run", &root.join("var/run"))?;
    link("/run/lock", &root.join("var/lock"))?;
    bind(&root, &root, MsFlags::empty())?;
    hosts_folders(spec, &root)?;
    etc(spec, &root)?;
    optional(spec, &root)?;
    programs(spec, &root)?;
    home(&root)?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    fresh("tmpfs", &root.join("run"), quiet, "mode=755")?;
    folder(&root.join("run/lock"), 0o1777)?;
    fresh("proc", &root.join("proc"), quiet | MsFlags::MS_NOEXEC, "")?;
    fresh("sysfs", &root.join("sys"), quiet | MsFlags::MS_NOEXEC, "")?;
    devices(&root.join("dev"))?;
    hierarchies(spec, cgroups, &root.join("sys/fs/cgroup"))?;
    pivot(&root)
}

/// Everything at the host's root that a node has not of its own, to read.
fn hosts_folders(spec: &Spec, root: &Path) -> Result<()> {
    for entry in fs::read_dir("/").map_err(failed("read /"))?.flatten() {
        let name = entry.file_name();
        let (from, to) = (Path::new("/").join(&name), root.join(&name));
        if name.to_str().is_some_and(|name| OWN.contains(&name)) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(failed(format_args!("read {}", from.display())))?;
            link(&target.to_string_lossy(), &to)?;
        } else if kind.is_dir() {
            fs::create_dir_all(&to).map_err(failed(format_args!("make {}", to.display())))?;
            bind(&from, &to, MsFlags::MS_REC)?;
            read_only(&to)?;
        }
    }
    let hidden = root.join(spec.hide.strip_prefix("/").unwrap_or(&spec.hide));
    // Where the lab lies in one of the node's own folders there is nothing to hide.
    if hidden.is_dir() {
        fresh("tmpfs", &hidden, MsFlags::MS_RDONLY, "mode=700,size=4k")?;
    }
    Ok(())
}

fn read_only(path: &Path) -> Result<()> {
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(failed("a path"))?;
    mount_setattr(None, &text, true, MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() }).map_err(failed(format_args!("make {} read-only", path.display())))
}

fn overlay(spec: &Spec, name: &str, lower: &str, to: &Path) -> Result<PathBuf> {
    let folder = spec.layout().overlay(name);
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    for folder in [&upper, &work] {
        fs::create_dir_all(folder).map_err(failed(format_args!("make {}", folder.display())))?;
    }
    let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), to, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map_err(failed(format_args!("lay the node's {lower} over the host's")))?;
    Ok(upper)
}

fn etc(spec: &Spec, root: &Path) -> Result<()> {
    let upper = spec.layout().overlay("etc").join("upper");
    fs::create_dir_all(&upper).map_err(failed("make the node's /etc"))?;
    write(&upper.join("hostname"), &format!("{}\n", spec.name))?;
    for (name, text) in [("hosts", &spec.hosts), ("resolv.conf", &spec.resolv_conf)] {
        // Who changed them keeps them.
        if !upper.join(name).exists() {
            write(&upper.join(name), text)?;
        }
    }
    trust(&Layout::new(&spec.hide).authority(), &upper)?;
    // The host may be a node of some cluster itself: not the lab's business.
    let own = spec.layout().folder.join("kubernetes");
    folder(&own, 0o755)?;
    folder(&upper.join("kubernetes"), 0o755)?;
    overlay(spec, "etc", "/etc", &root.join("etc"))?;
    bind(&own, &root.join("etc/kubernetes"), MsFlags::empty())
}

/// Where others' programs go: network plugins (`/opt/cni/bin`), for one.
fn optional(spec: &Spec, root: &Path) -> Result<()> {
    let to = root.join("opt");
    folder(&to, 0o755)?;
    if Path::new("/opt").is_dir() { overlay(spec, "opt", "/opt", &to).map(drop) } else { Ok(()) }
}

/// The authorities whom the host trusts, and the lab's mirror.
fn trust(authority: &Path, upper: &Path) -> Result<()> {
    let known: Vec<PathBuf> = AUTHORITIES.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let files = if known.is_empty() { vec![PathBuf::from(AUTHORITIES[0])] } else { known };
    let mirror = fs::read_to_string(authority).map_err(failed(format_args!("read {}", authority.display())))?;
    for file in files {
        // One that lies elsewhere is the host's.
        let Ok(inside) = file.strip_prefix("/etc") else { continue };
        let to = upper.join(inside);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed(format_args!("make {}", parent.display())))?;
        }
        let hosts = fs::read_to_string(&file).unwrap_or_default();
        write(&to, &format!("{hosts}\n{mirror}"))?;
    }
    Ok(())
}

/// This binary, under its names; and a word about docker where the host has none.
fn programs(spec: &Spec, root: &Path) -> Result<()> {
    let upper = spec.layout().overlay("local").join("upper/bin");
    folder(&upper, 0o755)?;
    touch(&upper.join("coracle"))?;
    for name in ["kubectl", "kubeadm"] {
        link("coracle", &upper.join(name))?;
    }
    for name in ["docker", "docker-compose"] {
        if !["/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(name).exists()) {
            let path = upper.join(name);
            write(&path, &format!("#!/bin/sh\necho \"{name}: not here yet: Coracle's own comes with a later version\" >&2\necho \"hint: 'coracle build -t NAME FOLDER' builds an image, 'coracle image --help' shows what else there is\" >&2\nexit 1\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed("set the mode of a program"))?;
        }
    }
    let local = root.join("usr/local");
    overlay(spec, "local", "/usr/local", &local)?;
    bind(&spec.exe, &local.join("bin/coracle"), MsFlags::empty())
}

/// A classroom's shell: the prompt of the lesson, and the cluster's credentials where kubectl looks.
fn home(root: &Path) -> Result<()> {
    let home = root.join("root");
    link("/etc/kubernetes/admin.conf", &home.join(".kube/config"))?;
    for (name, text) in [(".bashrc", "PS1='[\\h \\W]$ '\n[ ! -r /root/.bash_aliases ] || . /root/.bash_aliases\n"), (".bash_profile", ". /root/.bashrc\n")] {
        if !home.join(name).exists() {
            write(&home.join(name), text)?;
        }
    }
    Ok(())
}

fn devices(dev: &Path) -> Result<()> {
    fresh("tmpfs", dev, MsFlags::MS_NOSUID, "mode=755,size=64m")?;
    for name in DEVICES {
        let (from, to) = (Path::new("/dev").join(name), dev.join(name));
        if !from.exists() {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed("make /dev"))?;
        }
        touch(&to)?;
        bind(&from, &to, MsFlags::empty())?;
    }
    for (target, name) in DEV_LINKS {
        link(target, &dev.join(name))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)] {
        folder(&dev.join(name), mode)?;
    }
    fresh("devpts", &dev.join("pts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    fresh("tmpfs", &dev.join("shm"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    // A kernel without message queues has none for containers either.
    let _ = fresh("mqueue", &dev.join("mqueue"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "");
    Ok(())
}

/// The node's cgroups as the roots of the hierarchies.
fn hierarchies(spec: &Spec, cgroups: &Cgroups, to: &Path) -> Result<()> {
    let Some(views) = cgroups.views(&spec.cgroup) else {
        return fresh("cgroup2", to, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, "");
    };
    fresh("tmpfs", to, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755,size=64k")?;
    for (name, from) in views {
        let to = to.join(&name);
        folder(&to, 0o755)?;
        bind(Path::new(&*from.to_string_lossy()), &to, MsFlags::empty())?;
    }
    Ok(())
}

fn pivot(root: &Path) -> Result<()> {
    nix::unistd::chdir(root).map_err(failed("go to the node's root"))?;
    nix::unistd::pivot_root(".", ".").map_err(failed("change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("leave the host's root"))?;
    nix::unistd::chdir("/").map_err(failed("go to /"))
}
