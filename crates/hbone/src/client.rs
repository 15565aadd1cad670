//! The client side of HBONE.
//!
//! A connection ends once every [`SendConnect`] and [`Tunnel`] of it is dropped. Its driver must be
//! polled for any progress.

use std::{
    fmt,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Authority, ConnectError, ConnectHeaders, Error, Settings, Tunnel, keepalive::peer_is_gone};

/// Opens tunnels on one connection. Clones share the connection.
#[derive(Clone)]
pub struct SendConnect {
    requests: SendRequest<Bytes>,
}

/// Starts HBONE on a connected stream, which in a mesh is already authenticated. Returns the
/// sender, and the driver of the connection: spawn it. The driver ends with Ok when the connection
/// was closed in an orderly way.
///
/// # Errors
/// [`Error::Handshake`] if the HTTP/2 handshake fails.
pub async fn handshake<IO>(
    io: IO,
    settings: Settings,
) -> Result<(SendConnect, impl Future<Output = Result<(), Error>> + use<IO>), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, mut connection) = Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_max)
        .max_header_list_size(settings.header_list_max)
        .max_send_buffer_size(settings.send_buffer)
        .initial_max_send_streams(settings.streams_max as usize)
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(Error::Handshake)?;
    let driver = async move {
        let gone = pin!(peer_is_gone(connection.ping_pong(), settings.keepalive));
        tokio::select! {
            biased;
            ended = connection => ended.map_err(Error::Connection),
            () = gone => Err(Error::PingTimeout),
        }
    };
    Ok((SendConnect { requests }, driver))
}

impl SendConnect {
    /// Opens a tunnel and waits for the response. Only the CONNECT request is sent before the peer
    /// answers 200.
    ///
    /// # Errors
    /// If the connection is lost, if the peer answers with a status other than 200 or resets the stream, or if
    /// `authority` cannot be written as a URI.
    pub async fn connect(
        &self,
        authority: &Authority,
        headers: &ConnectHeaders,
    ) -> Result<Tunnel, ConnectError> {
        let mut requests = self.requests.clone().ready().await.map_err(ConnectError::Closed)?;
        let (answer, send) =
            requests.send_request(question(authority, headers)?, false).map_err(ConnectError::Closed)?;
        // An idle handle held while waiting would keep alive a connection that all others have
        // released.
        drop(requests);
        let answer = answer.await.map_err(ConnectError::Stream)?;
        match answer.status() {
            StatusCode::OK => Ok(Tunnel::new(send, answer.into_body())),
            other => Err(ConnectError::Status(other.as_u16())),
        }
    }

    /// False once the connection is lost or the peer sent GOAWAY: no further stream can be opened.
    pub fn is_open(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        !matches!(self.requests.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// Concurrent streams that the peer permits, as far as its settings are known.
    pub(crate) fn peer_streams_max(&self) -> usize {
        self.requests.current_max_send_streams()
    }
}

impl fmt::Debug for SendConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendConnect").field("open", &self.is_open()).finish()
    }
}

fn question(authority: &Authority, headers: &ConnectHeaders) -> Result<Request<()>, ConnectError> {
    let text = authority.to_string();
    let uri = Uri::try_from(&text).map_err(|_| ConnectError::Authority { authority: text })?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.encode();
    Ok(request)
}

impl ConnectError {
    /// Whether there was no response. Nothing of the application was sent then, so retrying is
    /// safe.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Closed(_) | Self::Stream(_) => true,
            Self::Status(_) | Self::Authority { .. } => false,
        }
    }
}
