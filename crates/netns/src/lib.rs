//! Entering network namespaces, opening sockets in them, listing and closing sockets, and comparing
//! namespaces.
//!
//! A thread that entered a namespace leaves it before anything else runs on it, or the process
//! aborts.

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

/// Errors of a namespace or a socket in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace's file cannot be opened.
    #[error("open network namespace {path}: {source}; does the pod still exist?")]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file descriptor is not a network namespace.
    #[error("file descriptor is not a network namespace; pass one of /run/netns or /proc/<pid>/ns/net")]
    NotANetNs,
    /// The thread cannot enter the namespace.
    #[error("enter network namespace {inode}: {source}; CAP_SYS_ADMIN is needed")]
    Enter {
        /// Inode of the namespace.
        inode: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The properties of a file descriptor cannot be read.
    #[error("{what}: {source}")]
    Inspect {
        /// The property.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A socket cannot be set up.
    #[error("{step} for {address} in network namespace {inode}: {source}")]
    Socket {
        /// The operation that failed.
        step: &'static str,
        /// The socket's address.
        address: SocketAddr,
        /// Inode of the namespace.
        inode: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
