//! Serves HTTP/1.1 or HTTP/2 on a tunnel.
//!
//! Invariant: every limit of the protocol is set here by name; exceeding one ends the connection, and no other connection
//! of the same client.

use std::{future::poll_fn, pin::pin, rc::Rc, time::Duration};

use ambit_hbone::TunnelStream;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, interval_at},
};

use super::{Session, dispatch::handle, watched::Watched};
use crate::executor::LocalExecutor;

/// Largest head of a request, target and fields together; a larger one is answered 431. Envoy's default.
pub(super) const HEAD_MAX_BYTES: usize = 60 << 10;
/// Largest read buffer of an HTTP/1 connection.
const BUFFER_MAX_BYTES: usize = 64 << 10;
/// How long a connection is idle before its buffers are freed; it may take up to twice as long.
const PARK_AFTER: Duration = Duration::from_secs(2);
/// Open streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// Receive window of an HTTP/2 request.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Receive window of an HTTP/2 connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Response bytes queued for one stream before reading from the endpoint pauses.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Streams that a client may reset before they are accepted (CVE-2023-44487); more end the connection.
const RESETS_PENDING_MAX: usize = 20;
/// Streams that may be reset for errors of the client; more end the connection.
const RESETS_LOCAL_MAX: usize = 64;

/// Serves a tunnel until it ends. HTTP/1 has hyper's limit of 100 header fields; more are answered 431.
pub async fn serve(session: Rc<Session>, stream: TunnelStream, is_http2: bool) {
    let ended =
        if is_http2 { serve_http2(session, stream).await } else { serve_http1(session, stream).await };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP on a tunnel failed");
    }
}

/// Serves HTTP/1. While a connection is idle, its buffers are freed and only the tunnel is kept until its next byte.
async fn serve_http1(session: Rc<Session>, mut stream: TunnelStream) -> Result<(), hyper::Error> {
    while let Some(mut idle) = serve_until_idle(&session, stream).await? {
        let ended = tokio::select! {
            biased;
            seen = poll_fn(|cx| idle.poll_peek(cx).map_ok(|bytes| bytes.is_empty())) => seen.unwrap_or(true),
            () = session.leaving() => true,
        };
        if ended {
            // A stream that the peer has reset needs no end.
            let _ = idle.shutdown().await;
            break;
        }
        stream = idle;
    }
    Ok(())
}

/// Returns the tunnel once it is idle, `None` once it has ended.
async fn serve_until_idle(
    session: &Rc<Session>,
    stream: TunnelStream,
) -> Result<Option<TunnelStream>, hyper::Error> {
    let io = TokioIo::new(Watched::new(stream, session.progress.clone()));
    let each = session.clone();
    let service = service_fn(move |request| handle(each.clone(), request));
    let mut connection = http1::Builder::new()
        .max_buf_size(BUFFER_MAX_BYTES)
        .max_header_size(HEAD_MAX_BYTES)
        .header_read_timeout(None)
        // A client that has closed its sending side still waits for the response.
        .half_close(true)
        .serve_connection(io, service)
        .with_upgrades();
    let mut leaving = pin!(session.leaving());
    let mut left = false;
    let mut looks = interval_at(Instant::now() + PARK_AFTER, PARK_AFTER);
    let mut seen = session.progress.heads();
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            _ = looks.tick() => {
                let before = std::mem::replace(&mut seen, session.progress.heads());
                if before == seen && session.progress.may_park() {
                    let Some(parts) = connection.into_parts() else { return Ok(None) };
                    let watched = parts.io.into_inner();
                    // A head that began behind its predecessor and was not completed: its time is over too.
                    if !parts.read_buf.is_empty() {
                        watched.end().await;
                        return Ok(None);
                    }
                    return Ok(Some(watched.into_stream()));
                }
            }
            () = &mut leaving, if !left => {
                left = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    // An orderly end, so that the client can read the error response; a response that was cut off ends with a reset.
    let answered = ended.as_ref().is_err_and(|error| error.is_parse() || is_late(error));
    if let Some(parts) = connection.into_parts().filter(|_| answered) {
        parts.io.into_inner().end().await;
    }
    ended.map(|()| None)
}

async fn serve_http2(session: Rc<Session>, stream: TunnelStream) -> Result<(), hyper::Error> {
    let io = TokioIo::new(stream);
    let each = session.clone();
    let service = service_fn(move |request| handle(each.clone(), request));
    let connection = http2::Builder::new(LocalExecutor)
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_LOCAL_MAX)
        // WebSocket (RFC 8441); any other protocol is refused as CONNECT is.
        .enable_connect_protocol()
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut leaving = pin!(session.leaving());
    let mut left = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return ended,
            () = &mut leaving, if !left => {
                left = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn is_late(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
