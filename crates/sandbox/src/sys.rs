//! The few system calls for which no safe wrapper is at hand, each in the narrowest form the crate needs.
//!
//! Promises: every descriptor handed out is close-on-exec; errors are the kernel's errno.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What `clone3` returned, on each side.
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks with new namespaces. Only for a single-threaded process: the child goes on running Rust code.
pub fn clone_process(namespaces: u64) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: no CLONE_VM and no new stack, so this is a fork; the caller is single-threaded, so no lock can be held by
    // a thread which does not exist in the child. `args` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        // SAFETY: the kernel stored a fresh descriptor for us.
        pid => Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Plain fork for the double fork of the shim, with the same condition.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller is single-threaded.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Ends this process without running destructors or exit handlers: what a forked child must do.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit is always sound.
    unsafe { libc::_exit(code) }
}

#[derive(Default, Clone, Copy)]
pub struct MountAttributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

/// `mount_setattr(2)`, on the mount `fd` refers to when `path` is empty.
pub fn mount_setattr(fd: Option<BorrowedFd<'_>>, path: &CStr, recursive: bool, attributes: MountAttributes) -> io::Result<()> {
    let attr = [attributes.set, attributes.clear, attributes.propagation, 0u64];
    let mut flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let dir = fd.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: `attr` is laid out as struct mount_attr (four u64) and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, dir, path.as_ptr(), flags, attr.as_ptr(), size_of_val(&attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks every descriptor from 3 on close-on-exec, so that nothing of ours reaches the container.
pub fn close_all_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only sets a flag; a kernel without the call (< 5.11) leaves the flags we set ourselves.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)` without forcing no_new_privs.
pub fn seccomp_install(program: &[libc::sock_filter]) -> io::Result<()> {
    let prog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: `prog` and the program it points at outlive the call; the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const prog) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Default disposition for every signal and an empty mask, as a freshly executed program expects.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting SIG_DFL is sound for every number; the kernel refuses those which cannot be set.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Blocks SIGCHLD, SIGTERM, SIGINT and SIGHUP and returns a non-blocking signalfd for SIGCHLD and SIGTERM.
pub fn signal_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: sets are initialised by sigemptyset; the returned descriptor is fresh.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGHUP);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigaddset(&mut set, libc::SIGTERM);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::sigdelset(&mut set, libc::SIGINT);
        libc::sigdelset(&mut set, libc::SIGHUP);
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The next child that ended: its pid and its exit code as a shell would show it (128 + signal).
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
    if pid <= 0 {
        return None;
    }
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Some((pid, code))
}

pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: never called with CLONE_FILES or CLONE_VM.
    if unsafe { libc::unshare(flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub fn setns(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the duration of the call.
    if unsafe { libc::setns(fd.as_raw_fd(), flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells the process behind the descriptor. `ESRCH` (it has ended) is no error.
pub fn signal_process(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo makes the kernel build one as kill(2) does.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// `kill(2)`; a negative pid means the process group. Errors are ignored: the target may be gone.
/// "Ourselves", "everyone" and "init" are never meant and refused.
pub fn kill(pid: i32, signal: i32) {
    if matches!(pid, -1..=1) {
        return;
    }
    // SAFETY: kill has no memory effects.
    unsafe { libc::kill(pid, signal) };
}

pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}

/// Nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// 64 hexadecimal digits, as container runtimes name things.
pub fn random_id() -> io::Result<String> {
    use std::fmt::Write;
    let mut bytes = [0u8; 32];
    // SAFETY: the buffer is as long as we say.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        return Err(io::Error::last_os_error());
    }
    let mut id = String::with_capacity(64);
    for byte in bytes {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}
