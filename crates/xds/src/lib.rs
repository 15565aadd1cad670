//! The incremental (delta) xDS protocol, client and server.
//!
//! Invariant: a client that reconnects receives exactly what it missed, removals included.

mod client;
mod server;
mod wire;

pub use client::{
    Answer, Config, Counters, Handler, Node, Proxy, Queries, QuerySender, Rejection, Resource, Status,
    Subscriber, queries, run, run_counted,
};
pub use server::{Aliases, Authorizer, Change, DiscoveryServer, Feed, Scope, Stats, TooLarge};

/// Largest message that default gRPC receivers accept; also the server's limit for requests.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Path of the protocol's only method.
pub(crate) const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
