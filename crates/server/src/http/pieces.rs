//! A list's bytes, made piece by piece while they are sent: a list of many megabytes never lies in memory as a whole, and its client begins to read at once.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::encode::List;

/// Large enough that a piece's own costs do not count, small enough to stay in the processor's cache.
const PIECE_BYTES: usize = 128 * 1024;

pub struct Pieces(List);

impl Pieces {
    pub fn new(list: List) -> Self {
        Self(list)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.piece(PIECE_BYTES);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.left() as u64)
    }
}
