//! ZDS: how the node agent hands pods, their network namespaces and listeners to the proxy, both ends.
//!
//! One protobuf message a packet over a `SOCK_SEQPACKET` unix socket, file descriptors beside it (`SCM_RIGHTS`).
//! The proxy opens with [`Hello`]; from then on the agent asks and the proxy answers each request with one ack.
//! Wire-compatible with Istio's ZDS; what is ours rides in fields from 100 on, which other peers ignore.
//!
//! Invariant: a packet is taken whole and exactly as specified (size, number of descriptors, known payload) or
//! the connection is closed with a typed error and every descriptor that came with it.

pub mod client;
pub mod codec;
pub mod error;
mod packet;
pub mod server;

pub use ambit_proto::zds_ext::Kind;
pub use client::Client;
pub use codec::{Add, Connections, Hello, Listener, ListenerOf, Pod, Request};
pub use error::ZdsError;
pub use packet::{FDS_MAX, PACKET_BYTES_MAX};
pub use server::{Connection, Peer, Server};

#[cfg(test)]
mod tests;
