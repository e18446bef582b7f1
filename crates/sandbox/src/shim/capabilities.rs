//! Capabilities: names, the set a container gets, and giving up the rest.
//!
//! Mirrors containerd's defaults and its handling of `add`/`drop` with `ALL`; ambient capabilities are never set, as upstream.

use std::io;

use crate::cri::SecurityContext;

/// Names by number, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
    "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN",
    "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE",
    "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL",
    "AUDIT_WRITE",
];

const ALL: u64 = (1 << NAMES.len()) - 1;

pub fn bit(name: &str) -> Option<u64> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|number| 1 << number)
}

pub fn has(set: u64, name: &str) -> bool {
    bit(name).is_some_and(|bit| set & bit != 0)
}

/// The set the security context asks for. An unknown name is an error, as upstream.
pub fn wanted(security: &SecurityContext) -> Result<u64, String> {
    if security.privileged {
        return Ok(ALL);
    }
    let number = |name: &str| bit(name).ok_or_else(|| format!("unknown capability {:?}", format!("CAP_{name}")));
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set = DEFAULT.iter().filter_map(|name| bit(name)).sum();
    if is_all(&security.capabilities.add) {
        set = ALL;
    }
    if is_all(&security.capabilities.drop) {
        set = 0;
    }
    for name in security.capabilities.add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set |= number(name)?;
    }
    for name in security.capabilities.drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set &= !number(name)?;
    }
    Ok(set)
}

/// Reduces the bounding set. Before the user changes.
pub fn limit_bounding(set: u64) -> io::Result<()> {
    for number in 0..64u32 {
        if set & (1 << number) != 0 {
            continue;
        }
        // SAFETY: prctl with plain integers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) } < 0 {
            match io::Error::last_os_error() {
                // The kernel knows no capability of this number, so none above it.
                error if error.raw_os_error() == Some(libc::EINVAL) => break,
                error => return Err(error),
            }
        }
    }
    Ok(())
}

/// Permitted and effective become `set` as far as we hold it ourselves; root keeps them over exec, others lose them, as upstream without ambient ones.
pub fn apply(set: u64) -> io::Result<()> {
    // SAFETY: the header and data are laid out as capset(2) wants for version 3 and outlive the calls.
    unsafe {
        let header: [u32; 2] = [0x2008_0522, 0];
        let mut data = [0u32; 6];
        if libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let permitted = u64::from(data[1]) | u64::from(data[4]) << 32;
        let set = set & permitted;
        let (low, high) = (set as u32, (set >> 32) as u32);
        let data: [u32; 6] = [low, low, 0, high, high, 0];
        if libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::Capabilities;

    #[test]
    fn table() {
        let set = |add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            wanted(&SecurityContext { capabilities: Capabilities { add: list(add), drop: list(drop) }, ..Default::default() })
        };
        assert_eq!(set(&[], &[]), Ok(0xa804_25fb), "the set every container engine starts with");
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]), Ok(1 << 12));
        assert_eq!(set(&["ALL"], &[]), Ok(ALL));
        assert_eq!(set(&["ALL"], &["MKNOD"]), Ok(ALL & !(1 << 27)));
        assert_eq!(set(&["CAP_SYS_ADMIN"], &[]), Ok(0xa804_25fb | 1 << 21));
        assert!(set(&["NOPE"], &[]).is_err());
    }
}
