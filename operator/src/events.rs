//! Kubernetes Events: one for every transition that users should know about.

use ambit_api::Mesh;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::names;

/// Longest note that the API accepts, in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// Writes Events. One that cannot be written is logged and dropped.
#[derive(Clone)]
pub(crate) struct Events(Recorder);

/// Normal or Warning.
pub(crate) use kube::runtime::events::EventType as Severity;

impl Events {
    /// Events of this replica.
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self(Recorder::new(client, Reporter { controller: names::OPERATOR.into(), instance: Some(instance) }))
    }

    /// An Event on the Mesh.
    pub(crate) async fn mesh(&self, mesh: &Mesh, severity: EventType, reason: &str, note: &str) {
        self.publish(&mesh.object_ref(&()), severity, reason, note).await;
    }

    /// An Event on any object.
    pub(crate) async fn object(&self, on: &ObjectReference, severity: EventType, reason: &str, note: &str) {
        self.publish(on, severity, reason, note).await;
    }

    /// An Event on a pod.
    pub(crate) async fn pod(&self, pod: PodReference<'_>, severity: EventType, reason: &str, note: &str) {
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.to_owned()),
            name: Some(pod.name.to_owned()),
            uid: Some(pod.uid.to_owned()),
            ..ObjectReference::default()
        };
        self.publish(&reference, severity, reason, note).await;
    }

    async fn publish(&self, on: &ObjectReference, severity: EventType, reason: &str, note: &str) {
        let event = Event {
            type_: severity,
            reason: reason.to_owned(),
            note: Some(shortened(note).to_owned()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, on).await {
            tracing::warn!(%error, reason, "An Event cannot be written");
        }
    }
}

/// Identifies a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodReference<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Kubernetes uid.
    pub uid: &'a str,
}

fn shortened(note: &str) -> &str {
    let end =
        (0..=note.len().min(NOTE_BYTES_MAX - 1)).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
    note.get(..end).unwrap_or_default()
}
