//! One watch on a stream of its own.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::connection::{Connection, status, take_message};
use crate::error::Error;
use crate::messages::{self, WatchAnswer};

/// Dropping it ends the watch.
pub struct Watching {
    connection: Connection,
    body: Incoming,
    buffer: BytesMut,
    /// The stream is open as long as more may be asked on it.
    _requests: mpsc::Sender<Bytes>,
}

impl Watching {
    pub(crate) fn new(connection: Connection, body: Incoming, requests: mpsc::Sender<Bytes>) -> Self {
        Self { connection, body, buffer: BytesMut::new(), _requests: requests }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Which member it runs at.
    pub fn origin(&self) -> &str {
        self.connection.origin()
    }

    /// The next answer. Cancel-safe.
    pub async fn next(&mut self) -> Result<WatchAnswer, Error> {
        loop {
            if let Some(message) = take_message(&mut self.buffer)? {
                return messages::watch_answer(message);
            }
            match self.body.frame().await {
                None => return Err(Error::Broken(format!("{}: the watch has ended", self.connection.origin()))),
                Some(Err(error)) => return Err(self.connection.broken(&error)),
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        status(trailers)?;
                    } else if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
