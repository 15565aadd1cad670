//! One request to the agent over its Unix socket, limited in time and size.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    frame,
    protocol::{Answer, Request},
};

/// The agent gave no usable answer; contains the reason.
#[derive(Debug)]
pub struct Unreachable(pub String);

/// Sends a request and waits for the answer, at most `limit` in total.
///
/// # Errors
/// When the agent is not listening, does not answer in time, or the answer is invalid.
pub fn ask(socket: &Path, request: &Request, limit: Duration) -> Result<Answer, Unreachable> {
    exchange(socket, request, &Deadline(Instant::now() + limit))
        .map_err(|error| Unreachable(format!("{}: {error}", socket.display())))
}

/// The time by which the answer must have arrived.
struct Deadline(Instant);

impl Deadline {
    /// The remaining time, never zero.
    fn left(&self) -> io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(late()) } else { Ok(left) }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

fn exchange(socket: &Path, request: &Request, deadline: &Deadline) -> io::Result<Answer> {
    let question = frame::encode(request).map_err(io::Error::other)?;
    let mut stream = connect(socket, deadline)?;
    send(&mut stream, &question, deadline)?;
    let mut prefix = [0; frame::PREFIX_BYTES];
    receive(&mut stream, &mut prefix, deadline)?;
    let mut answer = vec![0; frame::length(prefix).map_err(io::Error::other)?];
    receive(&mut stream, &mut answer, deadline)?;
    frame::decode(&answer).map_err(io::Error::other)
}

/// The limit includes connecting: if the agent no longer accepts, its queue fills up (unix(7): the
/// send timeout applies to connect).
fn connect(path: &Path, deadline: &Deadline) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(deadline.left()?))?;
    socket.connect(&SockAddr::unix(path)?).map_err(timed_out)?;
    Ok(socket.into())
}

fn send(stream: &mut UnixStream, mut bytes: &[u8], deadline: &Deadline) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(deadline.left()?))?;
        match stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed_out(error)),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Ok(())
}

fn receive(stream: &mut UnixStream, mut bytes: &mut [u8], deadline: &Deadline) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_read_timeout(Some(deadline.left()?))?;
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed_out(error)),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended early")),
            Ok(read) => bytes = bytes.get_mut(read..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// A blocking socket reports a timeout as EAGAIN (socket(7), `SO_RCVTIMEO`).
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}
