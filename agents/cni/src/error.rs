//! Errors on a node, and the reason under which each is reported.

use std::{
    fmt::Display,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Why there is no progress, for the operator and the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
}

impl Problem {
    pub(crate) fn at(reason: &'static str, path: &Path, error: &dyn Display) -> Self {
        Self { reason, message: format!("{}: {error}", path.display()) }
    }
}

/// An effect failed. All effects are retried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No process of the pod runs in a namespace with one of its addresses.
    #[error("no process of pod {uid} has a network namespace that has one of {ips:?}; is the pod running?")]
    NoNamespace {
        /// Uid of the pod.
        uid: String,
        /// Its addresses.
        ips: Vec<IpAddr>,
    },
    /// The pod has no address yet.
    #[error("pod {uid} has no address yet")]
    NoAddress {
        /// Uid of the pod.
        uid: String,
    },
    /// A network namespace, or a socket in it, failed.
    #[error(transparent)]
    NetNs(#[from] ambit_netns::Error),
    /// Redirection failed.
    #[error(transparent)]
    Redirect(#[from] ambit_redirect::Error),
    /// The connection to the proxy failed.
    #[error(transparent)]
    Zds(#[from] ambit_zds::ZdsError),
    /// No proxy is connected.
    #[error("no ztunnel is connected to the agent of this node; see DaemonSet ztunnel")]
    ProxyAway,
    /// The proxy opens its own listeners, which is not supported.
    #[error("the connected proxy does not take listeners from the agent")]
    ForeignProxy,
    /// The pod's namespace is not open.
    #[error("pod {uid} is not open")]
    NotOpen {
        /// Uid of the pod.
        uid: String,
    },
    /// A cgroup that should identify one process contains others too.
    #[error("{role} is not alone in cgroup {}: {others}; give it a cgroup of its own", .cgroup.display())]
    NotAlone {
        /// What the cgroup should identify.
        role: &'static str,
        /// Path of the cgroup.
        cgroup: PathBuf,
        /// The other processes.
        others: String,
    },
    /// Connections from before the enrollment cannot be closed.
    #[error("connections that bypassed policy are still open in network namespace {inode}; restart the pod")]
    Unjudged {
        /// Inode of the namespace.
        inode: u64,
    },
    /// A thread or task of the agent has ended.
    #[error("the agent is stopping")]
    Stopping,
    /// A file operation on the node failed.
    #[error("{doing}: {source}")]
    Io {
        /// The operation.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// The reason under which it is reported.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoNamespace { .. } | Self::NotOpen { .. } => "NamespaceNotFound",
            Self::NoAddress { .. } => "NoAddress",
            Self::NetNs(_) => "NamespaceNotUsable",
            Self::Redirect(_) => "RedirectionFailed",
            Self::Zds(_) => "ProxyRefused",
            Self::ProxyAway => "ProxyNotConnected",
            Self::ForeignProxy => "ProxyNotSupported",
            Self::NotAlone { .. } => "CgroupShared",
            Self::Unjudged { .. } => "UnjudgedConnections",
            Self::Stopping | Self::Io { .. } => "NodeAgentFailed",
        }
    }

    /// The error in the form that is reported.
    pub fn problem(&self) -> Problem {
        Problem { reason: self.reason(), message: self.to_string() }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
