//! The server side of HBONE.
//!
//! Only a valid CONNECT reaches the handler; everything else is rejected here. The handler must not
//! block: it should decide and spawn.

use std::{fmt, future::Future, future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Method, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{
    Authority, Baggage, ConnectHeaders, Error, Settings, Tunnel, headers::BAGGAGE, keepalive::peer_is_gone,
};

/// How long a client may take to send the HTTP/2 preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sending the final GOAWAY to an unresponsive peer may take.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A CONNECT request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The requested target of the tunnel.
    pub authority: Authority,
    /// Telemetry hints from the peer, not authenticated.
    pub headers: ConnectHeaders,
}

/// Responds to one CONNECT. Resets the stream if dropped unused.
pub struct Responder {
    respond: SendResponse<Bytes>,
    recv: RecvStream,
}

/// Serves one connection until it ends. Once `drain` resolves, the peer gets a GOAWAY, and this
/// returns when the last stream ends; drop this future to abort them.
///
/// # Errors
/// If the handshake fails, the connection breaks, or the peer no longer answers pings.
pub async fn serve<IO, D, H>(io: IO, settings: Settings, drain: D, mut handler: H) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    D: Future<Output = ()>,
    H: FnMut(ConnectRequest, Responder),
{
    let mut connection = accept(io, settings).await?;
    let mut gone = pin!(peer_is_gone(connection.ping_pong(), settings.keepalive));
    let mut drain = pin!(drain);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = &mut drain, if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            next = connection.accept() => match next {
                Some(Ok((request, respond))) => dispatch(request, respond, &mut handler),
                Some(Err(lost)) => return Err(Error::Connection(lost)),
                None => return Ok(()),
            },
            () = &mut gone => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                // The peer is presumed dead, so failure to send this does not matter.
                let _ = timeout(LAST_WORDS_TIMEOUT, poll_fn(|cx| connection.poll_closed(cx))).await;
                return Err(Error::PingTimeout);
            }
        }
    }
}

async fn accept<IO>(io: IO, settings: Settings) -> Result<Connection<IO, Bytes>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_max)
        .max_header_list_size(settings.header_list_max)
        .max_send_buffer_size(settings.send_buffer)
        .max_concurrent_streams(settings.streams_max)
        .handshake::<_, Bytes>(io);
    match timeout(PREFACE_TIMEOUT, handshake).await {
        Ok(done) => done.map_err(Error::Handshake),
        Err(_elapsed) => Err(Error::Handshake(Reason::SETTINGS_TIMEOUT.into())),
    }
}

fn dispatch<H>(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, handler: &mut H)
where
    H: FnMut(ConnectRequest, Responder),
{
    match question(&request) {
        Ok(question) => handler(question, Responder { respond, recv: request.into_body() }),
        Err(status) => {
            tracing::debug!(http.status = status.as_u16(), uri = %request.uri(), "Request is not a valid CONNECT");
            // Fails only when the peer is gone, which the connection reports.
            let _ = respond.send_response(answer(status), true);
        }
    }
}

fn question(request: &Request<RecvStream>) -> Result<ConnectRequest, StatusCode> {
    if request.method() != Method::CONNECT || request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let authority = request.uri().authority().ok_or(StatusCode::BAD_REQUEST)?;
    let authority = authority.as_str().parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(ConnectRequest { authority, headers: ConnectHeaders::parse(request.headers()) })
}

fn answer(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

impl Responder {
    /// Answers 200, optionally with the destination's labels.
    ///
    /// # Errors
    /// [`Error::Respond`] if the stream or its connection has ended already.
    pub fn accept(mut self, labels: Option<&Baggage>) -> Result<Tunnel, Error> {
        let mut response = answer(StatusCode::OK);
        if let Some(value) = labels.and_then(|l| l.encode().try_into().ok()) {
            response.headers_mut().insert(BAGGAGE, value);
        }
        let send = self.respond.send_response(response, false).map_err(Error::Respond)?;
        Ok(Tunnel::new(send, self.recv))
    }

    /// Answers with a status other than 200, and ends the stream.
    ///
    /// # Errors
    /// [`Error::Respond`] if the stream or its connection has ended already.
    pub fn reject(mut self, status: StatusCode) -> Result<(), Error> {
        self.respond.send_response(answer(status), true).map_err(Error::Respond)?;
        Ok(())
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("stream", &self.respond.stream_id()).finish_non_exhaustive()
    }
}
