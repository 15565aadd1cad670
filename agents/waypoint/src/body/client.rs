//! The body of a request as the client sends it; its beginning may have been peeked at.
//!
//! Invariant: peeked bytes are forwarded unchanged before the rest. At most as many bytes are held as were asked for, and
//! the frame that follows them.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// The body of a client's request.
#[derive(Debug)]
pub struct ClientBody {
    held: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// All of `rest` was read.
    is_read: bool,
    rest: Incoming,
}

/// The beginning of a body, as it was peeked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// At most as many bytes as were asked for.
    pub bytes: Bytes,
    /// Whether it is the whole body.
    pub is_whole: bool,
}

impl From<Incoming> for ClientBody {
    fn from(rest: Incoming) -> Self {
        Self { held: VecDeque::new(), trailers: None, is_read: false, rest }
    }
}

impl ClientBody {
    /// Reads until `most` bytes are held and it is known whether more follow, or to the end. Cancel safe.
    ///
    /// # Errors
    /// When the client aborts the body.
    pub async fn peek(&mut self, most: usize) -> Result<Peeked, hyper::Error> {
        while !self.is_read && self.held_bytes() <= most {
            match self.rest.frame().await {
                None => self.is_read = true,
                Some(frame) => match frame?.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => self.held.push_back(data),
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.is_read = true;
                    }
                },
            }
            self.is_read |= self.rest.is_end_stream();
        }
        let mut bytes = BytesMut::with_capacity(self.held_bytes().min(most));
        for piece in &self.held {
            let room = most.saturating_sub(bytes.len()).min(piece.len());
            bytes.extend_from_slice(piece.get(..room).unwrap_or_default());
        }
        Ok(Peeked { bytes: bytes.freeze(), is_whole: self.is_read && self.held_bytes() <= most })
    }

    fn held_bytes(&self) -> usize {
        self.held.iter().map(Bytes::len).sum()
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(piece) = self.held.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.is_read {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.trailers.is_none() && (self.is_read || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held_bytes() as u64;
        if self.is_read {
            return SizeHint::with_exact(held);
        }
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}
