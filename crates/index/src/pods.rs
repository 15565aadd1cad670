//! Pods: the facts that the model needs, and values derived from one pod alone.

mod containers;
pub(crate) mod probes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ambit_api::labels;
use ambit_model::{Health, NamespacedName, NetworkMode, WorkloadKind};
use k8s_openapi::{
    api::core::v1::{Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use containers::named_ports;

use crate::{
    nodes::{DataplaneMode, dataplane_mode},
    object::{annotation, label, name_of},
    waypoints::binding::WaypointLabel,
};

/// Digits of the timestamp (minutes) that a CronJob appends to the names of its Jobs.
const CRON_SUFFIX_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;

/// Annotation of the mirror pod of a static pod. Set by the node itself, in any namespace.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Longest device name.
const INTERFACE_NAME_MAX: usize = 15;
/// Devices that a pod's annotation may list.
const INTERFACES_MAX: usize = 16;

/// The facts about a pod that the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) name: NamespacedName,
    pub(crate) uid: Arc<str>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) node: Arc<str>,
    /// Empty for a pod without an identity: the mirror of a static pod, or a pod without an
    /// account.
    pub(crate) service_account: Arc<str>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host_network: bool,
    pub(crate) sidecar: bool,
    pub(crate) terminated: bool,
    pub(crate) mode: DataplaneMode,
    pub(crate) redirected: bool,
    pub(crate) bypass_inbound: bool,
    /// Requests of its probes and lifecycle hooks.
    pub(crate) probes: BTreeSet<probes::ProbeCall>,
    pub(crate) reroute_interfaces: BTreeSet<String>,
    /// The waypoint that its labels request.
    pub(crate) waypoint_label: WaypointLabel,
    /// The waypoint behind which it was closed, from the operator's annotation.
    pub(crate) enforced: Option<NamespacedName>,
    /// It was created for a Gateway.
    pub(crate) is_managed: bool,
    /// The Gateway that it belongs to, according to its labels, its account, and the Deployment
    /// that controls it. Each of these can be set only by someone who may write pods in the
    /// Gateway's namespace.
    pub(crate) waypoint: Option<NamespacedName>,
    pub(crate) health: Health,
    pub(crate) named_ports: BTreeMap<String, u16>,
    pub(crate) kind: WorkloadKind,
    pub(crate) workload_name: Arc<str>,
    pub(crate) canonical_name: Arc<str>,
    pub(crate) canonical_revision: Arc<str>,
}

impl PodFacts {
    /// Parses a pod; missing or malformed fields count as absent.
    pub(crate) fn read(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let spec = pod.spec.as_ref().unwrap_or(&no_spec);
        let status = pod.status.as_ref().unwrap_or(&no_status);
        let (kind, workload_name) = controller(metadata);
        let service_account = service_account(metadata, spec);
        let waypoint = waypoint(metadata, &service_account)
            .filter(|gateway| kind == WorkloadKind::Deployment && workload_name == gateway.name);
        Self {
            name: name_of(metadata),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            labels: metadata.labels.clone().unwrap_or_default(),
            node: spec.node_name.as_deref().unwrap_or_default().into(),
            service_account,
            ips: ips(status),
            host_network: spec.host_network.unwrap_or_default(),
            sidecar: annotation(metadata, labels::SIDECAR_STATUS).is_some(),
            terminated: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            mode: dataplane_mode(metadata),
            redirected: annotation(metadata, labels::REDIRECTION) == Some(labels::ENABLED),
            bypass_inbound: annotation(metadata, labels::BYPASS_INBOUND) == Some("true"),
            probes: probes::calls(spec),
            reroute_interfaces: reroute_interfaces(metadata),
            waypoint_label: WaypointLabel::read(metadata.labels.as_ref(), &name_of(metadata).namespace),
            enforced: annotation(metadata, labels::WAYPOINT_ENFORCED).and_then(named),
            is_managed: label(metadata, labels::GATEWAY_MANAGED).is_some(),
            waypoint,
            health: health(metadata, status),
            named_ports: named_ports(spec),
            canonical_name: canonical_name(metadata, &workload_name),
            canonical_revision: canonical_revision(metadata),
            kind,
            workload_name,
        }
    }

