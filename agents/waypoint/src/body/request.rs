//! The body of a request on its way to one endpoint, or to several in turn.
//!
//! Invariant: a body can be sent again only while all bytes that were sent are held, which are at most
//! [`REPLAY_MAX_BYTES`]; a larger body flows through without being held. The client's body is read in one place
//! ([`BytesSeen::read`]), where it is counted and copied, however often it is sent.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    client::ClientBody,
    copies::{self, Copied, Copying, Cut, Ended},
    messages::Messages,
};

/// Largest body that is held to be sent again.
pub(super) const REPLAY_MAX_BYTES: usize = 64 << 10;

/// Why a body ends early; its connection to the endpoint is then closed.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client aborted it.
    #[error("the client's request body was cut off: {0}")]
    Client(#[from] hyper::Error),
    /// A later try has taken over the body.
    #[error("the try is over")]
    Superseded,
    /// It is a copy, which is incomplete.
    #[error("the copy ends early: {0}")]
    Copy(#[from] Cut),
}

/// The body of a request to an endpoint.
#[derive(Debug)]
pub enum RequestBody {
    /// No body.
    Empty,
    /// Made by the waypoint.
    Own(Option<Bytes>),
    /// The client's, for the only try.
    Once(Counted),
    /// The client's, held for further tries.
    Again(Reader),
    /// A copy of the client's, for a mirror.
    Copied(Copied),
}

/// A body that flows through without being held.
#[derive(Debug)]
pub struct Counted {
    body: ClientBody,
    bytes: BytesSeen,
}

/// Reads a client's body, and counts what was read. Clones share.
#[derive(Clone, Debug)]
pub struct BytesSeen(Rc<Seen>);

#[derive(Debug)]
struct Seen {
    bytes: Cell<u64>,
    broken: Cell<bool>,
    /// The last read had to wait for the client.
    awaited: Cell<bool>,
    copies: RefCell<Vec<Copying>>,
    /// gRPC messages; `None` for other requests.
    messages: Option<Cell<Messages>>,
}

impl BytesSeen {
    /// For a body that has not been read yet.
    pub fn new(is_grpc: bool) -> Self {
        Self(Rc::new(Seen {
            bytes: Cell::new(0),
            broken: Cell::new(false),
            awaited: Cell::new(false),
            copies: RefCell::default(),
            messages: is_grpc.then(Cell::default),
        }))
    }

    /// Bytes read so far.
    pub fn get(&self) -> u64 {
        self.0.bytes.get()
    }

    /// True if the client aborted the body: the endpoint then received an incomplete request.
    pub fn is_broken(&self) -> bool {
        self.0.broken.get()
    }

    /// Whether the endpoint waits for the client to send more of the body.
    pub fn is_awaited(&self) -> bool {
        self.0.awaited.get()
    }

    /// Makes a copy of a body that has not been read yet.
    pub fn copy(&self, body: &ClientBody) -> (RequestBody, Option<Ended>) {
        if body.is_end_stream() {
            return (RequestBody::Empty, None);
        }
        let (copying, copied, ended) = copies::copy(&body.size_hint());
        self.0.copies.borrow_mut().push(copying);
        (RequestBody::Copied(copied), Some(ended))
    }

    /// gRPC messages read so far.
    pub fn messages(&self) -> u64 {
        self.0.messages.as_ref().map_or(0, |messages| messages.get().count())
    }

    /// Reads the next frame of the client's body, which is read nowhere else.
    fn read(
        &self,
        body: &mut ClientBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut *body).poll_frame(cx);
        self.0.awaited.set(polled.is_pending());
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                self.saw(frame);
                if body.is_end_stream() {
                    self.whole();
                }
            }
            Some(Err(_)) => {
                self.0.broken.set(true);
                self.0.copies.take();
            }
            None => self.whole(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn saw(&self, frame: &Frame<Bytes>) {
        let copies = self.0.copies.borrow();
        if let Some(more) = frame.data_ref() {
            self.0.bytes.set(self.get().saturating_add(more.len() as u64));
            if let Some(counted) = &self.0.messages {
                let mut messages = counted.get();
                messages.feed(more);
                counted.set(messages);
            }
            copies.iter().for_each(|copy| copy.put(more));
        } else if let Some(trailers) = frame.trailers_ref() {
            copies.iter().for_each(|copy| copy.put_trailers(trailers));
        }
    }

    fn whole(&self) {
        self.0.copies.take().iter().for_each(Copying::whole);
    }
}

/// A body that is held while it flows, so that it can be sent again.
#[derive(Debug)]
pub struct Held(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    body: ClientBody,
    frames: Vec<Bytes>,
    trailers: Option<http::HeaderMap>,
    held_bytes: usize,
    bytes: BytesSeen,
    progress: Progress,
    /// Id of the reader of the current try; readers of earlier tries get an error.
    reader: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// More may follow.
    Flowing,
    /// All of it was read.
    Whole,
    /// Too large to hold; what was held is dropped.
    Overflowed,
    /// The client aborted it.
    Broken,
}

/// Reads a held body from its beginning.
#[derive(Debug)]
pub struct Reader {
    state: Rc<RefCell<State>>,
    id: u64,
    next: usize,
    trailers_sent: bool,
}

/// Whether a body has bytes and its length is unknown.
pub fn is_unsized(body: &impl Body) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none()
}

