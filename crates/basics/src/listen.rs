//! Accepting connections for as long as there is a listener.
//!
//! Mirrors Go's net/http: a failure that is not the connection's own (no descriptors are left, say) is waited out, from [`FIRST_PAUSE`] on, doubling up to [`LONGEST_PAUSE`].
//! The kernel tells nobody when there is room again, and a listener that is asked at once answers the same at once: the loop would take a whole core, and fill the log.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Of the connection that was to come, which went away again.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

/// The next connection. `what` is what cannot be reached meanwhile, in the log. Cancel-safe.
pub async fn accept(listener: &TcpListener, what: &'static str) -> (TcpStream, SocketAddr) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, what, ?pause, "cannot accept a connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
