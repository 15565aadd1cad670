//! The control plane: lifecycle, discovery, trust.
//!
//! Every replica serves agents from its own watch caches. Only the leader writes to Kubernetes,
//! with one exception: reports of agents are written by the replica that receives them.

mod apply;
mod ca;
mod conditions;
mod config;
mod container;
mod discovery;
mod error;
mod events;
mod fold;
mod jwks;
mod leader;
pub mod manifests;
mod mesh;
mod metrics;
mod names;
mod object_status;
mod pods;
pub mod publish;
mod reports;
mod run;
mod spec;
mod state;
mod statuses;
mod taint;
mod watches;
mod waypoint;

pub use config::{Config, HELP, Images};
pub use discovery::Feeds;
pub use run::run;

#[cfg(test)]
mod testing;
