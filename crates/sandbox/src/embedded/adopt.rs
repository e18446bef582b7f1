//! Taking over what an earlier process left: running shims are connected to again, and what ended meanwhile is known from disk.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Inner;
use super::link::{Link, follow, follow_again, is_gone};
use super::records::{Container, Sandbox};
use crate::cri::ContainerState;
use crate::layout::{ContainerFile, Run, SandboxFile, SandboxStatusFile, names, read_json, socket_name};
use crate::protocol::{self, Message};

/// How long the start waits for a running shim to greet us; later it is heard all the same.
const GREETING_SECONDS: i64 = 3;

pub fn adopt(inner: &Arc<Inner>) -> io::Result<()> {
    let layout = &inner.layout;
    for id in names(&layout.containers())? {
        let file: ContainerFile = match read_json(&layout.container_config(&id)) {
            Ok(file) => file,
            Err(error) => {
                // Its creation was cut short: nobody has heard of it.
                tracing::warn!(container = id, %error, "removing a container without a configuration");
                remove(&layout.container(&id));
                continue;
            }
        };
        let run = read_json::<Run>(&layout.run(&id)).unwrap_or_default();
        let container = Container::new(id.clone(), file.sandbox_id, file.created_at, file.config, run);
        inner.containers.lock().insert(id, Arc::new(container));
    }
    for id in names(&layout.sandboxes())? {
        match read_json::<SandboxFile>(&layout.sandbox_config(&id)) {
            Ok(file) => {
                // Without a status it never was ready, and is to be removed by the node.
                let status = read_json::<SandboxStatusFile>(&layout.sandbox_status(&id)).unwrap_or_default();
                adopt_sandbox(inner, Sandbox::new(id, file.created_at, file.config, status));
            }
            Err(error) => {
                tracing::warn!(sandbox = id, %error, "removing a sandbox without a configuration");
                remove(&layout.sandbox(&id));
            }
        }
    }
    let mut containers = inner.containers.lock();
    let sandboxes = inner.sandboxes.lock();
    containers.retain(|id, container| {
        let known = sandboxes.contains_key(&container.sandbox_id);
        if !known {
            remove(&layout.container(id));
        }
        known
    });
    Ok(())
}

/// What is left of one must not keep the others from being taken over.
fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(folder = %folder.display(), %error, "cannot remove what is left of a container or sandbox"),
    }
}

fn adopt_sandbox(inner: &Arc<Inner>, sandbox: Sandbox) {
    let sandbox = Arc::new(sandbox);
    inner.sandboxes.lock().insert(sandbox.id.clone(), sandbox.clone());
    match greet(inner, &sandbox) {
        Ok(Greeting::Heard(link, containers)) => {
            for container in inner.containers_of(&sandbox.id) {
                if let Some((_, run)) = containers.iter().find(|(id, _)| *id == container.id) {
                    container.run.send_replace(run.clone());
                }
                // Else we died between creating and starting it.
                container.start_asked.store(container.state() != ContainerState::Created, Ordering::Relaxed);
            }
            tokio::spawn(follow(inner.clone(), sandbox, link));
        }
        Ok(Greeting::Awaited(link)) => {
            tracing::warn!(sandbox = sandbox.id, seconds = GREETING_SECONDS, "the shim of a pod runs but has said nothing yet: until it does, its containers are as they were last written down");
            tokio::spawn(follow(inner.clone(), sandbox, link));
        }
        Err(Failure::Gone(error)) => {
            if sandbox.status.lock().ready {
                tracing::warn!(sandbox = sandbox.id, %error, "the shim of a pod is gone");
            }
            sandbox.stopping.store(true, Ordering::Relaxed);
            inner.bury(&sandbox);
            sandbox.ended.send_replace(true);
        }
        Err(Failure::Unknown(error)) => {
            tracing::warn!(sandbox = sandbox.id, %error, "cannot reach the shim of a pod yet");
            tokio::spawn(follow_again(inner.clone(), sandbox));
        }
    }
}

enum Greeting {
    /// The containers it has.
    Heard(Arc<Link>, Vec<(String, Run)>),
    /// It is there, but slow: what it says when it does is taken note of.
    Awaited(Arc<Link>),
}

enum Failure {
    /// There is no shim, or it never made its sandbox.
    Gone(io::Error),
    /// That says nothing of the shim, and its pod must not die of it.
    Unknown(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if is_gone(&error) { Self::Gone(error) } else { Self::Unknown(error) }
    }
}

/// Connects and reads the greeting, blocking: afterwards every state is known, but for those of a shim that takes long.
fn greet(inner: &Inner, sandbox: &Sandbox) -> Result<Greeting, Failure> {
    let socket = protocol::connect(&inner.layout.socket_dir(), &socket_name(&sandbox.id))?;
    let timeout = Timespec { tv_sec: GREETING_SECONDS, tv_nsec: 0 };
    poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)).map_err(io::Error::from)?;
    let heard = protocol::receive::<Message>(socket.as_fd());
    let containers = match heard {
        Ok(Some((Message::Hello { pid, containers }, _))) => {
            sandbox.shim_pid.store(pid, Ordering::Relaxed);
            Some(containers)
        }
        Ok(Some((Message::Failed { error }, _))) => return Err(Failure::Gone(io::Error::other(error))),
        Ok(_) => return Err(Failure::Unknown(io::Error::other("the shim does not answer"))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => return Err(Failure::Unknown(error)),
    };
    let link = Arc::new(Link::new(socket)?);
    *sandbox.link.lock() = Some(link.clone());
    Ok(match containers {
        Some(containers) => Greeting::Heard(link, containers),
        None => Greeting::Awaited(link),
    })
}
