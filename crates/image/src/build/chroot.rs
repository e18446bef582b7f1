//! The plain way to RUN: overlay mount and chroot in namespaces of its own (mount, PID, IPC, UTS).
//!
//! Makes the builder work alone, in tests and in xtask. It shares the host's network and drops no capability: for
//! Dockerfiles one trusts. The engine passes its own sandbox instead.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::Signal;
use rustix::thread::{Gid, Uid, UnshareFlags};

use crate::view::RootView;

use super::run::{RunRequest, RunStep};
use super::users::{self, UserIds};

/// As shells and docker report a command that cannot be found.
const NOT_FOUND: i32 = 127;

pub struct ChrootRunner;

impl RunStep for ChrootRunner {
    fn run(&self, request: RunRequest, output: &mut dyn Write) -> io::Result<i32> {
        let view = RootView::new(request.layers.clone());
        let user = users::lookup(&view, &request.user).map_err(io::Error::other)?;
        let (mut reader, writer) = io::pipe()?;
        let (copied, code) = std::thread::scope(|scope| {
            // unshare(2) changes one thread; this one, with its mounts, ends with the step.
            let worker = scope.spawn(|| in_own_namespaces(&request, &view, &user, writer));
            let copied = copy_out(&mut reader, output);
            let code = worker.join().map_err(|_| io::Error::other("the RUN thread panicked"));
            (copied, code)
        });
        let code = code??;
        copied?;
        Ok(code)
    }
}

fn copy_out(reader: &mut impl Read, output: &mut dyn Write) -> io::Result<()> {
    let mut buffer = [0u8; 8192];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                output.write_all(&buffer[..n])?;
                output.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn in_own_namespaces(request: &RunRequest, view: &RootView, user: &UserIds, writer: io::PipeWriter) -> io::Result<i32> {
    let parent = request.upper.parent().ok_or_else(|| io::Error::other("upper directory has no parent"))?;
    let (work, root) = (parent.join("work"), parent.join("root"));
    for dir in [&work, &root] {
        fs::create_dir_all(dir)?;
    }
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: only this thread is affected, and it shares no assumption about namespaces with others: it works with
    // absolute paths and ends after the step. File descriptors are not unshared.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_overlay(request, &work, &root)?;
    let made = prepare(&root, view)?;
    let code = execute(request, user, &root, writer);
    // Mount points made only for the step do not belong to its layer (they are mounted over in this namespace: look below).
    for path in made.iter().rev() {
        let upper = request.upper.join(path);
        let _ = fs::remove_dir(&upper).or_else(|_| match fs::metadata(&upper) {
            Ok(m) if m.is_file() && m.len() == 0 => fs::remove_file(&upper),
            _ => Ok(()),
        });
    }
    code
}

fn mount_overlay(request: &RunRequest, work: &Path, root: &Path) -> io::Result<()> {
    let mut layers = request.layers.clone();
    if layers.is_empty() {
        // overlayfs wants at least one lower directory.
        let empty = work.with_file_name("empty");
        fs::create_dir_all(&empty)?;
        layers.push(empty);
    }
    // One page must hold all options: with the layers' directory as working directory their paths are short.
    // chdir is this thread's own since unshare(CLONE_NEWNS).
    let common = layers[0].parent().map(Path::to_owned).filter(|dir| layers.iter().all(|l| l.parent() == Some(dir)));
    if let Some(common) = &common {
        rustix::process::chdir(common)?;
    }
    let lower: Vec<Vec<u8>> = layers
        .iter()
        .map(|layer| match &common {
            Some(_) => layer.file_name().map(|n| n.as_bytes()).unwrap_or_default(),
            None => layer.as_os_str().as_bytes(),
        })
        .map(escaped)
        .collect();
    let mut options = b"redirect_dir=off,metacopy=off,index=off,lowerdir=".to_vec();
    options.extend(lower.join(&b':'));
    for (name, path) in [(&b",upperdir="[..], request.upper.as_path()), (&b",workdir="[..], work)] {
        options.extend(name);
        options.extend(escaped(path.as_os_str().as_bytes()));
    }
    let options = CString::new(options)?;
    mount("overlay", root, "overlay", MountFlags::empty(), options.as_c_str())?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// overlayfs separates with `:` and `,`.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

/// /proc (mounted by the child), /dev and /etc/resolv.conf. Returns what had to be made for them, relative to the root.
fn prepare(root: &Path, view: &RootView) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    // Resolved inside the image: a symlink of the image's must not lead a mount onto the host's tree.
    let mut mount_point = |path: &str, directory: bool| -> io::Result<PathBuf> {
        let inside = view.resolve(Path::new(path))?;
        let mut so_far = PathBuf::new();
        let count = inside.components().count();
        for (i, component) in inside.components().enumerate() {
            so_far.push(component);
            let real = root.join(&so_far);
            if fs::symlink_metadata(&real).is_ok() {
                continue;
            }
            if i + 1 < count || directory {
                fs::create_dir(&real)?;
            } else {
                fs::File::create(&real)?;
            }
            made.push(so_far.clone());
        }
        Ok(root.join(inside))
    };
    mount_point("proc", true)?;
    let dev = mount_point("dev", true)?;
    let resolv = mount_point("etc/resolv.conf", false)?;
    mount("tmpfs", &dev, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=755,size=64k")?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let path = dev.join(name);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(1, minor))?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o666))?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")] {
        std::os::unix::fs::symlink(target, dev.join(name))?;
    }
    if Path::new("/etc/resolv.conf").exists() {
        mount_bind("/etc/resolv.conf", &resolv)?;
    }
    Ok(made)
}

fn execute(request: &RunRequest, user: &UserIds, root: &Path, writer: io::PipeWriter) -> io::Result<i32> {
    let Some((program, arguments)) = request.args.split_first() else { return Err(io::Error::other("no command")) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(request.env.iter().map(|(k, v)| (k, v)));
    if !request.env.iter().any(|(name, _)| name == "HOME") {
        command.env("HOME", &user.home);
    }
    let complain = writer.try_clone()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let root = CString::new(root.as_os_str().as_bytes())?;
    let workdir = CString::new(request.workdir.as_bytes())?;
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let enter = move || -> io::Result<()> {
        rustix::process::chroot(root.as_c_str())?;
        rustix::process::chdir(c"/")?;
        mount(c"proc", c"/proc", c"proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, c"")?;
        rustix::process::chdir(workdir.as_c_str())?;
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_gid(gid)?;
        rustix::thread::set_thread_uid(uid)?;
        // After the change of user, which clears it. The whole step dies with the builder.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only plain system calls are made, on values prepared before; nothing allocates or locks.
    unsafe { command.pre_exec(enter) };
    let spawned = command.spawn();
    // The parent's copies of the pipe go, so that the reader sees its end.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut complain = complain;
            writeln!(complain, "exec: {program:?}: executable file not found in $PATH")?;
            return Ok(NOT_FOUND);
        }
        Err(e) => return Err(e),
    };
    drop(complain);
    let status = child.wait()?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}
