//! Containers as a pod sees them: what runs, what it sees, what is written down of it.

mod common;

use common::{World, text, within};
use sandbox::cri::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_to_the_end() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;

    let (status, log) = world.run(&sandbox, world.shell("echo out; echo err >&2; exit 3")).await;
    assert_eq!((status.state, status.exit_code, status.reason.as_str()), (ContainerState::Exited, 3, "Error"));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at && status.created_at > 0);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_by_key(|line| line.contains("stderr"));
    assert_eq!(lines.len(), 2, "{log}");
    let fields: Vec<&str> = lines[0].splitn(4, ' ').collect();
    assert_eq!(&fields[1..], ["stdout", "F", "out"]);
    assert!(fields[0].ends_with('Z') && fields[0].len() == "2016-10-06T00:17:09.669794202Z".len(), "{}", fields[0]);
    assert!(lines[1].ends_with(" stderr F err"));

    let (status, _) = world.run(&sandbox, world.container(&["true"])).await;
    assert_eq!((status.exit_code, status.reason.as_str(), status.pid), (0, "Completed", 0));
    let (status, _) = world.run(&sandbox, world.shell("kill -KILL $$; true")).await;
    assert_eq!(status.exit_code, 0, "process 1 cannot kill itself");

    let (_, log) = world.run(&sandbox, world.shell("head -c 20000 /dev/zero | tr '\\0' x; echo; echo -n end")).await;
    let shape: Vec<(&str, usize)> = log.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>()).map(|fields| (fields[2], fields[3].len())).collect();
    assert_eq!(shape, [("P", 16384), ("F", 3616), ("P", 3)]);
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sees_its_own_world() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    std::fs::create_dir_all(world.dir.join("volume")).unwrap();
    std::fs::write(world.dir.join("volume/file"), "from the host\n").unwrap();
    std::fs::write(world.dir.join("hosts"), "127.0.0.1 localhost\n").unwrap();

    let mut config = world.shell(
        "pwd; id; hostname; echo $A; echo $HOME; cat /etc/hostname /etc/hosts /etc/resolv.conf /vol/file; echo $$; \
         touch /vol/x 2>&1; cat /proc/self/oom_score_adj; ls /dev | tr '\\n' ' '; cat /proc/sys/kernel/hostname; grep -E 'Seccomp:|NoNewPrivs|CapEff|CapBnd' /proc/self/status; \
         ls /proc/acpi /proc/scsi 2>/dev/null | grep -v :; cat /sys/fs/cgroup/pids/pids.max; echo 1 > /proc/sys/kernel/hostname",
    );
    config.working_dir = "/work/new".to_owned();
    config.env.push(("A".to_owned(), "b c".to_owned()));
    config.security.user.username = Some("app".to_owned());
    config.security.no_new_privs = true;
    config.resources.oom_score_adj = Some(999);
    config.resources.pids_limit = Some(50);
    config.mounts = vec![
        Mount { container_path: "/vol".to_owned(), host_path: world.dir.join("volume"), readonly: true, ..Default::default() },
        Mount { container_path: "/etc/hosts".to_owned(), host_path: world.dir.join("hosts"), ..Default::default() },
    ];
    let (status, log) = world.run(&sandbox, config).await;
    let log = text(&log);
    let expected = "/work/new\nuid=1000(app) gid=1001(app) groups=1001(app),1500(extra)\nweb\nb c\n/home/app\nweb\n127.0.0.1 localhost\n\
                    search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\nfrom the host\n1\ntouch: /vol/x: Read-only file system\n999\n\
                    fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero web\n";
    assert!(log.starts_with(expected), "{log}");
    let rest = &log[expected.len()..];
    assert!(rest.contains("CapEff:\t0000000000000000\n") && rest.contains("CapBnd:\t00000000a80425fb\n"), "{rest}");
    assert!(rest.contains("NoNewPrivs:\t1\n") && rest.contains("Seccomp:\t2\n"), "{rest}");
    assert!(rest.contains("\n50\n"), "{rest}");
    assert_eq!(status.exit_code, 1, "{rest}");

    // Root, and what it may not do.
    let (_, log) = world.run(&sandbox, world.shell("grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status | tr '\\n\\t' '  '; unshare -n true 2>&1; mount -t tmpfs x /tmp 2>&1; touch /new && ls /new; cat /dev/null; echo >/proc/sys/kernel/domainname")).await;
    let log = text(&log);
    assert!(log.starts_with("CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 unshare: unshare(0x40000000): Operation not permitted\n"), "{log}");
    assert!(log.contains("permission denied") && log.contains("/new\n") && log.contains("Read-only file system"), "{log}");

    let mut privileged = world.shell("grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo mounted; test -e /dev/kmsg && echo kmsg; echo >/proc/sys/kernel/ngroups_max 2>&1 | grep -c Read-only");
    privileged.security.privileged = true;
    let (_, log) = world.run(&sandbox, privileged).await;
    assert!(text(&log).contains("mounted\nkmsg\n"), "{log}");

    std::fs::write(world.dir.join("profile.json"), r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#).unwrap();
    for no_new_privs in [false, true] {
        let mut profiled = world.shell("mkdir /x; echo done");
        profiled.security.seccomp = SeccompProfile::Localhost(world.dir.join("profile.json"));
        profiled.security.no_new_privs = no_new_privs;
        let (_, log) = world.run(&sandbox, profiled).await;
        assert!(text(&log).contains("mkdir: can't create directory '/x': Operation not supported\n") && text(&log).contains("done\n"), "{log}");
    }

    let mut readonly = world.shell("touch /new 2>&1; touch /dev/shm/x && echo ok");
    readonly.security.readonly_rootfs = true;
    let (_, log) = world.run(&sandbox, readonly).await;
    assert_eq!(text(&log), "touch: /new: Read-only file system\nok\n");
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_why_it_cannot_start() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let prefix = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";
    let mut missing_mount = world.container(&["true"]);
    missing_mount.mounts = vec![Mount { container_path: "/x".to_owned(), host_path: "/no/such".into(), ..Default::default() }];
    let mut nobody = world.container(&["true"]);
    nobody.security.user.username = Some("nobody".to_owned());
    for (config, cause) in [
        (world.container(&["nosuch"]), r#"exec: "nosuch": executable file not found in $PATH"#),
        (world.container(&["/no/such"]), r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        (world.container(&["/etc/plain"]), r#"exec: "/etc/plain": permission denied"#),
        (world.container(&["/etc"]), r#"exec: "/etc": is a directory"#),
        (missing_mount, r#"error during container init: error mounting "/no/such" to rootfs at "/x": no such file or directory"#),
        (nobody, "unable to find user nobody: no matching entries in passwd file"),
    ] {
        let id = world.runtime.create_container(&sandbox, config).await.expect("create");
        let error = within(world.runtime.start_container(&id)).await.expect_err("must fail");
        assert_eq!(error.to_string(), format!("{prefix}{cause}: unknown"));
        assert!(matches!(error, RuntimeError::Start(_)));
        let status = world.runtime.container_status(&id).await.unwrap();
        assert_eq!((status.state, status.exit_code, status.reason.as_str()), (ContainerState::Exited, 128, "StartError"));
        assert_eq!(status.message, error.to_string());
        within(world.runtime.remove_container(&id)).await.expect("remove");
    }
    // The kernel's own refusal comes too late for that, as upstream.
    let (status, log) = world.run(&sandbox, world.container(&["script"])).await;
    assert_eq!((status.exit_code, text(&log).as_str()), (255, "exec /bin/script: exec format error\n"));
    assert!(matches!(world.runtime.container_status("nosuch").await, Err(RuntimeError::NotFound { .. })));
    within(world.runtime.remove_container("nosuch")).await.expect("removing what is gone succeeds");
    within(world.runtime.remove_pod_sandbox("nosuch")).await.expect("removing what is gone succeeds");
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_limited_and_measured() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let mut greedy = world.container(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M"]);
    greedy.resources.memory_limit_bytes = Some(32 << 20);
    greedy.resources.cpu_shares = Some(512);
    let (status, _) = world.run(&sandbox, greedy).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));

    let mut config = world.shell("head -c 100000 /dev/zero > /file; echo ready; sleep 1000");
    config.resources.memory_limit_bytes = Some(64 << 20);
    let id = world.start(&sandbox, config).await;
    let result = within(world.runtime.exec_sync(&id, vec!["sh".into(), "-c".into(), "while ! test -s /file; do :; done; cat /sys/fs/cgroup/memory/memory.limit_in_bytes".into()], 10)).await.expect("exec");
    assert_eq!(String::from_utf8_lossy(&result.stdout), "67108864\n");
    world.runtime.update_container_resources(&id, LinuxResources { memory_limit_bytes: Some(128 << 20), ..Default::default() }).await.expect("update");
    let result = within(world.runtime.exec_sync(&id, vec!["cat".into(), "/sys/fs/cgroup/memory/memory.limit_in_bytes".into()], 10)).await.expect("exec");
    assert_eq!(String::from_utf8_lossy(&result.stdout), "134217728\n");
    let stats = world.runtime.container_stats(&id).await.expect("stats");
    assert!(stats.cpu_usage_core_ns > 0 && stats.memory_usage_bytes > 0 && stats.pids >= 1 && stats.rootfs_used_bytes >= 100_000, "{stats:?}");
    assert_eq!(world.runtime.container_status(&id).await.unwrap().resources.memory_limit_bytes, Some(128 << 20));
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_with_grace_and_without() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let polite = world.start(&sandbox, world.shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done")).await;
    let stubborn = world.start(&sandbox, world.shell("trap '' TERM; echo ready; while :; do sleep 1000; done")).await;
    for id in [&polite, &stubborn] {
        within(world.runtime.exec_sync(id, vec!["true".into()], 10)).await.expect("exec");
    }
    within(world.runtime.stop_container(&polite, 20)).await.expect("stop");
    let status = world.runtime.container_status(&polite).await.unwrap();
    assert!(status.exit_code == 7 || status.exit_code == 143, "{status:?}");
    let begun = std::time::Instant::now();
    within(world.runtime.stop_container(&stubborn, 1)).await.expect("stop");
    assert!(begun.elapsed().as_secs_f32() >= 1.0);
    assert_eq!(world.runtime.container_status(&stubborn).await.unwrap().exit_code, 137);
    within(world.runtime.stop_container(&stubborn, 1)).await.expect("stop again");

    let third = world.start(&sandbox, world.container(&["sleep", "1000"])).await;
    within(world.runtime.stop_pod_sandbox(&sandbox)).await.expect("stop sandbox");
    within(world.runtime.stop_pod_sandbox(&sandbox)).await.expect("stop sandbox again");
    assert_eq!(world.runtime.container_status(&third).await.unwrap().exit_code, 137);
    assert_eq!(world.runtime.pod_sandbox_status(&sandbox).await.unwrap().state, SandboxState::NotReady);
    within(world.runtime.remove_pod_sandbox(&sandbox)).await.expect("remove sandbox");
    assert!(world.runtime.list_containers(None).await.unwrap().is_empty());
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_and_devices() {
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let shared = world.dir.join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    mount("tmpfs", &shared, "tmpfs", MountFlags::empty(), None).unwrap();
    mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
    for dir in ["from-host", "from-container", "nested"] {
        std::fs::create_dir(shared.join(dir)).unwrap();
    }
    mount("tmpfs", shared.join("nested"), "tmpfs", MountFlags::empty(), None).unwrap();
    let mut config = world.container(&["sleep", "1000"]);
    config.security.privileged = true;
    let volume = |container_path: &str, propagation, readonly| Mount { container_path: container_path.to_owned(), host_path: world.dir.join("shared"), readonly, propagation, ..Default::default() };
    config.mounts = vec![
        volume("/private", MountPropagation::Private, true),
        volume("/slave", MountPropagation::HostToContainer, false),
        volume("/both", MountPropagation::Bidirectional, false),
    ];
    config.devices = vec![Device { container_path: "/dev/deep/mem".to_owned(), host_path: "/dev/zero".to_owned(), permissions: "r".to_owned() }];
    let id = world.start(&sandbox, config).await;
    let run = async |script: &str| {
        let result = within(world.runtime.exec_sync(&id, vec!["sh".into(), "-c".into(), script.into()], 10)).await.expect("exec");
        String::from_utf8([result.stdout, result.stderr].concat()).unwrap()
    };
    // A read-only volume is so all the way down.
    assert_eq!(run("touch /private/x; touch /private/nested/x; touch /slave/nested/ok && ls /private/nested").await, "ok\ntouch: /private/x: Read-only file system\ntouch: /private/nested/x: Read-only file system\n");
    mount("tmpfs", shared.join("from-host"), "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(shared.join("from-host/seen"), "").unwrap();
    assert_eq!(run("ls /private/from-host /slave/from-host /both/from-host | grep -c seen").await, "2\n");
    run("mount -t tmpfs x /both/from-container && touch /both/from-container/seen").await;
    assert!(shared.join("from-container/seen").exists());
    run("mkdir /slave/mine && mount -t tmpfs x /slave/mine && touch /slave/mine/unseen").await;
    assert!(shared.join("mine").exists() && !shared.join("mine/unseen").exists());
    assert_eq!(run("head -c 4 /dev/deep/mem | wc -c").await, "4\n");
    within(world.runtime.stop_container(&id, 0)).await.unwrap();
    unmount(&shared, UnmountFlags::DETACH).unwrap();

    // A link in an image leads nowhere but within the container.
    let mut config = world.shell("cat /evil/file; ls -d /etc/passwd");
    std::fs::create_dir_all(world.dir.join("evil/layer")).unwrap();
    std::os::unix::fs::symlink("/../../etc", world.dir.join("evil/layer/evil")).unwrap();
    std::fs::write(world.dir.join("secret"), "content\n").unwrap();
    config.rootfs.layers.insert(0, world.dir.join("evil/layer"));
    config.mounts = vec![Mount { container_path: "/evil/file".to_owned(), host_path: world.dir.join("secret"), ..Default::default() }];
    let (_, log) = world.run(&sandbox, config).await;
    assert_eq!(text(&log), "content\n/etc/passwd\n");
    assert!(!std::path::Path::new("/etc/file").exists());

    // Nor does a link that somebody put where a part of a volume was.
    let volume = world.dir.join("parts");
    std::fs::create_dir_all(volume.join("real/deep")).unwrap();
    std::fs::write(volume.join("real/deep/file"), "part\n").unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("swapped")).unwrap();
    std::os::unix::fs::symlink("real", volume.join("within")).unwrap();
    let part = |part: &str| {
        let mut config = world.shell("cat /part/file");
        config.mounts = vec![Mount { container_path: "/part".to_owned(), host_path: volume.clone(), sub_path: part.into(), ..Default::default() }];
        config
    };
    let (_, log) = world.run(&sandbox, part("real/deep")).await;
    assert_eq!(text(&log), "part\n");
    for (wrong, why) in [("swapped", "too many levels of symbolic links"), ("within/deep", "too many levels of symbolic links"), ("../parts/real/deep", "invalid cross-device link")] {
        let id = world.runtime.create_container(&sandbox, part(wrong)).await.expect("create");
        let error = within(world.runtime.start_container(&id)).await.expect_err("must fail").to_string();
        assert!(error.contains(&format!("error mounting {:?} to rootfs at \"/part\": {why}", volume.join(wrong).display().to_string())), "{error}");
        within(world.runtime.remove_container(&id)).await.expect("remove");
    }

    // Not among the allowed devices: may be made, not opened.
    let (_, log) = world.run(&sandbox, world.shell("mknod /mem c 1 1 && head -c 1 /mem 2>&1")).await;
    assert_eq!(text(&log), "head: /mem: Operation not permitted\n");
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once() {
    let world = World::new();
    let mut events = world.runtime.events();
    let pods = (0..12).map(|number| {
        let (runtime, mut pod) = (world.runtime.clone(), world.pod(&format!("pod{number}")));
        pod.metadata.uid = number.to_string();
        let configs = [world.shell(&format!("echo {number}")), world.container(&["sleep", "1000"])];
        tokio::spawn(async move {
            let sandbox = within(runtime.run_pod_sandbox(pod)).await.expect("run");
            for (index, mut config) in configs.into_iter().enumerate() {
                config.log_path = format!("{index}.log").into();
                let id = runtime.create_container(&sandbox, config).await.expect("create");
                within(runtime.start_container(&id)).await.expect("start");
            }
            sandbox
        })
    });
    let pods: Vec<_> = pods.collect();
    for pod in pods {
        pod.await.unwrap();
    }
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < 12 {
        let event = within(events.recv()).await.unwrap();
        if event.kind == ContainerEventKind::Stopped {
            ended.insert(event.pod_uid);
        }
    }
    let containers = world.runtime.list_containers(None).await.unwrap();
    assert_eq!(containers.iter().filter(|status| status.state == ContainerState::Running).count(), 12);
    assert_eq!(containers.iter().filter(|status| status.reason == "Completed").count(), 12);
    world.reset();
}
