//! The node agent and the CNI plugin: enroll the pods of one node.
//!
//! - [`plugin`]: called by the runtime for each pod; asks the agent ([`admission`]).
//! - [`install`]: keeps the plugin in the node's CNI configuration.
//! - [`node`], [`enroll`]: the pods, the machine of each, and what drives it.
//! - [`proxy`], [`roster`]: which pods the proxy serves.
//! - [`kernel`], [`kubelet`], [`proc`]: redirection, probes, processes.
//! - [`subscribe`], [`reports`]: what the operator says, and what it is told.
//!
//! Invariant: once a pod is enrolled, only the wish to have it out of the mesh opens it again.

pub mod admission;
pub mod config;
pub mod enroll;
pub mod error;
pub mod forwarding;
pub mod install;
pub mod kernel;
pub mod kubelet;
pub mod metrics;
pub mod node;
pub mod plugin;
pub mod proc;
pub mod proxy;
pub mod reports;
pub mod roster;
pub mod run;
pub mod subscribe;
pub mod tools;

pub use error::{Error, Problem};
