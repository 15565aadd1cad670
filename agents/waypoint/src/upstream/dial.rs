//! New HTTP connections to endpoints.
//!
//! Invariant: what an endpoint may make this process hold for one connection is limited.

use ambit_hbone::ConnectHeaders;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;

use super::{ConnectFailure, Endpoint, connect::Connector, key::STREAMS_MAX};
use crate::{body::RequestBody, executor::LocalExecutor};

/// Largest head of a response, and read buffer of an HTTP/1 connection.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Receive window of an HTTP/2 response.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Receive window of an HTTP/2 connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A connection for HTTP/1.1.
pub(super) async fn http1(
    connector: &Connector,
    endpoint: &Endpoint,
) -> Result<http1::SendRequest<RequestBody>, ConnectFailure> {
    let stream = connector.open(endpoint, &ConnectHeaders::default()).await?;
    let handshake = http1::Builder::new()
        .max_buf_size(HEAD_MAX_BYTES)
        .max_header_size(HEAD_MAX_BYTES)
        .handshake(TokioIo::new(stream.into_io()))
        .await;
    let (sender, connection) = handshake.map_err(|source| failed(endpoint, source))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "Connection to an endpoint failed");
        }
    });
    Ok(sender)
}

/// A connection for HTTP/2.
pub(super) async fn http2(
    connector: &Connector,
    endpoint: &Endpoint,
) -> Result<http2::SendRequest<RequestBody>, ConnectFailure> {
    let stream = connector.open(endpoint, &ConnectHeaders::default()).await?;
    let handshake = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .initial_max_send_streams(STREAMS_MAX)
        .handshake(TokioIo::new(stream.into_io()))
        .await;
    let (sender, connection) = handshake.map_err(|source| failed(endpoint, source))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Connection to an endpoint failed");
        }
    });
    Ok(sender)
}

fn failed(endpoint: &Endpoint, source: hyper::Error) -> ConnectFailure {
    ConnectFailure::Http { address: endpoint.address, source }
}
