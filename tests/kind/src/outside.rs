//! A client outside the mesh.

use anyhow::Result;

use crate::{
    ask::{Ask, Reply},
    kubectl,
};

/// A client pod in a namespace of its own.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// Namespace of the client.
    pub namespace: &'static str,
}

impl Outside {
    /// Starts it on a node and waits until it is running.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(namespace: &'static str, node: &str) -> Result<Self> {
        kubectl::apply(&MANIFEST.replace("@NS@", namespace).replace("@NODE@", node))?;
        kubectl::run(&["rollout", "status", "-n", namespace, "deploy/outside", "--timeout=60s"])?;
        Ok(Self { namespace })
    }

    /// Sends requests from it, and returns their results.
    ///
    /// # Errors
    /// When the pod cannot be reached.
    pub fn ask(&self, question: &Ask<'_>) -> Result<Vec<Reply>> {
        question.from(self.namespace, "deploy/outside")
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the namespace cannot be deleted.
    pub fn stop(&self) -> Result<()> {
        kubectl::run(&["delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s"])
            .map(|_| ())
    }
}

const MANIFEST: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: @NS@}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: outside, namespace: @NS@}
spec:
  selector: {matchLabels: {app: outside}}
  template:
    metadata: {labels: {app: outside}}
    spec:
      nodeSelector: {kubernetes.io/hostname: @NODE@}
      terminationGracePeriodSeconds: 1
      containers:
      - {name: outside, image: 'localhost/ambit-box:dev', imagePullPolicy: IfNotPresent, command: [/bin/sleep, '1000000']}
";
