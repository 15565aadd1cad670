//! Enter a network namespace, open sockets in it, list and end those that are there, and tell namespaces apart.
//!
//! A thread that entered a namespace leaves it again before anything else runs on it, or the process ends.

pub mod diag;
mod namespace;
mod raw;
mod sockets;
#[cfg(feature = "testing")]
pub mod testing;

pub use namespace::{NetNs, NetNsId, cookie_here, run_in};
pub use sockets::{BACKLOG, ListenerFacts, inspect, is_proxys_own, listener, outbound, upstream_to_app};

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What can go wrong with a namespace or a socket in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of a namespace cannot be opened.
    #[error("open network namespace {path}: {source}; does the pod still exist?")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file descriptor is something else.
    #[error("file descriptor is not a network namespace; pass one of /run/netns or /proc/<pid>/ns/net")]
    NotANetNs,
    /// The thread cannot enter a namespace.
    #[error("enter network namespace {inode}: {source}; CAP_SYS_ADMIN is needed")]
    Enter {
        /// Inode of the namespace.
        inode: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The facts of a file descriptor cannot be read.
    #[error("{what}: {source}")]
    Inspect {
        /// The fact.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket cannot be set up.
    #[error("{step} for {address} in network namespace {inode}: {source}")]
    Socket {
        /// What was being done.
        step: &'static str,
        /// The address it was for.
        address: SocketAddr,
        /// Inode of the namespace.
        inode: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
