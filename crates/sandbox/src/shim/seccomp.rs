//! The seccomp filter of `RuntimeDefault`: an allow-list equal in effect to containerd's default profile.
//!
//! Promises: what is not allowed fails with EPERM; calls newer than the list, and `clone3` without CAP_SYS_ADMIN (its flags cannot be
//! inspected), fail with ENOSYS so that C libraries fall back. Unlike upstream a foreign architecture's calls (32-bit programs) get ENOSYS.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

use super::capabilities;

/// Calls every container may make. Those from 424 on have the same number on every architecture.
const ALLOWED: &[c_long] = &[
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_adjtimex, libc::SYS_bind, libc::SYS_brk, libc::SYS_capget, libc::SYS_capset, libc::SYS_chdir,
    libc::SYS_clock_adjtime, libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_close, libc::SYS_connect,
    libc::SYS_copy_file_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_eventfd2,
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_faccessat, libc::SYS_fadvise64, libc::SYS_fallocate,
    libc::SYS_fanotify_mark, libc::SYS_fchdir, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_fcntl,
    libc::SYS_fdatasync, libc::SYS_fgetxattr, libc::SYS_flistxattr, libc::SYS_flock, libc::SYS_fremovexattr, libc::SYS_fsetxattr, libc::SYS_fstat,
    libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_ftruncate, libc::SYS_futex, libc::SYS_getcpu, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_getegid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getgroups, libc::SYS_getitimer, libc::SYS_getpeername, libc::SYS_getpgid, libc::SYS_getpid,
    libc::SYS_getppid, libc::SYS_getpriority, libc::SYS_getrandom, libc::SYS_getresgid, libc::SYS_getresuid, libc::SYS_getrlimit, libc::SYS_get_robust_list,
    libc::SYS_getrusage, libc::SYS_getsid, libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_gettid, libc::SYS_gettimeofday, libc::SYS_getuid,
    libc::SYS_getxattr, libc::SYS_inotify_add_watch, libc::SYS_inotify_init1, libc::SYS_inotify_rm_watch, libc::SYS_io_cancel, libc::SYS_ioctl,
    libc::SYS_io_destroy, libc::SYS_io_getevents, libc::SYS_ioprio_get, libc::SYS_ioprio_set, libc::SYS_io_setup,
    libc::SYS_io_submit, libc::SYS_kill, libc::SYS_lgetxattr, libc::SYS_linkat, libc::SYS_listen, libc::SYS_listxattr, libc::SYS_llistxattr,
    libc::SYS_lremovexattr, libc::SYS_lseek, libc::SYS_lsetxattr, libc::SYS_madvise, libc::SYS_membarrier, libc::SYS_memfd_create, libc::SYS_mincore,
    libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_mlockall, libc::SYS_mmap, libc::SYS_mprotect,
    libc::SYS_mq_getsetattr, libc::SYS_mq_notify, libc::SYS_mq_open, libc::SYS_mq_timedreceive, libc::SYS_mq_timedsend, libc::SYS_mq_unlink,
    libc::SYS_mremap, libc::SYS_msgctl, libc::SYS_msgget, libc::SYS_msgrcv, libc::SYS_msgsnd, libc::SYS_msync, libc::SYS_munlock, libc::SYS_munlockall,
    libc::SYS_munmap, libc::SYS_name_to_handle_at, libc::SYS_nanosleep, libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_pipe2, libc::SYS_pkey_alloc,
    libc::SYS_pkey_free, libc::SYS_pkey_mprotect, libc::SYS_ppoll, libc::SYS_prctl, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2,
    libc::SYS_prlimit64, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pselect6, libc::SYS_ptrace, libc::SYS_pwrite64,
    libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_read, libc::SYS_readahead, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_recvfrom,
    libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_remap_file_pages, libc::SYS_removexattr, libc::SYS_renameat, libc::SYS_renameat2,
    libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_rt_sigaction, libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_rt_tgsigqueueinfo, libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr, libc::SYS_sched_getparam, libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval, libc::SYS_sched_setaffinity, libc::SYS_sched_setattr, libc::SYS_sched_setparam, libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield, libc::SYS_seccomp, libc::SYS_semctl, libc::SYS_semget, libc::SYS_semop, libc::SYS_semtimedop, libc::SYS_sendfile,
    libc::SYS_sendmmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_setfsgid, libc::SYS_setfsuid, libc::SYS_setgid, libc::SYS_setgroups,
    libc::SYS_setitimer, libc::SYS_setpgid, libc::SYS_setpriority, libc::SYS_setregid, libc::SYS_setresgid, libc::SYS_setresuid, libc::SYS_setreuid,
    libc::SYS_setrlimit, libc::SYS_set_robust_list, libc::SYS_setsid, libc::SYS_setsockopt, libc::SYS_set_tid_address, libc::SYS_setuid,
    libc::SYS_setxattr, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt, libc::SYS_shmget, libc::SYS_shutdown, libc::SYS_sigaltstack,
    libc::SYS_signalfd4, libc::SYS_socketpair, libc::SYS_splice, libc::SYS_statfs, libc::SYS_statx, libc::SYS_symlinkat, libc::SYS_sync,
    libc::SYS_sync_file_range, libc::SYS_syncfs, libc::SYS_sysinfo, libc::SYS_tee, libc::SYS_tgkill, libc::SYS_timer_create, libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun, libc::SYS_timer_gettime, libc::SYS_timer_settime, libc::SYS_timerfd_create, libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime, libc::SYS_times, libc::SYS_tkill, libc::SYS_truncate, libc::SYS_umask, libc::SYS_uname, libc::SYS_unlinkat,
    libc::SYS_utimensat, libc::SYS_vmsplice, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_write, libc::SYS_writev,
    424, // pidfd_send_signal
    434, // pidfd_open
    435, // clone3
    436, // close_range
    437, // openat2
    438, // pidfd_getfd
    439, // faccessat2
    440, // process_madvise
    441, // epoll_pwait2
    444, 445, 446, // landlock
    447, // memfd_secret
    448, // process_mrelease
    449, // futex_waitv
    451, // cachestat
    452, // fchmodat2
    453, // map_shadow_stack
    454, 455, 456, // futex_wake, futex_wait, futex_requeue
    457, 458, // statmount, listmount
    462, // mseal
    463, 464, 465, 466, // setxattrat, getxattrat, listxattrat, removexattrat
];

