//! Following the kernel's word of changes (rtnetlink multicast): a task that sleeps until there is some, takes all of it at once, and ends with its last listener. Nothing polls.

use std::io;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::netlink::{Socket, messages};

/// Whether anything in what has come is `relevant`, by a message's kind and payload. What got lost may have been anything.
fn take(socket: &Socket, buffer: &mut Vec<u8>, relevant: &impl Fn(u16, &[u8]) -> bool) -> io::Result<bool> {
    let mut changed = false;
    loop {
        match socket.receive(buffer) {
            Ok(None) => return Ok(changed),
            Ok(Some(length)) => changed |= messages(&buffer[..length]).any(|(kind, _, _, payload)| relevant(kind, payload)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE)) => changed = true,
            Err(error) => return Err(error),
        }
    }
}

/// Calls `tell` after each burst of changes with a relevant one among them, until nobody listens to `sender`. `what` is what else would go unnoticed.
pub fn follow<T: Send + Sync + 'static>(
    socket: AsyncFd<Socket>,
    sender: watch::Sender<T>,
    what: &'static str,
    relevant: impl Fn(u16, &[u8]) -> bool + Send + 'static,
    tell: impl Fn(&watch::Sender<T>) + Send + 'static,
) {
    tokio::spawn(async move {
        let mut buffer = Vec::new();
        loop {
            let ready = tokio::select! {
                ready = socket.readable() => ready,
                () = sender.closed() => return,
            };
            let taken = ready.and_then(|mut ready| {
                let changed = take(socket.get_ref(), &mut buffer, &|kind, payload| relevant(kind, payload))?;
                ready.clear_ready();
                Ok(changed)
            });
            match taken {
                Ok(true) => tell(&sender),
                Ok(false) => {}
                Err(error) => return tracing::error!(%error, what, "changes of this node go unnoticed"),
            }
        }
    });
}
