//! Which devices a container may use: rules, the list every container gets, and their enforcement in version 2.
//!
//! Version 1 takes the rules as text. Version 2 takes a BPF program of type CGROUP_DEVICE, which is put together here from the rules.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub make: bool,
}

impl DeviceRule {
    pub const fn new(kind: char, major: Option<u32>, minor: Option<u32>) -> Self {
        Self { kind, major, minor, read: true, write: true, make: true }
    }

    const fn make_only(kind: char) -> Self {
        Self { kind, major: None, minor: None, read: false, write: false, make: true }
    }

    pub const EVERYTHING: Self = Self::new('a', None, None);

    /// What runc gives every container: any node may be made, only these may be opened.
    pub const DEFAULT: [Self; 12] = [
        Self::make_only('c'),
        Self::make_only('b'),
        Self::new('c', Some(1), Some(3)),   // null
        Self::new('c', Some(1), Some(5)),   // zero
        Self::new('c', Some(1), Some(7)),   // full
        Self::new('c', Some(1), Some(8)),   // random
        Self::new('c', Some(1), Some(9)),   // urandom
        Self::new('c', Some(5), Some(0)),   // tty
        Self::new('c', Some(5), Some(1)),   // console
        Self::new('c', Some(5), Some(2)),   // ptmx
        Self::new('c', Some(136), None),    // pts
        Self::new('c', Some(10), Some(200)), // net/tun
    ];
}

impl fmt::Display for DeviceRule {
    /// The text version 1 reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{} ", self.kind, number(self.major), number(self.minor))?;
        for (set, letter) in [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')] {
            if set {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Loads the rules as a program and attaches it to the cgroup; it goes with the cgroup.
pub fn attach_filter(cgroup: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let program = filter(rules);
    let license = c"Apache-2.0";
    // struct bpf_attr as BPF_PROG_LOAD reads it: type, instruction count, instructions, license; the rest zero.
    let load: [u64; 16] = {
        let mut words = [0u64; 16];
        words[0] = u64::from(BPF_PROG_TYPE_CGROUP_DEVICE) | (program.len() as u64) << 32;
        words[1] = program.as_ptr() as u64;
        words[2] = license.as_ptr() as u64;
        words
    };
    // SAFETY: the attribute and what it points at outlive the call; the kernel copies them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, load.as_ptr(), size_of_val(&load)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave us a fresh descriptor.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let cgroup = std::fs::File::open(cgroup)?;
    let attach: [u32; 5] = [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, 0];
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One eBPF instruction.
const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    code as u64 | (registers as u64) << 8 | (offset as u16 as u64) << 16 | (immediate as u32 as u64) << 32
}

/// Goes through the rules and returns 1 at the first that permits the access, else 0.
/// The context holds `access_type` (low half: type, high half: access), `major`, `minor`.
fn filter(rules: &[DeviceRule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xb7;
    const MOVE_REGISTER: u8 = 0xbf;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const EXIT: u8 = 0x95;
    // r1 = context; r2 = type, r3 = access, r4 = major, r5 = minor.
    let mut program = vec![
        instruction(LOAD_WORD, 0x12, 0, 0),
        instruction(MOVE_REGISTER, 0x23, 0, 0),
        instruction(AND, 0x02, 0, 0xffff),
        instruction(SHIFT_RIGHT, 0x03, 0, 16),
        instruction(LOAD_WORD, 0x14, 4, 0),
        instruction(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules {
        let denied = !(u32::from(rule.make) | u32::from(rule.read) << 1 | u32::from(rule.write) << 2) & 7;
        // Each check jumps over the rest of its rule.
        let mut checks: Vec<(u8, u32)> = Vec::new();
        match rule.kind {
            'b' => checks.push((0x02, 1)),
            'c' => checks.push((0x02, 2)),
            _ => {}
        }
        checks.extend(rule.major.map(|major| (0x04, major)));
        checks.extend(rule.minor.map(|minor| (0x05, minor)));
        let access = if denied == 0 { 0 } else { 3 };
        let mut left = checks.len() + access + 2;
        for (register, value) in checks {
            left -= 1;
            program.push(instruction(JUMP_NOT_EQUAL, register, left as i16, value as i32));
        }
        if denied != 0 {
            program.push(instruction(MOVE_REGISTER, 0x30, 0, 0));
            program.push(instruction(AND, 0x00, 0, denied as i32));
            program.push(instruction(JUMP_NOT_EQUAL, 0x00, 2, 0));
        }
        program.push(instruction(MOVE, 0x00, 0, 1));
        program.push(instruction(EXIT, 0x00, 0, 0));
    }
    program.push(instruction(MOVE, 0x00, 0, 0));
    program.push(instruction(EXIT, 0x00, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_version_1_expects() {
        assert_eq!(DeviceRule::EVERYTHING.to_string(), "a *:* rwm");
        assert_eq!(DeviceRule::DEFAULT[0].to_string(), "c *:* m");
        assert_eq!(DeviceRule::new('c', Some(136), None).to_string(), "c 136:* rwm");
    }

    #[test]
    fn the_kernel_accepts_the_filter() {
        let root = Path::new("/sys/fs/cgroup/unified");
        let root = if root.exists() { root } else { Path::new("/sys/fs/cgroup") };
        let cgroup = root.join(format!("coracle-devices-{}", std::process::id()));
        std::fs::create_dir(&cgroup).expect("make a cgroup (as root)");
        let result = attach_filter(&cgroup, &DeviceRule::DEFAULT);
        std::fs::remove_dir(&cgroup).expect("remove the cgroup");
        result.expect("load and attach");
    }
}
