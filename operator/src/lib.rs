//! The control plane: lifecycle, discovery, trust.
//!
//! Every replica serves agents from its own watch caches; only the leader writes to Kubernetes, except for what an
//! agent reports to the replica it is connected to.

pub mod apply;
pub mod ca;
pub mod conditions;
pub mod config;
mod container;
pub mod discovery;
pub mod error;
pub mod events;
pub mod fold;
pub mod jwks;
pub mod leader;
pub mod manifests;
pub mod mesh;
pub mod metrics;
pub mod names;
pub mod object_status;
pub mod pods;
pub mod publish;
pub mod reports;
pub mod run;
pub mod spec;
pub mod state;
pub mod statuses;
pub mod taint;
pub mod watches;
pub mod waypoint;

#[cfg(test)]
mod testing;
