//! The body of a request on its way to one endpoint, or to several one after the other.
//!
//! Invariant: bytes that were sent once are sent again only as long as all of them are held, which is at most
//! [`REPLAY_MAX_BYTES`]; a body that is larger flows through without being held.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::messages::Messages;

/// Most bytes of a body that are held to be sent again.
pub(super) const REPLAY_MAX_BYTES: usize = 64 << 10;

/// Why a body ends early: the connection it goes to is then given up.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client sent no more.
    #[error("the client's body broke off: {0}")]
    Client(#[from] hyper::Error),
    /// Another try has taken the body over.
    #[error("the try is over")]
    Superseded,
}

/// What goes to an endpoint.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// As it comes.
    Once(Counted),
    /// As it comes, and again if need be.
    Again(Reader),
    /// A copy.
    Kept(Kept),
}

/// A body that flows through once.
#[derive(Debug)]
pub struct Counted {
    body: Incoming,
    bytes: BytesSeen,
}

/// What was seen of a body so far.
#[derive(Clone, Debug)]
pub struct BytesSeen(Rc<Seen>);

#[derive(Debug)]
struct Seen {
    bytes: Cell<u64>,
    broken: Cell<bool>,
    /// Counted for gRPC only.
    messages: Option<Cell<Messages>>,
}

impl BytesSeen {
    /// Of a body that has not begun.
    pub(super) fn new(is_grpc: bool) -> Self {
        Self(Rc::new(Seen {
            bytes: Cell::new(0),
            broken: Cell::new(false),
            messages: is_grpc.then(Cell::default),
        }))
    }

    /// How many bytes.
    pub fn get(&self) -> u64 {
        self.0.bytes.get()
    }

    /// Whether the client broke off: what it sent then is no whole request, whoever got it.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.get()
    }

    /// How many messages of gRPC.
    pub(super) fn messages(&self) -> u64 {
        self.0.messages.as_ref().map_or(0, |messages| messages.get().count())
    }

    fn add(&self, more: &[u8]) {
        self.0.bytes.set(self.get().saturating_add(more.len() as u64));
        if let Some(counted) = &self.0.messages {
            let mut messages = counted.get();
            messages.feed(more);
            counted.set(messages);
        }
    }
}

/// A body that is held while it flows.
#[derive(Debug)]
pub(super) struct Held {
    state: Rc<RefCell<State>>,
    ended: Rc<Notify>,
}

#[derive(Debug)]
struct State {
    body: Incoming,
    frames: Vec<Bytes>,
    trailers: Option<http::HeaderMap>,
    held_bytes: usize,
    bytes: BytesSeen,
    progress: Progress,
    /// The reader that may read; older ones are over.
    reader: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// More may come.
    Flowing,
    /// All of it came.
    Whole,
    /// Too large to hold: what was held is gone.
    Overflowed,
    /// The client broke off.
    Broken,
}

/// Reads a held body from its beginning.
#[derive(Debug)]
pub struct Reader {
    state: Rc<RefCell<State>>,
    ended: Rc<Notify>,
    id: u64,
    next: usize,
    trailers_sent: bool,
}

/// A body all of which is held.
#[derive(Debug)]
pub struct Kept {
    frames: std::vec::IntoIter<Bytes>,
    trailers: Option<http::HeaderMap>,
}

impl RequestBody {
    /// As it comes.
    pub fn once(body: Incoming, bytes: BytesSeen) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Once(Counted { body, bytes }) }
    }
}

impl Held {
    /// Holds `body` as long as it is small enough.
    pub(super) fn new(body: Incoming, bytes: BytesSeen) -> Self {
        let progress = if body.is_end_stream() { Progress::Whole } else { Progress::Flowing };
        let state =
            State { body, frames: Vec::new(), trailers: None, held_bytes: 0, bytes, progress, reader: 0 };
        Self { state: Rc::new(RefCell::new(state)), ended: Rc::default() }
    }

    /// For the next try; earlier readers read no more.
    pub(super) fn read(&self) -> RequestBody {
        let mut state = self.state.borrow_mut();
        if state.progress == Progress::Whole && state.frames.is_empty() && state.trailers.is_none() {
            return RequestBody::Empty;
        }
        state.reader += 1;
        RequestBody::Again(Reader {
            state: self.state.clone(),
            ended: self.ended.clone(),
            id: state.reader,
            next: 0,
            trailers_sent: false,
        })
    }