/// Calls which only the older architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_chown, libc::SYS_creat, libc::SYS_dup2, libc::SYS_epoll_create,
    libc::SYS_epoll_ctl_old, libc::SYS_epoll_wait, libc::SYS_epoll_wait_old, libc::SYS_eventfd, libc::SYS_fork, libc::SYS_futimesat, libc::SYS_getdents,
    libc::SYS_getpgrp, libc::SYS_get_thread_area, libc::SYS_inotify_init, libc::SYS_lchown, libc::SYS_link, libc::SYS_lstat, libc::SYS_mkdir,
    libc::SYS_mknod, libc::SYS_modify_ldt, libc::SYS_open, libc::SYS_pause, libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename,
    libc::SYS_rmdir, libc::SYS_select, libc::SYS_set_thread_area, libc::SYS_signalfd, libc::SYS_stat, libc::SYS_symlink, libc::SYS_time,
    libc::SYS_unlink, libc::SYS_utime, libc::SYS_utimes, libc::SYS_vfork,
    333, // io_pgetevents
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[
    292, // io_pgetevents
];

/// Calls that come with a capability.
const WITH_CAPABILITY: &[(&str, &[c_long])] = &[
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    (
        "SYS_ADMIN",
        &[
            libc::SYS_bpf, libc::SYS_clone, libc::SYS_fanotify_init, libc::SYS_lookup_dcookie, libc::SYS_mount, libc::SYS_perf_event_open, libc::SYS_quotactl,
            libc::SYS_setdomainname, libc::SYS_sethostname, libc::SYS_setns, libc::SYS_syslog, libc::SYS_umount2, libc::SYS_unshare,
            428, 429, 430, 431, 432, 433, // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick
            442, 443, // mount_setattr, quotactl_fd
        ],
    ),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_CHROOT", &[libc::SYS_chroot]),
    ("SYS_MODULE", &[libc::SYS_delete_module, libc::SYS_init_module, libc::SYS_finit_module]),
    ("SYS_PACCT", &[libc::SYS_acct]),
    ("SYS_PTRACE", &[libc::SYS_kcmp]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    ("SYS_NICE", &[libc::SYS_get_mempolicy, libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_migrate_pages, libc::SYS_move_pages, 450]),
    ("SYSLOG", &[libc::SYS_syslog]),
    ("BPF", &[libc::SYS_bpf]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
];

/// The newest call the list has an opinion on. Higher ones are unknown to it: ENOSYS.
const NEWEST: u32 = 466;
const CLONE3: u32 = 435;
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;

/// The program for a container which holds `capabilities`.
pub fn runtime_default(set: u64) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut allow = |calls: &[c_long]| {
        for call in calls {
            rules.insert(*call, Vec::new());
        }
    };
    allow(ALLOWED);
    allow(ALLOWED_HERE);
    for (capability, calls) in WITH_CAPABILITY {
        if capabilities::has(set, capability) {
            allow(calls);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if capabilities::has(set, "SYS_RAWIO") {
        allow(&[libc::SYS_iopl, libc::SYS_ioperm]);
    }
    let admin = capabilities::has(set, "SYS_ADMIN");
    let condition = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(|error| error.to_string())
    };
    if !admin {
        rules.insert(libc::SYS_clone, vec![condition(0, SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0)?]);
    }
    let personalities = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|value| condition(0, SeccompCmpOp::Eq, value));
    rules.insert(libc::SYS_personality, personalities.into_iter().collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_socket, vec![condition(0, SeccompCmpOp::Ne, AF_VSOCK)?]);
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, architecture()?).map_err(|error| error.to_string())?;
    let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    Ok(with_prologue(program, admin))
}

