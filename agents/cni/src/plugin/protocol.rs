//! The protocol between plugin and agent, and the state file that replaces the agent's answer while
//! it is not running.

use std::{collections::BTreeSet, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::install::files;

/// A pod whose network exists and whose first process has not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Sandbox id of the runtime.
    pub container_id: String,
    /// Path of the network namespace on the node.
    pub netns: String,
    /// Name of the interface in it.
    pub ifname: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Kubernetes `metadata.uid`; empty when the runtime does not pass it.
    #[serde(default)]
    pub uid: String,
    /// Addresses from the previous plugins, without prefix length.
    pub ips: Vec<String>,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Answer {
    /// The pod may start: it is enrolled, or is not to be.
    Allow,
    /// The pod must not start yet.
    Wait {
        /// CamelCase reason.
        reason: String,
        /// Human-readable message.
        message: String,
    },
}

/// Which pods may start only when enrolled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enrolled {
    /// Kubernetes namespaces that are enrolled, or contain pods enrolled by their own label. A pod
    /// in one of them must wait unless it is known to stay outside.
    pub namespaces: BTreeSet<String>,
    /// Uids of pods of this node that should be in the mesh.
    pub pods: BTreeSet<String>,
    /// Uids of pods of this node in the namespaces above that should be outside.
    pub outside: BTreeSet<String>,
}

impl Enrolled {
    /// Whether a pod may start only when enrolled.
    pub fn holds(&self, namespace: &str, uid: &str) -> bool {
        self.pods.contains(uid) || (self.namespaces.contains(namespace) && !self.outside.contains(uid))
    }

    /// Reads the file. A missing or invalid file counts as empty, because pods outside the mesh
    /// must never wait for it. (It is replaced atomically, so it cannot be half written.)
    pub fn read(path: &Path) -> Self {
        let text = files::read_bounded(path).ok().flatten().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        text.push('\n');
        files::replace(path, text.as_bytes())
    }
}
