//! The node agent and the CNI plugin: enroll the pods of one node.
pub mod enroll;
pub mod install;
