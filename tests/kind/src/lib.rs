//! What cluster tests and the demo share: kubectl, waiting, the shop, load, captures, waypoints, and
//! a table of checks.
//!
//! Invariant: everything but `node` works against any cluster that `KUBECONFIG` names; nothing else knows how it was made.

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

/// A test's or demo's result.
pub use anyhow::Result;
