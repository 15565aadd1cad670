//! Copies of a request's body for mirrors, made while it flows.
//!
//! Invariant: a copy neither changes nor delays the original: a reader that is more than [`QUEUE_MAX_BYTES`] behind loses
//! it. An incomplete copy ends with an error.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// Bytes by which a copy may be behind the original.
pub(super) const QUEUE_MAX_BYTES: usize = 1 << 20;

/// Why a copy is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The original was cut off.
    #[error("the request body was cut off")]
    Broken,
    /// Its reader was too slow.
    #[error("its reader is {QUEUE_MAX_BYTES} bytes behind")]
    Behind,
    /// The copy was dropped before its end.
    #[error("the copy was not read to its end")]
    Unread,
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Copying(Rc<Queue>);

/// The reading end: the copy as a body.
#[derive(Debug)]
pub struct Copied(Rc<Queue>);

/// Waits for the end of a copy.
#[derive(Debug)]
pub struct Ended(Rc<Queue>);

#[derive(Debug)]
struct Queue {
    state: RefCell<State>,
    ended: Notify,
}

#[derive(Debug)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes still to be read, if the length is known.
    left: Option<u64>,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), Cut>>,
    reader: Option<Waker>,
}

/// Makes a copy of a body of this size.
pub(super) fn copy(size: &SizeHint) -> (Copying, Copied, Ended) {
    let state = State {
        frames: VecDeque::new(),
        bytes: 0,
        left: size.exact(),
        trailers: None,
        end: None,
        reader: None,
    };
    let queue = Rc::new(Queue { state: RefCell::new(state), ended: Notify::new() });
    (Copying(queue.clone()), Copied(queue.clone()), Ended(queue))
}

impl Copying {
    /// Adds the next part of the body.
    pub(super) fn put(&self, bytes: &Bytes) {
        let mut state = self.0.state.borrow_mut();
        if state.end.is_some() {
            return;
        }
        state.bytes = state.bytes.saturating_add(bytes.len());
        if state.bytes > QUEUE_MAX_BYTES {
            drop(state);
            return self.0.end(Err(Cut::Behind));
        }
        state.frames.push_back(bytes.clone());
        state.wake();
    }

    /// Adds the trailers.
    pub(super) fn put_trailers(&self, trailers: &HeaderMap) {
        self.0.state.borrow_mut().trailers = Some(trailers.clone());
    }

    /// Ends the copy: it is complete.
    pub(super) fn whole(&self) {
        self.0.end(Ok(()));
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.end(Err(Cut::Broken));
    }
}

impl Queue {
    /// Ends the copy, once; later ends change nothing.
    fn end(&self, end: Result<(), Cut>) {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        if end.is_err() {
            state.frames = VecDeque::new();
        }
        state.wake();
        self.ended.notify_waiters();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Ended {
    /// Returns once nothing more is added to the copy.
    pub async fn wait(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.0.state.borrow().end.is_some() {
                return;
            }
            ended.await;
        }
    }

    /// Why it is incomplete, if it is.
    pub fn cut(&self) -> Option<Cut> {
        self.0.state.borrow().end.and_then(Result::err)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.0.end(Err(Cut::Unread));
    }
}

impl Body for Copied {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let mut state = self.0.state.borrow_mut();
        if let Some(bytes) = state.frames.pop_front() {
            state.bytes = state.bytes.saturating_sub(bytes.len());
            state.left = state.left.map(|left| left.saturating_sub(bytes.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match state.end {
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(state.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Some(Err(cut)) => Poll::Ready(Some(Err(cut))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.borrow();
        state.end == Some(Ok(())) && state.frames.is_empty() && state.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.state.borrow().left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests;