    /// Whether all that was sent so far can be sent again.
    pub(super) fn is_repeatable(&self) -> bool {
        match self.state.borrow().progress {
            Progress::Flowing | Progress::Whole => true,
            Progress::Overflowed | Progress::Broken => false,
        }
    }

    /// A copy, once all of it has come; none when it is too large to hold or breaks off.
    pub(super) fn copied(&self) -> impl Future<Output = Option<RequestBody>> + use<> {
        let (state, ended) = (self.state.clone(), self.ended.clone());
        async move {
            loop {
                let waiting = ended.notified();
                {
                    let state = state.borrow();
                    match state.progress {
                        Progress::Flowing => {}
                        Progress::Whole => return Some(state.copy()),
                        Progress::Overflowed | Progress::Broken => return None,
                    }
                }
                waiting.await;
            }
        }
    }
}

/// Whoever waits for a copy of a body that nobody reads any more waits in vain.
impl Drop for Held {
    fn drop(&mut self) {
        self.ended.notify_waiters();
    }
}

impl State {
    fn copy(&self) -> RequestBody {
        if self.frames.is_empty() && self.trailers.is_none() {
            return RequestBody::Empty;
        }
        RequestBody::Kept(Kept { frames: self.frames.clone().into_iter(), trailers: self.trailers.clone() })
    }

    fn take(&mut self, bytes: &Bytes) {
        self.bytes.add(bytes);
        if self.progress != Progress::Flowing {
            return;
        }
        self.held_bytes = self.held_bytes.saturating_add(bytes.len());
        if self.held_bytes > REPLAY_MAX_BYTES {
            self.progress = Progress::Overflowed;
            self.frames = Vec::new();
        } else {
            self.frames.push(bytes.clone());
        }
    }
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.borrow_mut();
        if state.reader != self.id {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(frame) = state.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        match state.progress {
            Progress::Flowing | Progress::Overflowed => {}
            Progress::Broken => return Poll::Ready(Some(Err(BodyError::Superseded))),
            Progress::Whole => {
                let trailers = if self.trailers_sent { None } else { state.trailers.clone() };
                self.trailers_sent = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
        }
        match ready!(Pin::new(&mut state.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    state.take(bytes);
                    self.next = state.frames.len();
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                }
                if state.progress == Progress::Overflowed {
                    self.ended.notify_waiters();
                } else if state.body.is_end_stream() {
                    state.progress = Progress::Whole;
                    self.ended.notify_waiters();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                state.bytes.0.broken.set(true);
                state.progress = Progress::Broken;
                self.ended.notify_waiters();
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                if state.progress == Progress::Flowing {
                    state.progress = Progress::Whole;
                }
                self.ended.notify_waiters();
                Poll::Ready(None)
            }
        }
    }

    fn is_end(&self) -> bool {
        let state = self.state.borrow();
        let told = self.next >= state.frames.len() && (self.trailers_sent || state.trailers.is_none());
        state.reader == self.id && told && (state.progress == Progress::Whole || state.body.is_end_stream())
    }

    fn hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let left: usize = state.frames.iter().skip(self.next).map(Bytes::len).sum();
        match (state.progress, state.body.size_hint().exact()) {
            (Progress::Whole, _) => SizeHint::with_exact(left as u64),
            (Progress::Flowing, Some(coming)) => SizeHint::with_exact(coming.saturating_add(left as u64)),
            (Progress::Flowing | Progress::Overflowed | Progress::Broken, coming) => {
                coming.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Once(Counted { body, bytes }) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| bytes.add(data)),
                    Some(Err(_)) => bytes.0.broken.set(true),
                    None => {}
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Self::Again(reader) => reader.poll(cx),
            Self::Kept(kept) => {
                let data = kept.frames.next().map(Frame::data);
                let frame = data.or_else(|| kept.trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(counted) => counted.body.is_end_stream(),
            Self::Again(reader) => reader.is_end(),
            Self::Kept(kept) => kept.frames.as_slice().is_empty() && kept.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Once(counted) => counted.body.size_hint(),
            Self::Again(reader) => reader.hint(),
            Self::Kept(kept) => {
                SizeHint::with_exact(kept.frames.as_slice().iter().map(|frame| frame.len() as u64).sum())
            }
        }
    }
}
