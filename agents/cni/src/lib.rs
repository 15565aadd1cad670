//! The node agent and the CNI plugin: enroll the pods of one node.
//!
//!
//! - [`plugin`]: called by the runtime for each pod; queries the agent ([`admission`]).
//! - [`install`]: keeps the plugin in the node's CNI configuration.
//! - [`node`], [`enroll`]: the pods, and the state machine of each with its driver.
//! - [`proxy`], [`roster`]: the pods that the proxy serves.
//! - [`kernel`], [`kubelet`], [`proc`]: redirection, probes, processes.
//! - [`subscribe`], [`reports`]: enrollments from the operator, and reports to it.
//!
//! Invariant: an enrolled pod stays redirected until its removal from the mesh is requested.

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
