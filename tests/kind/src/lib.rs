//! Shared by the cluster tests and the demo: kubectl, waiting, the shop, load, captures, waypoints,
//! and a table of checks.
//!
//! Invariant: everything except `node` works with any cluster that `KUBECONFIG` selects; nothing
//! else depends on how it was created.

#![expect(clippy::print_stdout, reason = "test programs speak to a person")]

pub mod ask;
pub mod capture;
pub mod checks;
pub mod conformance;
pub mod inspector;
pub mod kubectl;
pub mod load;
pub mod mesh;
pub mod node;
pub mod outside;
pub mod shop;
pub mod token;
pub mod wait;
pub mod waypoint;

/// The result type of tests and demo.
pub use anyhow::Result;
