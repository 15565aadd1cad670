//! What ztunnel and waypoint have in common.
//!
//! Invariant: both proxies use everything here, and nothing here depends on whether it carries connections or requests.

pub mod access_log;
pub mod admitted;
pub mod bytes;
pub mod config;
pub mod labels;
pub mod limits;
pub mod process;
pub mod stage;
pub mod tunnel;
pub mod worker;

pub use config::{Defaults, ProxyConfig};
pub use process::{Process, StartError};
