//! Writes to pods: an annotation and Events from agents' reports, and an annotation with the
//! waypoint behind which a pod is closed.
//!
//! Invariant: an annotation is written only if it changes, and only to the pod that was reported
//! (the patch includes its uid).

use std::time::Duration;

use ambit_api::labels;
use ambit_index::PodIdentity;
use ambit_model::NamespacedName;
use ambit_runtime::Backoff;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::{
    error::{Error, is_conflict, is_not_found},
    events::{Events, PodReference, Severity},
    reports::ReportEvent,
    state::{MeshState, SharedIndex},
    taint,
};

/// Attempts to write one report; after that the agent repeats it when it reconnects.
const TRIES_MAX: usize = 8;
/// First and longest pause between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Reason of the Event about dropped forwarded packets.
const FORWARDED_TRAFFIC_DROPPED: &str = "ForwardedTrafficDropped";

/// Sets or removes an annotation of a pod. Succeeds if the pod is gone.
///
/// # Errors
/// When the API server rejects the write.
pub(crate) async fn annotate(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    value: Option<&str>,
) -> Result<(), Error> {
    patch(client, namespace, name, json!({"metadata": {"annotations": {key: value}}})).await
}

/// Writes to a pod the only waypoint that may reach it.
///
/// # Errors
/// When the API server rejects the write.
pub(crate) async fn remember(
    client: &Client,
    pod: &PodIdentity,
    waypoint: Option<&NamespacedName>,
) -> Result<(), Error> {
    let waypoint = waypoint.map(ToString::to_string);
    let annotations = json!({labels::WAYPOINT_ENFORCED: waypoint});
    let body = json!({"metadata": {"uid": &*pod.uid, "annotations": annotations}});
    patch(client, &pod.name.namespace, &pod.name.name, body).await
}

async fn patch(client: &Client, namespace: &str, name: &str, patch: serde_json::Value) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // Gone, or replaced by another pod with the same name: nothing to write.
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(Error::api(format!("annotating Pod {namespace}/{name}"), error)),
    }
}

/// Writes the results of reports.
pub(crate) struct Writer {
    /// Kubernetes client.
    pub client: Client,
    /// The current annotations of pods.
    pub index: SharedIndex,
    /// Writer of Events.
    pub events: Events,
    /// The Mesh, which gets the Events about nodes.
    pub mesh: watch::Receiver<MeshState>,
}

impl Writer {
    /// Writes until the reports end.
    pub(crate) async fn run(self, mut reports: mpsc::Receiver<ReportEvent>) {
        while let Some(report) = reports.recv().await {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1);
            for _ in 0..TRIES_MAX {
                let Err(error) = self.write(&report).await else { break };
                tracing::warn!(%error, "A report cannot be written, trying again");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }

    async fn write(&self, report: &ReportEvent) -> Result<(), Error> {
        match report {
            ReportEvent::PodEnrolled { pod } => self.redirected(pod, Some(labels::ENABLED)).await,
            ReportEvent::PodLeft { pod } => self.redirected(pod, None).await,
            ReportEvent::PodFailed { pod, reason, message } => {
                self.events.pod(reference(pod), Severity::Warning, reason, message).await;
                Ok(())
            }
            ReportEvent::PodLate { pod, closed } => {
                let note = format!(
                    "the pod ran outside the mesh before the agent of its node could enroll it; it is enrolled now, and \
                     {closed} connections that bypassed policy were closed"
                );
                self.events.pod(reference(pod), Severity::Warning, "EnrolledLate", &note).await;
                Ok(())
            }
            ReportEvent::PodForwards { pod, out, into } => {
                let reference =
                    PodReference { namespace: &pod.name.namespace, name: &pod.name.name, uid: &pod.uid };
                let note = format!(
                    "{out} packets that this pod forwards from a network inside it, and {into} to one, were dropped, because policy cannot be applied to them"
                );
                self.events.pod(reference, Severity::Warning, FORWARDED_TRAFFIC_DROPPED, &note).await;
                Ok(())
            }
            ReportEvent::NodeClean { node, agent } => {
                tracing::info!(%node, "Nothing of the mesh is left on the node");
                annotate(&self.client, &agent.namespace, &agent.name, labels::CLEAN, Some("true")).await
            }
            ReportEvent::NodeProblem { node, reason, message } => {
                tracing::warn!(%node, reason, message, "A node cannot serve the mesh");
                self.write_mesh_event(Severity::Warning, reason, &format!("node {node}: {message}")).await;
                Ok(())
            }
            ReportEvent::NodeServes { node } => {
                tracing::info!(%node, "The node serves the mesh");
                self.lift(node).await
            }
        }
    }

    async fn redirected(&self, pod: &PodIdentity, value: Option<&str>) -> Result<(), Error> {
        let says = self.index.read().enrollment(&pod.uid).is_some_and(|enrollment| enrollment.redirected);
        if says == value.is_some() {
            return Ok(());
        }
        let annotation = json!({
            "metadata": {"uid": &*pod.uid, "annotations": {labels::REDIRECTION: value}},
        });
        patch(&self.client, &pod.name.namespace, &pod.name.name, annotation).await
    }

    /// Removes the node's startup taint, because its agent serves.
    async fn lift(&self, node: &str) -> Result<(), Error> {
        match taint::lift(&self.client, node).await {
            Ok(taint::Lifted::Yes) => {
                tracing::info!(node, taint = taint::KEY, "The startup taint is lifted");
                Ok(())
            }
            Ok(taint::Lifted::NotThere) => Ok(()),
            Ok(taint::Lifted::Forbidden) => {
                let note = format!(
                    "node {node} has the taint {}, which the operator is not permitted to remove; apply \
                     config/startup-taint.yaml",
                    taint::KEY
                );
                self.write_mesh_event(Severity::Warning, "StartupTaintStays", &note).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write_mesh_event(&self, severity: Severity, reason: &str, note: &str) {
        let mesh = match &*self.mesh.borrow() {
            MeshState::Present(mesh) => mesh.clone(),
            MeshState::Unknown | MeshState::Absent => return,
        };
        self.events.mesh(&mesh, severity, reason, note).await;
    }
}

fn reference(pod: &PodIdentity) -> PodReference<'_> {
    PodReference { namespace: &pod.name.namespace, name: &pod.name.name, uid: &pod.uid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Script, failure};

    #[tokio::test]
    async fn a_pod_remembers_its_waypoint_if_it_is_still_the_same_pod() {
        let pod = PodIdentity {
            uid: "u".into(),
            name: NamespacedName::new("shop", "cart"),
            service_account: "cart".into(),
            node: "n1".into(),
            terminated: false,
        };
        let answer = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart"}});
        let script = Script::new([(200, answer)]);
        remember(&script.client(), &pod, Some(&NamespacedName::new("shop", "w"))).await.unwrap();
        remember(&script.client(), &pod, None).await.unwrap();
        let said = |value: serde_json::Value| json!({"metadata": {"uid": "u", "annotations": {"ambit.dev/waypoint-enforced": value}}});
        let bodies: Vec<_> = script.seen().into_iter().map(|seen| (seen.path, seen.body)).collect();
        let path = "/api/v1/namespaces/shop/pods/cart".to_owned();
        assert_eq!(bodies, [(path.clone(), said("shop/w".into())), (path, said(serde_json::Value::Null))]);
        let script = Script::new([failure(409, "Conflict")]);
        remember(&script.client(), &pod, None).await.unwrap();
    }
}
