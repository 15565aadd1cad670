//! Getting the plugin into the node's CNI configuration, keeping it there, and out again.

pub mod conflist;