impl RequestBody {
    /// Made by the waypoint.
    pub fn own(bytes: Bytes) -> Self {
        Self::Own(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// The client's, for the only try.
    pub fn once(body: ClientBody, bytes: BytesSeen) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Once(Counted { body, bytes }) }
    }
}

impl Held {
    /// Holds what is read of `body`, unless it becomes too large.
    pub fn new(body: ClientBody, bytes: BytesSeen) -> Self {
        let progress = if body.is_end_stream() { Progress::Whole } else { Progress::Flowing };
        let state =
            State { body, frames: Vec::new(), trailers: None, held_bytes: 0, bytes, progress, reader: 0 };
        Self(Rc::new(RefCell::new(state)))
    }

    /// The body for the next try; the readers of earlier tries get an error.
    pub fn read(&self) -> RequestBody {
        let mut state = self.0.borrow_mut();
        if state.progress == Progress::Whole && state.frames.is_empty() && state.trailers.is_none() {
            return RequestBody::Empty;
        }
        state.reader += 1;
        RequestBody::Again(Reader { state: self.0.clone(), id: state.reader, next: 0, trailers_sent: false })
    }

    /// Whether all bytes sent so far can be sent again.
    pub fn is_repeatable(&self) -> bool {
        match self.0.borrow().progress {
            Progress::Flowing | Progress::Whole => true,
            Progress::Overflowed | Progress::Broken => false,
        }
    }
}

impl State {
    fn take(&mut self, bytes: &Bytes) {
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
        let State { body, bytes, .. } = &mut *state;
        match ready!(bytes.read(body, cx)) {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    state.take(bytes);
                    self.next = state.frames.len();
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                }
                if state.progress == Progress::Flowing && state.body.is_end_stream() {
                    state.progress = Progress::Whole;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                state.progress = Progress::Broken;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                if state.progress == Progress::Flowing {
                    state.progress = Progress::Whole;
                }
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
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Once(Counted { body, bytes }) => bytes.read(body, cx),
            Self::Again(reader) => reader.poll(cx),
            Self::Copied(copied) => {
                Pin::new(copied).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Own(bytes) => bytes.is_none(),
            Self::Once(counted) => counted.body.is_end_stream(),
            Self::Again(reader) => reader.is_end(),
            Self::Copied(copied) => copied.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Once(counted) => counted.body.size_hint(),
            Self::Again(reader) => reader.hint(),
            Self::Copied(copied) => copied.size_hint(),
        }
    }
}
