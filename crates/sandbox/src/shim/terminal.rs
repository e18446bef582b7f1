//! A container's terminal, opened by its own process from its own devpts, so that `tty` finds its name inside.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::pty::OpenptFlags;

/// Both sides: the shim gets the first, the process has the second as 0, 1 and 2.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

pub fn open() -> io::Result<Terminal> {
    let master = rustix::fs::open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok(Terminal { master, slave })
}

impl Terminal {
    /// Makes it what /dev/console is in the container.
    pub fn bind_console(&self) -> io::Result<()> {
        let name: std::ffi::CString = rustix::pty::ptsname(&self.master, Vec::new())?;
        let name: &CStr = name.as_c_str();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        match rustix::fs::open("/dev/console", flags, Mode::from_raw_mode(0o666)) {
            // A privileged container may have a console node which cannot be opened: it is only covered.
            Ok(_) | Err(_) => {}
        }
        let tree = rustix::mount::open_tree(CWD, name, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        rustix::mount::move_mount(&tree, "", CWD, "/dev/console", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(())
    }

    /// The calling process, leader of its session, gets it as controlling terminal and as its standard streams.
    pub fn adopt(&self, uid: u32, gid: u32) -> io::Result<()> {
        rustix::process::ioctl_tiocsctty(&self.slave)?;
        rustix::fs::fchown(&self.slave, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?;
        super::process::set_streams(self.slave.as_fd(), self.slave.as_fd(), self.slave.as_fd())
    }
}
