//! Two ztunnels and their pods in network namespaces, with real redirection, real mTLS and real
//! connections.
//!
//! The control plane is a store filled by the tests and an in-memory certificate authority.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fixture that fails is a test that fails"
)]

mod agent;
mod cgroups;
mod drain;
mod fixture;
mod inbound;
mod lookup;
mod operator;
mod outbound;
mod policy;
mod waypoint;
