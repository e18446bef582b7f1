//! What we send: one message, or, for a watch, messages as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

pub enum Messages {
    One(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::One(message) => Poll::Ready(message.take().map(|message| Ok(Frame::data(message)))),
            Self::Stream(messages) => messages.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::One(None))
    }
}

/// gRPC's frame around a message: not compressed, its length, itself.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(FRAME_HEAD + message.len());
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

pub const FRAME_HEAD: usize = 5;
