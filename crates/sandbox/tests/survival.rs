//! What outlives whom: containers outlive the main process, nothing outlives the shim, and `reset` leaves nothing.

mod common;

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use common::{World, assert_clean, text, within};
use sandbox::cri::*;
use sandbox::{Embedded, reset};

/// When set, this process plays the main process which will be killed; the directory is its world.
const PLAY_MAIN: &str = "CORACLE_TEST_PLAY_MAIN";

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn handle(pid: i32) -> OwnedFd {
    rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::PidfdFlags::empty()).unwrap()
}

/// Waits for the end of a process.
fn wait_for_end(handle: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut poll, Some(&rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap() == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_the_main_process() {
    if let Ok(dir) = std::env::var(PLAY_MAIN) {
        return play_main(dir.into()).await;
    }
    let dir = World::new_dir();
    let mut main = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "survives_the_main_process", "--nocapture"])
        .env(PLAY_MAIN, &dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ids = Vec::new();
    for line in BufReader::new(main.stdout.take().unwrap()).lines() {
        if let Some(id) = line.unwrap().strip_prefix("id ") {
            ids.push(id.to_owned());
        }
        if ids.len() == 6 {
            break;
        }
    }
    main.kill().unwrap();
    main.wait().unwrap();
    let [sandbox, running, ending, ended, created, pid] = <[String; 6]>::try_from(ids).unwrap();

    // One container ends while nobody looks.
    let handle = handle(pid.parse().unwrap());
    std::fs::write(dir.join("volume/go"), "").unwrap();
    assert!(wait_for_end(&handle));

    let world = World::at(dir);
    let runtime = &world.runtime;
    let mut events = runtime.events();
    let status = runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!((status.state, status.ips.len(), status.metadata.name.as_str()), (SandboxState::Ready, 1, "web"));
    if runtime.container_status(&ending).await.unwrap().state != ContainerState::Exited {
        world.ended(&mut events, &ending).await;
    }
    let status = runtime.container_status(&ending).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (9, "Error"));
    assert_eq!(text(&std::fs::read_to_string(status.log_path).unwrap()), "went\n");
    let status = runtime.container_status(&ended).await.unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 4));
    let status = runtime.container_status(&running).await.unwrap();
    assert_eq!((status.state, status.labels.clone()), (ContainerState::Running, common::labels(&[("a", "b")])));
    let result = within(runtime.exec_sync(&running, command(&["sh", "-c", "echo more > /proc/1/fd/1; echo hi"]), 10)).await.expect("exec");
    assert_eq!(result.stdout, b"hi\n");
    within(runtime.start_container(&created)).await.expect("start what was only created");

    within(runtime.stop_container(&running, 0)).await.expect("stop");
    assert_eq!(text(&std::fs::read_to_string(&status.log_path).unwrap()), "ready\nmore\n");
    within(runtime.remove_pod_sandbox(&sandbox)).await.expect("remove");
    assert!(runtime.list_pod_sandboxes().await.unwrap().is_empty());
    world.reset();
}

async fn play_main(dir: std::path::PathBuf) {
    std::fs::create_dir_all(dir.join("volume")).unwrap();
    let world = World::at(dir);
    let sandbox = world.sandbox("web").await;
    let with_log = |mut config: ContainerConfig, name: &str| {
        config.log_path = format!("{name}.log").into();
        config.labels = common::labels(&[("a", "b")]);
        config.mounts = vec![Mount { container_path: "/volume".to_owned(), host_path: world.dir.join("volume"), ..Default::default() }];
        config
    };
    let running = world.start(&sandbox, with_log(world.shell("echo ready; exec sleep 1000"), "running")).await;
    let ending = world.start(&sandbox, with_log(world.shell("while ! test -e /volume/go; do sleep 0.01; done; echo went; exit 9"), "ending")).await;
    let mut events = world.runtime.events();
    let ended = world.start(&sandbox, with_log(world.shell("exit 4"), "ended")).await;
    world.ended(&mut events, &ended).await;
    let created = world.runtime.create_container(&sandbox, with_log(world.container(&["sleep", "1000"]), "created")).await.unwrap();
    let pid = world.runtime.container_status(&ending).await.unwrap().pid.to_string();
    for id in [sandbox, running, ending, ended, created, pid] {
        println!("id {id}");
    }
    std::future::pending::<()>().await;
}

/// Takes over a pod whose shim does not get to say anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_shim_is_waited_for() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::new();
    let sandbox = world.sandbox("slow").await;
    let id = world.start(&sandbox, world.container(&["sleep", "1000"])).await;
    let pid = world.runtime.container_status(&id).await.unwrap().pid;
    let shim = Pid::from_raw(parent_of(pid)).unwrap();
    kill_process(shim, Signal::STOP).unwrap();
    let config = world.config.clone();
    let successor = Embedded::open(config).expect("open");
    let status = successor.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.pid), (ContainerState::Running, pid), "as it was last written down");
    let execution = tokio::spawn({
        let (successor, id) = (successor.clone(), id.clone());
        async move { successor.exec_sync(&id, command(&["echo", "hi"]), 0).await }
    });
    kill_process(shim, Signal::CONT).unwrap();
    assert_eq!(within(execution).await.unwrap().expect("exec").stdout, b"hi\n");
    let mut events = successor.events();
    within(successor.stop_container(&id, 0)).await.expect("stop");
    if successor.container_status(&id).await.unwrap().state != ContainerState::Exited {
        world.ended(&mut events, &id).await;
    }
    world.reset();
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_the_shim() {
    let world = World::new();
    let sandbox = world.sandbox("web").await;
    let id = world.start(&sandbox, world.shell("sleep 4711 & exec sleep 1000")).await;
    let pid = world.runtime.container_status(&id).await.unwrap().pid;
    let handle = handle(pid);
    let shim = parent_of(pid);
    let mut events = world.runtime.events();
    rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), rustix::process::Signal::KILL).unwrap();
    world.ended(&mut events, &id).await;
    let status = world.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.exit_code, status.reason.as_str()), (ContainerState::Exited, 137, "ContainerStatusUnknown"));
    // The container's end is told before the sandbox's.
    within(async { while events.recv().await.unwrap().container_id.is_some() {} }).await;
    assert_eq!(world.runtime.pod_sandbox_status(&sandbox).await.unwrap().state, SandboxState::NotReady);
    assert!(within(tokio::task::spawn_blocking(move || wait_for_end(&handle))).await.unwrap(), "the container's process lives on");
    assert!(within(world.runtime.create_container(&sandbox, world.container(&["true"]))).await.is_err());
    // A successor knows the same.
    let again = Embedded::open(world.config.clone()).unwrap();
    assert_eq!(again.container_status(&id).await.unwrap().reason, "ContainerStatusUnknown");
    within(again.remove_pod_sandbox(&sandbox)).await.expect("remove");
    assert!(again.list_containers(None).await.unwrap().is_empty());
    world.reset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_leaves_nothing() {
    let world = World::new();
    for name in ["one", "two"] {
        let sandbox = world.sandbox(name).await;
        world.start(&sandbox, world.shell("trap '' TERM; sleep 5000 & while :; do sleep 1000; done")).await;
        world.runtime.create_container(&sandbox, world.container(&["true"])).await.unwrap();
    }
    let report = reset(&world.config).expect("reset");
    assert_eq!((report.shims, report.sandboxes, report.containers), (2, 2, 4));
    assert_clean(&world.dir, &world.cgroup);
    assert_eq!(reset(&world.config).expect("again"), Default::default());
}
