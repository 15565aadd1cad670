//! What plugin and agent say to each other, and the file that speaks for the agent while it is away.

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
    /// Interface in it.
    pub ifname: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Kubernetes `metadata.uid`; empty when the runtime does not pass it.
    #[serde(default)]
    pub uid: String,
    /// Addresses that the plugins before us gave the pod, without prefix length.
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
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
}

/// Which pods may only start enrolled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enrolled {
    /// Kubernetes namespaces that are enrolled, or have pods that are enrolled by their own label. A pod of one that
    /// is not known to stay outside must wait.
    pub namespaces: BTreeSet<String>,
    /// Uids of pods of this node that are wanted in the mesh.
    pub pods: BTreeSet<String>,
    /// Uids of pods of this node that are wanted outside, in the namespaces above.
    pub outside: BTreeSet<String>,
}

impl Enrolled {
    /// Whether a pod may only start enrolled.
    pub fn holds(&self, namespace: &str, uid: &str) -> bool {
        self.pods.contains(uid) || (self.namespaces.contains(namespace) && !self.outside.contains(uid))
    }

    /// Reads the file; one that is missing or unreadable lists nothing, since pods outside the mesh are never
    /// held up by it. (It is replaced atomically, so it cannot be half written.)
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
