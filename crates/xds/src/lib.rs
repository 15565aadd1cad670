//! Delta subscription protocol, both ends.
//!
//! Invariant: a client that loses its stream and comes back hears exactly what it missed, removals included.

pub mod client;
pub mod server;
pub mod wire;

pub use client::{
    Answer, Asker, Config, Counters, Handler, Node, Proxy, Questions, Rejection, Resource, Status, questions,
    run, run_counted,
};
pub use server::{Aliases, Authorizer, Change, DiscoveryServer, Feed, Scope, Stats, TooLarge};

/// Largest message a stock gRPC receiver takes, and what the server takes from a client.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Path of the one method of the protocol.
pub(crate) const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
