//! Sessions with a running container: exec, attach, port-forward; and what survives the main process.

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use common::{World, text, within};
use sandbox::cri::*;

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Reads until `wanted` has come, or to the end.
async fn read_until(stream: &OwnedFd, wanted: &str) -> String {
    let mut file = std::fs::File::from(stream.try_clone().unwrap());
    let wanted = wanted.to_owned();
    within(tokio::task::spawn_blocking(move || {
        let (mut seen, mut buffer) = (String::new(), [0u8; 4096]);
        loop {
            let fd = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::IN)];
            let mut fd = fd;
            rustix::event::poll(&mut fd, None).unwrap();
            match file.read(&mut buffer) {
                Ok(0) => return seen,
                Ok(length) => seen.push_str(&String::from_utf8_lossy(&buffer[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return seen,
            }
            if !wanted.is_empty() && seen.contains(&wanted) {
                return seen;
            }
        }
    }))
    .await
    .unwrap()
}

fn write(stream: &OwnedFd, data: &str) {
    std::fs::File::from(stream.try_clone().unwrap()).write_all(data.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let mut config = world.container(&["sleep", "1000"]);
    config.env.push(("A".to_owned(), "1".to_owned()));
    config.security.user.uid = Some(1000);
    let id = world.start(&sandbox, config).await;

    let result = within(world.runtime.exec_sync(&id, command(&["sh", "-c", "echo $A $$; id -u; hostname; echo err >&2; exit 5"]), 10)).await.expect("exec");
    let out = String::from_utf8(result.stdout).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("1 ") && lines[0] != "1 1", "in the container's PID namespace, not its first process: {out}");
    assert_eq!(&lines[1..], ["1000", "web"]);
    assert_eq!((result.stderr.as_slice(), result.exit_code), (b"err\n".as_slice(), 5));

    let much = within(world.runtime.exec_sync(&id, command(&["dd", "if=/dev/zero", "bs=1048576", "count=18"]), 0)).await.expect("exec");
    assert_eq!((much.stdout.len(), much.exit_code), (16 << 20, 0), "more than is kept holds nobody up");
    let error = within(world.runtime.exec_sync(&id, command(&["sh", "-c", "echo x; sleep 100; echo y"]), 1)).await.expect_err("timeout");
    assert!(matches!(error, RuntimeError::Timeout(1)), "{error}");
    let processes = within(world.runtime.exec_sync(&id, command(&["ps"]), 10)).await.expect("ps");
    assert!(!String::from_utf8_lossy(&processes.stdout).contains("sleep 100\n"), "killed with its children");

    let big = "x".repeat(100_000);
    let result = within(world.runtime.exec_sync(&id, command(&["echo", &big]), 10)).await.expect("a long command line");
    assert_eq!(result.stdout.len(), 100_001);
    let result = within(world.runtime.exec_sync(&id, command(&["head", "-c", "1000000", "/dev/zero"]), 10)).await.expect("much output");
    assert_eq!(result.stdout.len(), 1_000_000);

    let error = within(world.runtime.exec_sync(&id, command(&["nosuch"]), 10)).await.expect_err("not found").to_string();
    assert!(error.starts_with("failed to exec in container: failed to start exec \""), "{error}");
    assert!(error.ends_with("\": OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown"), "{error}");

    let streams = within(world.runtime.exec(&id, command(&["cat"]), StreamOptions { stdin: true, stdout: true, stderr: true, tty: false })).await.expect("exec");
    let (stdin, stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    write(&stdin, "hello\n");
    assert_eq!(read_until(&stdout, "\n").await, "hello\n");
    drop(stdin);
    assert_eq!(within(streams.exit).await.unwrap(), 0);
    assert_eq!(read_until(&stdout, "").await, "");

    let streams = within(world.runtime.exec(&id, command(&["sh"]), StreamOptions { stdin: true, stdout: true, stderr: true, tty: true })).await.expect("exec");
    let (stdin, stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    streams.resize.unwrap()(TerminalSize { width: 132, height: 43 });
    write(&stdin, "tty; stty size; echo $TERM; exit 3\n");
    let seen = read_until(&stdout, "").await;
    assert!(seen.contains("/dev/pts/0\r\n") && seen.contains("43 132\r\n") && seen.contains("xterm\r\n"), "{seen}");
    assert_eq!(within(streams.exit).await.unwrap(), 3);

    within(world.runtime.stop_container(&id, 0)).await.unwrap();
    assert!(within(world.runtime.exec_sync(&id, command(&["true"]), 10)).await.is_err());
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let mut config = world.container(&["cat"]);
    config.stdin = true;
    config.stdin_once = true;
    let id = world.start(&sandbox, config).await;
    let streams = within(world.runtime.attach(&id, StreamOptions { stdin: true, stdout: true, stderr: true, tty: false })).await.expect("attach");
    let (stdin, stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    write(&stdin, "one\n");
    assert_eq!(read_until(&stdout, "\n").await, "one\n");
    drop(stdin);
    assert_eq!(within(streams.exit).await.unwrap(), 0);
    assert_eq!(read_until(&stdout, "").await, "");
    let status = world.runtime.container_status(&id).await.unwrap();
    assert_eq!(text(&std::fs::read_to_string(status.log_path).unwrap()), "one\n");

    let mut config = world.shell("echo ready; tty; while read line; do stty size; echo got $line; done");
    (config.stdin, config.tty, config.log_path) = (true, true, "tty.log".into());
    let id = world.start(&sandbox, config).await;
    for round in ["one", "two"] {
        let streams = within(world.runtime.attach(&id, StreamOptions { stdin: true, stdout: true, stderr: false, tty: true })).await.expect("attach");
        streams.resize.unwrap()(TerminalSize { width: 100, height: 30 });
        let (stdin, stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
        write(&stdin, &format!("{round}\n"));
        let seen = read_until(&stdout, &format!("got {round}\r\n")).await;
        assert!(seen.contains("30 100\r\n"), "{seen}");
    }
    let log = std::fs::read_to_string(world.runtime.container_status(&id).await.unwrap().log_path).unwrap();
    assert!(text(&log).contains("ready\n") && text(&log).contains("/dev/pts/0\n"), "{log}");
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_a_port() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let namespace = world.runtime.pod_sandbox_status(&sandbox).await.unwrap().network_namespace.unwrap();
    // What the pod network would do.
    within(tokio::task::spawn_blocking(move || loopback_up(&namespace))).await.unwrap();
    let mut events = world.runtime.events();
    let id = world.start(&sandbox, world.shell("echo hello | nc -l -p 8080 127.0.0.1")).await;
    let mut stream = loop {
        // It may not listen yet; its own exec knows when.
        let ready = within(world.runtime.exec_sync(&id, command(&["grep", "-q", ":1F90 .* 0A ", "/proc/net/tcp"]), 10)).await.expect("exec");
        if ready.exit_code == 0 {
            break within(world.runtime.port_forward(&sandbox, 8080)).await.expect("port forward");
        }
    };
    stream.set_nonblocking(false).unwrap();
    let mut answer = String::new();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello\n");
    world.ended(&mut events, &id).await;
    let error = within(world.runtime.port_forward(&sandbox, 8080)).await.expect_err("nobody listens").to_string();
    assert!(error.contains("onnection refused"), "{error}");
    world.reset();
}

fn loopback_up(namespace: &std::path::Path) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = std::fs::File::open(namespace).unwrap();
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(rustix::thread::LinkNameSpaceType::Network)).unwrap();
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            // SAFETY: ifreq is plain data; the name fits and ends with zero.
            unsafe {
                let mut request: libc::ifreq = std::mem::zeroed();
                request.ifr_name[0] = b'l' as libc::c_char;
                request.ifr_name[1] = b'o' as libc::c_char;
                request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
                assert_eq!(libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS as _, &request), 0);
            }
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_rotated() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let mut config = world.container(&["cat"]);
    config.stdin = true;
    let id = world.start(&sandbox, config).await;
    let path = world.runtime.container_status(&id).await.unwrap().log_path;
    let streams = within(world.runtime.attach(&id, StreamOptions { stdin: true, stdout: true, ..Default::default() })).await.expect("attach");
    let (stdin, stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    write(&stdin, "before\n");
    read_until(&stdout, "before").await;
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    world.runtime.reopen_container_log(&id).await.expect("reopen");
    write(&stdin, "after\n");
    read_until(&stdout, "after").await;
    assert_eq!(text(&std::fs::read_to_string(&path).unwrap()), "after\n");
    assert_eq!(text(&std::fs::read_to_string(path.with_extension("old")).unwrap()), "before\n");
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_pid_namespace() {
    let world = World::new();
    let mut pod = world.pod("shared");
    pod.namespaces.pid = NamespaceMode::Pod;
    let sandbox = within(world.runtime.run_pod_sandbox(pod)).await.expect("run");
    let first = world.start(&sandbox, world.shell("sleep 1234 & exec sleep 1000")).await;
    let second = world.start(&sandbox, world.container(&["sleep", "2000"])).await;
    let processes = |id: String| {
        let runtime = world.runtime.clone();
        async move { String::from_utf8(within(runtime.exec_sync(&id, command(&["ps"]), 10)).await.expect("ps").stdout).unwrap() }
    };
    let seen = processes(first.clone()).await;
    assert!(seen.contains("sleep 1000") && seen.contains("sleep 2000") && seen.contains("sleep 1234"), "{seen}");
    within(world.runtime.stop_container(&first, 0)).await.expect("stop");
    let seen = processes(second).await;
    assert!(!seen.contains("sleep 1234"), "what a container leaves behind is killed with it: {seen}");
    world.reset();
}

/// The processes a container sees, once all of these are among them.
async fn processes_with(world: &World, id: &str, wanted: &[&str]) -> String {
    within(async {
        loop {
            let seen = String::from_utf8(world.runtime.exec_sync(id, command(&["ps"]), 10).await.expect("ps").stdout).unwrap();
            if wanted.iter().all(|wanted| seen.contains(wanted)) {
                return seen;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_containers_processes() {
    let world = World::new();
    let sandbox = world.sandbox("debugged").await;
    let target = world.start(&sandbox, world.shell("sleep 1234 & exec sleep 1000")).await;
    let debug = |script: &str| ContainerConfig { pid_of: Some(target.clone()), ..world.shell(script) };
    let first = world.start(&sandbox, debug("sleep 4711 & exec sleep 2000")).await;
    processes_with(&world, &first, &["    1 root     sleep 1000", "sleep 1234", "sleep 4711", "sleep 2000"]).await;
    let namespace = |id: String| {
        let runtime = world.runtime.clone();
        async move { std::fs::read_link(format!("/proc/{}/ns/pid", runtime.container_status(&id).await.unwrap().pid)).unwrap() }
    };
    assert_eq!(namespace(first.clone()).await, namespace(target.clone()).await);

    within(world.runtime.stop_container(&first, 0)).await.expect("stop");
    let seen = processes_with(&world, &target, &["sleep 1000", "sleep 1234"]).await;
    assert!(!seen.contains("sleep 2000") && !seen.contains("sleep 4711"), "what it leaves behind is killed with it: {seen}");

    // The first process of the namespace takes everybody with it.
    let second = world.start(&sandbox, debug("exec sleep 3000")).await;
    let created = world.runtime.create_container(&sandbox, debug("exec sleep 3000")).await.expect("create");
    let mut events = world.runtime.events();
    within(world.runtime.stop_container(&target, 0)).await.expect("stop");
    if world.runtime.container_status(&second).await.unwrap().state != ContainerState::Exited {
        world.ended(&mut events, &second).await;
    }
    assert_eq!(world.runtime.container_status(&second).await.unwrap().exit_code, 137);

    let error = within(world.runtime.start_container(&created)).await.expect_err("the target has ended").to_string();
    assert_eq!(error, format!("start container: invalid target container: container {target} is not running"));
    let error = world.runtime.create_container(&sandbox, debug("true")).await.expect_err("the target has ended").to_string();
    assert_eq!(error, format!("invalid target container: container {target} is not running - in state CONTAINER_EXITED"));
    let other = world.sandbox("other").await;
    let error = world.runtime.create_container(&other, debug("true")).await.expect_err("another pod's").to_string();
    assert_eq!(error, format!("invalid target container: container {target} (sandbox {sandbox}) does not belong to sandbox {other}"));
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_namespaces() {
    let world = World::new();
    let mut pod = world.pod("host");
    pod.namespaces = NamespaceOptions { network: NamespaceMode::Node, pid: NamespaceMode::Node, ipc: NamespaceMode::Node, uts_host: true };
    let sandbox = within(world.runtime.run_pod_sandbox(pod)).await.expect("run");
    assert!(world.runtime.pod_sandbox_status(&sandbox).await.unwrap().network_namespace.is_none());
    let (_, log) = world.run(&sandbox, world.shell("for n in net pid ipc; do readlink /proc/self/ns/$n; done; hostname")).await;
    let link = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(text(&log), format!("{}\n{}\n{}\n{hostname}", link("net"), link("pid"), link("ipc")));
    let stubborn = world.start(&sandbox, world.shell("sleep 4321 & exec sleep 1000")).await;
    within(world.runtime.stop_container(&stubborn, 0)).await.expect("stop");
    world.reset();
}
