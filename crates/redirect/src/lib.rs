//! Redirection of a pod's traffic in the kernel: loads, pins and attaches eBPF programs, and sets
//! up routing.
//!
//! All state is pinned in a BPF file system and outlives this process; the kernel's state is the
//! only state. Every call is blocking and idempotent, and repeating it completes what an
//! interrupted call left unfinished.

pub mod cgroup;
mod devices;
mod links;
mod maps;
mod object;
mod pins;
mod probes;
mod raw;
mod redirector;
mod routing;
mod sysctls;

pub use ambit_redirect_common::{Direction, Kind, PodConfig, flag};
pub use devices::DeviceWatch;
pub use probes::{PROBES_MAX, Probe, Sends};
pub use redirector::{Attached, AttachedPod, Redirector};

use std::io;
use std::path::PathBuf;

/// Where redirection state is kept on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our directory on a mounted BPF file system, such as `/sys/fs/bpf/ambit`; created if missing.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory whose tasks may be captured: the root of the hierarchy, see
    /// [`cgroup::root`].
    pub cgroup: PathBuf,
}

/// Errors of redirection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A required file system is not mounted.
    #[error(
        "{path} is not on a {file_system} file system; mount one there: mount -t {file_system} {file_system} <dir>"
    )]
    Unmounted {
        /// The directory that should be on it.
        path: PathBuf,
        /// Type of the required file system.
        file_system: &'static str,
    },
    /// The kernel rejected the object as a whole.
    #[error("load the kernel programs: {0}; Linux 6.1 or newer with CAP_BPF and CAP_NET_ADMIN is needed")]
    Object(#[source] Box<aya::EbpfError>),
    /// The kernel rejected one program.
    #[error("load kernel program {program}: {source}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// The cause, with the verifier's log.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object has no such program or map: object and loader come from different builds.
    #[error("the kernel object has no {0}; rebuild it with `make ebpf`")]
    Missing(&'static str),
    /// A map cannot be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// The cause.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A file or directory cannot be used.
    #[error("{step} {path}: {source}")]
    File {
        /// The operation that failed.
        step: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A rule or route of a pod cannot be set.
    #[error("{step} in network namespace {inode}: {source}")]
    Route {
        /// The operation that failed.
        step: &'static str,
        /// Inode of the pod's namespace.
        inode: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A pod's network namespace cannot be used.
    #[error(transparent)]
    NetNs(#[from] ambit_netns::Error),
    /// A pod has too many addresses.
    #[error("pod {uid} has {source}")]
    Addresses {
        /// Uid of the pod.
        uid: String,
        /// The limit that was exceeded.
        #[source]
        source: ambit_redirect_common::TooManyAddresses,
    },
    /// A pod uid cannot be used as the name of a pin.
    #[error("{0:?} is not a pod uid: letters, digits and dashes, at most 64 of them")]
    Uid(String),
    /// A socket is not the listener it is supposed to be.
    #[error("listener for {kind:?} of network namespace {cookie} not armed: it {reason}")]
    Listener {
        /// Cookie of the pod's namespace.
        cookie: u64,
        /// Kind of the listener.
        kind: Kind,
        /// The mismatch.
        reason: &'static str,
    },
    /// The devices of a pod cannot be listed or watched.
    #[error("{step} in network namespace {inode}: {source}")]
    Devices {
        /// The operation that failed.
        step: &'static str,
        /// Inode of the pod's namespace.
        inode: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks the hooks for forwarded packets.
    #[error("forwarded traffic of pods cannot be protected: Linux 6.6 or newer is needed (tcx); {0}")]
    NoTcx(#[source] Box<Error>),
    /// The process is in no cgroup below the directory.
    #[error(
        "process {pid} is in no cgroup below {root}; is it in this pid namespace, and is that the node's cgroup v2 mount?"
    )]
    NoCgroup {
        /// Id of the process.
        pid: u32,
        /// The directory that was searched.
        root: PathBuf,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
