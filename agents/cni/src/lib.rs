//! The node agent and the CNI plugin: enroll the pods of one node.
//!
//! - [`plugin`]: called by the runtime for each pod; asks the agent.
//! - [`install`]: keeps the plugin in the node's CNI configuration.
//! - [`enroll`]: the machine of one pod and what drives it.
//!
//! Invariant: once a pod is enrolled, only the wish to have it out of the mesh opens it again.

pub mod enroll;
pub mod install;
pub mod plugin;
