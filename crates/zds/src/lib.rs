//! ZDS: how the node agent passes pods, with their network namespaces and listeners, to the proxy.
//! Both sides.
//!
//! One protobuf message per packet over a `SOCK_SEQPACKET` Unix socket, with file descriptors as
//! ancillary data (`SCM_RIGHTS`). The proxy starts with a [`Hello`]; from then on the agent sends
//! requests, and the proxy answers each with one ack. Compatible with Istio's ZDS; our extensions
//! use field numbers from 100 on, which other peers ignore.
//!
//! Invariant: a packet is either accepted exactly as specified (size, number of descriptors, known
//! payload), or the connection and every received descriptor are closed with a typed error.

mod client;
mod codec;
mod error;
mod packet;
mod server;

pub use ambit_proto::zds_ext::Kind;
pub use client::Client;
pub use codec::{Add, Connections, Hello, Listener, ListenerOf, Pod, Request};
pub use error::ZdsError;
pub use packet::{FDS_MAX, PACKET_BYTES_MAX};
pub use server::{Connection, Peer, Server};

#[cfg(test)]
mod tests;