pub fn architecture() -> Result<TargetArch, String> {
    std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

/// Puts the ENOSYS answers before the list. All jumps in the list are relative, so it may follow anything.
fn with_prologue(list: BpfProgram, admin: bool) -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;
    #[cfg(target_arch = "x86_64")]
    const NATIVE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: u32 = 0xc000_00b7;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let clone3 = if admin { u32::MAX } else { CLONE3 };
    let mut program = vec![
        step(LOAD, 0, 0, 4),
        step(JUMP_EQUAL, 0, 3, NATIVE),
        step(LOAD, 0, 0, 0),
        step(JUMP_GREATER, 1, 0, NEWEST),
        step(JUMP_EQUAL, 0, 1, clone3),
        step(RETURN, 0, 0, ENOSYS),
    ];
    program.extend(list);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers, by a small interpreter of the instructions in use.
    fn judge(program: &BpfProgram, call: u32, argument: u64) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&call.to_ne_bytes());
        data[4..8].copy_from_slice(&if cfg!(target_arch = "x86_64") { 0xc000_003e_u32 } else { 0xc000_00b7 }.to_ne_bytes());
        data[16..24].copy_from_slice(&argument.to_ne_bytes());
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |holds: bool| if holds { usize::from(step.jt) } else { usize::from(step.jf) };
            match step.code {
                0x20 => accumulator = u32::from_ne_bytes(data[step.k as usize..step.k as usize + 4].try_into().unwrap()),
                0x54 => accumulator &= step.k,
                0x05 => at += step.k as usize,
                0x15 => at += jump(accumulator == step.k),
                0x25 => at += jump(accumulator > step.k),
                0x35 => at += jump(accumulator >= step.k),
                0x06 => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn table() {
        const ALLOW: u32 = 0x7fff_0000;
        const EPERM: u32 = 0x0005_0001;
        const ENOSYS: u32 = 0x0005_0026;
        let plain = runtime_default(0).expect("compiles");
        let admin = runtime_default(1 << 21).expect("compiles");
        for (call, argument, expected, expected_admin) in [
            (libc::SYS_read, 0, ALLOW, ALLOW),
            (libc::SYS_mount, 0, EPERM, ALLOW),
            (libc::SYS_clone, 17, ALLOW, ALLOW),
            (libc::SYS_clone, libc::CLONE_NEWUSER as u64, EPERM, ALLOW),
            (435, 0, ENOSYS, ALLOW),
            (libc::SYS_keyctl, 0, EPERM, EPERM),
            (libc::SYS_socket, libc::AF_INET as u64, ALLOW, ALLOW),
            (libc::SYS_socket, AF_VSOCK, EPERM, EPERM),
            (libc::SYS_personality, 0xffff_ffff, ALLOW, ALLOW),
            (libc::SYS_personality, 1, EPERM, EPERM),
            (425, 0, EPERM, EPERM), // io_uring_setup
            (9999, 0, ENOSYS, ENOSYS),
        ] {
            assert_eq!(judge(&plain, call as u32, argument), expected, "call {call}({argument:#x})");
            assert_eq!(judge(&admin, call as u32, argument), expected_admin, "call {call}({argument:#x}) with CAP_SYS_ADMIN");
        }
    }
}
