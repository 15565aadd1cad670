//! One HTTP/1.1 exchange with the agent over its unix socket, bounded in time and size.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use super::protocol::{ADD_PATH, Answer, BODY_BYTES_MAX, Request};

/// The agent gave no usable answer; holds why.
#[derive(Debug)]
pub struct Unreachable(pub String);

/// Asks, waiting at most `limit` in all.
///
/// # Errors
/// When nobody listens, nothing comes in time, or what comes is no answer.
pub fn ask(socket: &Path, request: &Request, limit: Duration) -> Result<Answer, Unreachable> {
    let started = Instant::now();
    exchange(socket, request, &|| limit.checked_sub(started.elapsed()).filter(|left| !left.is_zero()))
        .and_then(|answer| parse(&answer))
        .map_err(|error| Unreachable(format!("{}: {error}", socket.display())))
}

fn exchange(socket: &Path, request: &Request, left: &dyn Fn() -> Option<Duration>) -> io::Result<Vec<u8>> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let mut stream = UnixStream::connect(socket)?;
    let body = serde_json::to_vec(request).map_err(io::Error::other)?;
    let head = format!(
        "POST {ADD_PATH} HTTP/1.1\r\nhost: node-agent\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.set_write_timeout(Some(left().ok_or_else(late)?))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    let mut answer = Vec::new();
    let mut part = [0_u8; 4096];
    loop {
        stream.set_read_timeout(Some(left().ok_or_else(late)?))?;
        let read = match stream.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        answer.extend_from_slice(part.get(..read).unwrap_or_default());
        if read == 0 {
            return Ok(answer);
        }
        if answer.len() > BODY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too large"));
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<Answer> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let text = std::str::from_utf8(answer).map_err(|error| invalid(error.to_string()))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| invalid("not an HTTP answer".into()))?;
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(invalid(format!("the agent answers {status:?}")));
    }
    serde_json::from_str(body).map_err(|error| invalid(error.to_string()))
}
