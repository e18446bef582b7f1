//! Version 2 of cgroups, on whatever machine: in a mount namespace of its own the process sees only a version-2 tree. Where the controllers belong to
//! version 1 that tree has none, so limits are not tested here; joining, namespaces, the device filter and killing are.

mod common;

use std::os::unix::process::CommandExt;
use std::process::Command;

use common::{World, text, within};
use sandbox::cri::*;

const INSIDE: &str = "CORACLE_TEST_CGROUP2";

#[test]
fn containers_on_version_2() {
    if std::env::var_os(INSIDE).is_some() {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(inside());
        return;
    }
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "containers_on_version_2", "--nocapture"]).env(INSIDE, "1");
    // SAFETY: only system calls between fork and exec.
    unsafe {
        test.pre_exec(|| {
            use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            unmount("/sys/fs/cgroup", UnmountFlags::DETACH)?;
            mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None)?;
            Ok(())
        });
    }
    assert!(test.status().unwrap().success());
}

async fn inside() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let script = "cat /proc/self/cgroup | grep ^0; ls /sys/fs/cgroup | grep -c cgroup.procs; cat /sys/fs/cgroup/cgroup.procs | head -1; mkdir /sys/fs/cgroup/x 2>&1; \
                  cat /dev/vda 2>&1 >/dev/null; echo > /dev/null && echo null";
    let mut config = world.shell(script);
    config.devices = Vec::new();
    let (status, log) = world.run(&sandbox, config).await;
    assert_eq!(text(&log), "0::/\n1\n1\nmkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system\ncat: can't open '/dev/vda': No such file or directory\nnull\n");
    assert_eq!(status.exit_code, 0);

    // A node can be made by anyone who may, but only the allowed ones open.
    let (_, log) = world.run(&sandbox, world.shell("mknod /mem c 1 1 && cat /mem 2>&1 | head -c 60; mknod /zero c 1 5 && head -c 3 /zero | wc -c")).await;
    assert_eq!(text(&log), "cat: can't open '/mem': Operation not permitted\n3\n");

    let id = world.start(&sandbox, world.shell("sleep 1000 & exec sleep 1000")).await;
    let result = within(world.runtime.exec_sync(&id, vec!["cat".into(), "/proc/self/cgroup".into()], 10)).await.expect("exec");
    assert!(String::from_utf8_lossy(&result.stdout).contains("0::/\n"));
    within(world.runtime.stop_container(&id, 0)).await.expect("stop");
    within(world.runtime.remove_pod_sandbox(&sandbox)).await.expect("remove");
    assert!(!std::path::Path::new("/sys/fs/cgroup").join(&world.cgroup).join("burstable/pod-web").exists());
    sandbox::reset(&world.config).expect("reset");
    assert!(!std::path::Path::new("/sys/fs/cgroup").join(&world.cgroup).exists());
}
