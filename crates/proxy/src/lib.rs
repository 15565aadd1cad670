//! What ztunnel and waypoint have in common.
//!
//! Invariant: both proxies use everything here, and nothing here depends on whether it carries connections or requests.

pub mod config;
pub mod limits;
pub mod process;
pub mod stage;

pub use config::{Defaults, ProxyConfig};
pub use process::{Process, StartError};
