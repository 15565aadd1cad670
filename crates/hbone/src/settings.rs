//! HTTP/2 settings of both ends.
//!
//! The values are Istio's, so that both sides of a mixed mesh see the window sizes and timeouts
//! they expect.

use std::time::Duration;

/// Receive window of one stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Receive window of one connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest frame accepted, in bytes.
const FRAME_MAX_BYTES: u32 = 1 << 20;
/// Streams a client opens on one connection.
pub const CLIENT_STREAMS_MAX: usize = 100;
/// Streams a server accepts on one connection.
const SERVER_STREAMS_MAX: u32 = 200;
/// Largest header list a client accepts, in bytes.
const CLIENT_HEADER_LIST_MAX_BYTES: u32 = 16 << 10;
/// Largest header list a server accepts, in bytes.
const SERVER_HEADER_LIST_MAX_BYTES: u32 = 64 << 10;
/// Bytes a client queues for one stream before its writer waits.
const CLIENT_SEND_BUFFER_BYTES: usize = 4 << 20;
/// Bytes a server queues for one stream before its writer waits.
const SERVER_SEND_BUFFER_BYTES: usize = 400 << 10;

/// HTTP/2 PING timing of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time before the first PING.
    pub first: Duration,
    /// Time between a response and the next PING.
    pub interval: Duration,
    /// The longest wait for a response before the connection is closed.
    pub timeout: Duration,
}

/// The HTTP/2 settings of one end. The mesh uses [`CLIENT`] and [`SERVER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Receive window of one stream, in bytes.
    pub stream_window: u32,
    /// Receive window of the connection, in bytes.
    pub connection_window: u32,
    /// Largest frame accepted, in bytes.
    pub frame_max: u32,
    /// Largest header list accepted, in bytes.
    pub header_list_max: u32,
    /// Bytes queued for one stream before its writer waits.
    pub send_buffer: usize,
    /// Client: the number of streams it opens unless the peer permits fewer. Server: the number it
    /// permits.
    pub streams_max: u32,
    /// Detection of unresponsive peers.
    pub keepalive: Keepalive,
}

const KEEPALIVE: Keepalive = Keepalive {
    first: Duration::from_secs(10),
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(20),
};

/// Settings of the client side.
pub const CLIENT: Settings = Settings {
    stream_window: STREAM_WINDOW_BYTES,
    connection_window: CONNECTION_WINDOW_BYTES,
    frame_max: FRAME_MAX_BYTES,
    header_list_max: CLIENT_HEADER_LIST_MAX_BYTES,
    send_buffer: CLIENT_SEND_BUFFER_BYTES,
    streams_max: CLIENT_STREAMS_MAX as u32,
    keepalive: KEEPALIVE,
};

/// Settings of the server side.
pub const SERVER: Settings = Settings {
    header_list_max: SERVER_HEADER_LIST_MAX_BYTES,
    send_buffer: SERVER_SEND_BUFFER_BYTES,
    streams_max: SERVER_STREAMS_MAX,
    ..CLIENT
};
