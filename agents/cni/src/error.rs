//! What can go wrong on a node, and under which reason it is reported.

use std::{
    fmt::Display,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Why something does not make progress, as the operator and the plugin are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Problem {
    pub(crate) fn at(reason: &'static str, path: &Path, error: &dyn Display) -> Self {
        Self { reason, message: format!("{}: {error}", path.display()) }
    }
}

/// An effect that failed. All are tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No process of the pod runs in a namespace with one of its addresses.
    #[error("no process of pod {uid} has a network namespace that holds one of {ips:?}; is the pod running?")]
    NoNamespace {
        /// The pod.
        uid: String,
        /// Its addresses.
        ips: Vec<IpAddr>,
    },
    /// The pod has no address yet.
    #[error("pod {uid} has no address yet")]
    NoAddress {
        /// The pod.
        uid: String,
    },
    /// A namespace or a socket in it.
    #[error(transparent)]
    NetNs(#[from] ambit_netns::Error),
    /// Redirection.
    #[error(transparent)]
    Redirect(#[from] ambit_redirect::Error),
    /// The proxy.
    #[error(transparent)]
    Zds(#[from] ambit_zds::ZdsError),
    /// No proxy is connected.
    #[error("no ztunnel is connected to the agent of this node; see DaemonSet ztunnel")]
    ProxyAway,
    /// The proxy opens its own listeners.
    #[error("the connected proxy does not take listeners from the agent")]
    ForeignProxy,
    /// The pod's namespace is not held.
    #[error("pod {uid} is not open")]
    NotOpen {
        /// The pod.
        uid: String,
    },
    /// A cgroup by which one process is known holds others, too.
    #[error("{role} is not alone in cgroup {}: {others}; give it a cgroup of its own", .cgroup.display())]
    NotAlone {
        /// Who is known by it.
        role: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
        /// Who else is in it.
        others: String,
    },
    /// Connections of before its enrollment cannot be closed.
    #[error("connections that nobody judged are still open in network namespace {inode}; restart the pod")]
    Unjudged {
        /// Inode of the namespace.
        inode: u64,
    },
    /// A thread or task of the agent is gone.
    #[error("the agent is stopping")]
    Stopping,
    /// Any file of the node.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// The reason it is reported under.
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

    /// In the form that others are told.
    pub fn problem(&self) -> Problem {
        Problem { reason: self.reason(), message: self.to_string() }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
