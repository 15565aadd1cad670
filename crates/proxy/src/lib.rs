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

/// Returns freed memory to the kernel after a second (`.cargo/config.toml`). The C library's allocator keeps what many
/// connections once needed: of 40 MiB that a ztunnel had with 2,000 of them it kept 40; with this one, of 44 MiB it kept 17.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