    pub(crate) fn network_mode(&self) -> NetworkMode {
        if self.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard }
    }

    /// Whether the pod may get a certificate and receive mesh traffic.
    pub(crate) fn has_identity(&self) -> bool {
        !self.service_account.is_empty()
    }

    /// Pods that have terminated, or have no address or identity, are not endpoints.
    pub(crate) fn is_endpoint(&self) -> bool {
        !self.terminated && !self.ips.is_empty() && self.has_identity()
    }
}

/// A kubelet may create mirror pods in every namespace, and the API server gives them no account
/// (NodeRestriction). They must not count as `default`, or a single node would get an identity in
/// each namespace.
fn service_account(metadata: &ObjectMeta, spec: &PodSpec) -> Arc<str> {
    let account = spec.service_account_name.as_deref().filter(|_| annotation(metadata, MIRROR).is_none());
    account.unwrap_or_default().into()
}

/// Parses `namespace/name`.
fn named(text: &str) -> Option<NamespacedName> {
    let (namespace, name) = text.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty()).then(|| NamespacedName::new(namespace, name))
}

/// Invalid device names (Linux: `IFNAMSIZ`), and names beyond the limit, are ignored.
fn reroute_interfaces(metadata: &ObjectMeta) -> BTreeSet<String> {
    let names =
        annotation(metadata, labels::REROUTE_INTERFACES).unwrap_or_default().split(',').map(str::trim);
    let names = names.filter(|name| (1..=INTERFACE_NAME_MAX).contains(&name.len()));
    names.take(INTERFACES_MAX).map(str::to_owned).collect()
}

/// The Gateway that a pod belongs to, by the labels and account that the operator gives its pods.
fn waypoint(metadata: &ObjectMeta, service_account: &str) -> Option<NamespacedName> {
    let is_managed = label(metadata, labels::GATEWAY_MANAGED) == Some(labels::WAYPOINT_MANAGED);
    let gateway = label(metadata, labels::GATEWAY_NAME).filter(|name| is_managed && *name == service_account);
    Some(NamespacedName::new(metadata.namespace.as_deref().unwrap_or_default(), gateway?))
}

fn ips(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let mut ips = Vec::new();
    for ip in all.filter_map(|ip| ip.parse().ok()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

fn health(metadata: &ObjectMeta, status: &PodStatus) -> Health {
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if ready && metadata.deletion_timestamp.is_none() { Health::Healthy } else { Health::Unhealthy }
}

/// The controller that users know: the Deployment of a ReplicaSet, the CronJob of a Job.
fn controller(metadata: &ObjectMeta) -> (WorkloadKind, Arc<str>) {
    let name = metadata.name.as_deref().unwrap_or_default();
    let owner: Option<&OwnerReference> =
        metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else { return (WorkloadKind::Pod, name.into()) };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = label(metadata, "pod-template-hash").unwrap_or_default();
            let deployment = owner.name.strip_suffix(hash).and_then(|n| n.strip_suffix('-'));
            (WorkloadKind::Deployment, deployment.filter(|_| !hash.is_empty()).unwrap_or(&owner.name).into())
        }
        "Job" => match owner.name.rsplit_once('-') {
            Some((cron, minute))
                if CRON_SUFFIX_DIGITS.contains(&minute.len())
                    && minute.bytes().all(|b| b.is_ascii_digit()) =>
            {
                (WorkloadKind::CronJob, cron.into())
            }
            Some(_) | None => (WorkloadKind::Job, owner.name.as_str().into()),
        },
        _ => (WorkloadKind::Deployment, owner.name.as_str().into()),
    }
}

fn canonical_name(metadata: &ObjectMeta, workload_name: &Arc<str>) -> Arc<str> {
    [labels::CANONICAL_NAME, labels::APP_NAME, labels::APP]
        .into_iter()
        .find_map(|key| label(metadata, key).filter(|value| !value.is_empty()))
        .map_or_else(|| workload_name.clone(), Arc::from)
}

fn canonical_revision(metadata: &ObjectMeta) -> Arc<str> {
    [labels::CANONICAL_REVISION, labels::APP_VERSION, labels::VERSION]
        .into_iter()
        .find_map(|key| label(metadata, key).filter(|value| !value.is_empty()))
        .unwrap_or("latest")
        .into()
}
