//! The HTTP/2 settings of both ends.
//!
//! Values are Istio's, so that neither side of a mixed mesh sees smaller windows or other deadlines than it expects.

use std::time::Duration;

/// Receive window of one stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Receive window of one connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest frame accepted, in bytes.
pub const FRAME_MAX_BYTES: u32 = 1 << 20;
/// Streams a client opens on one connection.
pub const CLIENT_STREAMS_MAX: usize = 100;
/// Streams a server accepts on one connection.
pub const SERVER_STREAMS_MAX: u32 = 200;
/// Largest header list a client accepts, in bytes.
pub const CLIENT_HEADER_LIST_MAX_BYTES: u32 = 16 << 10;
/// Largest header list a server accepts, in bytes.
pub const SERVER_HEADER_LIST_MAX_BYTES: u32 = 64 << 10;
/// Bytes a client queues for one stream before its writer waits.
pub const CLIENT_SEND_BUFFER_BYTES: usize = 4 << 20;
/// Bytes a server queues for one stream before its writer waits.
pub const SERVER_SEND_BUFFER_BYTES: usize = 400 << 10;

/// When a connection asks its peer whether it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Before the first PING.
    pub first: Duration,
    /// Between an answer and the next PING.
    pub interval: Duration,
    /// The longest wait for an answer before the connection is given up.
    pub timeout: Duration,
}

/// What one end announces and keeps to. [`CLIENT`] and [`SERVER`] are what the mesh speaks.
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
    /// Client: streams it opens until the peer says less. Server: streams it lets the peer open.
    pub streams_max: u32,
    /// How a dead peer is noticed.
    pub keepalive: Keepalive,
}

const KEEPALIVE: Keepalive = Keepalive {
    first: Duration::from_secs(10),
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(20),
};

/// The connecting end.
pub const CLIENT: Settings = Settings {
    stream_window: STREAM_WINDOW_BYTES,
    connection_window: CONNECTION_WINDOW_BYTES,
    frame_max: FRAME_MAX_BYTES,
    header_list_max: CLIENT_HEADER_LIST_MAX_BYTES,
    send_buffer: CLIENT_SEND_BUFFER_BYTES,
    streams_max: CLIENT_STREAMS_MAX as u32,
    keepalive: KEEPALIVE,
};

/// The accepting end.
pub const SERVER: Settings = Settings {
    header_list_max: SERVER_HEADER_LIST_MAX_BYTES,
    send_buffer: SERVER_SEND_BUFFER_BYTES,
    streams_max: SERVER_STREAMS_MAX,
    ..CLIENT
};
