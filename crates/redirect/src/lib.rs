//! From a pod to kernel redirection: load, pin, attach, route.
//!
//! Everything lives in pins of a BPF file system and outlives this process; the state of the kernel is the only state.
//! Each call is blocking, safe to repeat, and leaves nothing half done that a second call would not finish.

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

/// Where redirection lives on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our directory on a mounted BPF file system, such as `/sys/fs/bpf/ambit`; made if it is missing.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory whose tasks may be captured: the root of the hierarchy, see [`cgroup::root`].
    pub cgroup: PathBuf,
}

/// What can go wrong with redirection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node lacks something.
    #[error(
        "{path} is not on a {file_system} file system; mount one there: mount -t {file_system} {file_system} <dir>"
    )]
    Unmounted {
        /// The directory.
        path: PathBuf,
        /// What it should be on.
        file_system: &'static str,
    },
    /// The kernel refused the object as a whole.
    #[error("load the kernel programs: {0}; Linux 6.1 or newer with CAP_BPF and CAP_NET_ADMIN is needed")]
    Object(#[source] Box<aya::EbpfError>),
    /// The kernel refused one program.
    #[error("load kernel program {program}: {source}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// Why, with the verifier's log.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object has no such program or map: object and loader are of different builds.
    #[error("the kernel object has no {0}; rebuild it with `make ebpf`")]
    Missing(&'static str),
    /// A map cannot be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A file or directory cannot be used.
    #[error("{step} {path}: {source}")]
    File {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A rule or route of a pod cannot be set.
    #[error("{step} in network namespace {inode}: {source}")]
    Route {
        /// What was being done.
        step: &'static str,
        /// Inode of the pod's namespace.
        inode: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pod's namespace cannot be used.
    #[error(transparent)]
    NetNs(#[from] ambit_netns::Error),
    /// A pod has too many addresses.
    #[error("pod {uid} has {source}")]
    Addresses {
        /// The pod.
        uid: String,
        /// The limit.
        #[source]
        source: ambit_redirect_common::TooManyAddresses,
    },
    /// A name cannot be a pin.
    #[error("{0:?} is not a pod uid: letters, digits and dashes, at most 64 of them")]
    Uid(String),
    /// A listener is not what its key says.
    #[error("listener for {kind:?} of network namespace {cookie} not armed: it {reason}")]
    Listener {
        /// Cookie of the pod's namespace.
        cookie: u64,
        /// What the listener was for.
        kind: Kind,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The devices of a pod cannot be listed or watched.
    #[error("{step} in network namespace {inode}: {source}")]
    Devices {
        /// What was being done.
        step: &'static str,
        /// Inode of the pod's namespace.
        inode: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel has no hooks for what a pod forwards.
    #[error("what pods forward cannot be covered: Linux 6.6 or newer is needed (tcx); {0}")]
    NoTcx(#[source] Box<Error>),
    /// A process has no cgroup below the directory.
    #[error(
        "process {pid} is in no cgroup below {root}; is it of this pid namespace, and is that the cgroup v2 mount of the node?"
    )]
    NoCgroup {
        /// The process.
        pid: u32,
        /// Where it was looked for.
        root: PathBuf,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
