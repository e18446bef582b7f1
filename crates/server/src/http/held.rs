//! An answer that is still being made while it is sent, and what has to be held until then.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::answer::{self, Answer};

struct Held<T> {
    body: answer::Body,
    _held: T,
}

impl<T: Unpin> Body for Held<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// `what` is dropped with the answer's body: when it has been sent, or its client is gone.
pub fn until_sent<T: Send + Unpin + 'static>(answer: Answer, what: T) -> Answer {
    answer.map(|body| Held { body, _held: what }.boxed_unsync())
}
