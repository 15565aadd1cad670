//! Publishes changes of the index to the feeds.
//!
//! Invariant: a policy is published before the workload that references it, and removed after it. A
//! waypoint receives a service before ztunnels are sent there, and loses it only afterwards.

use std::{collections::BTreeSet, sync::Arc};

use ambit_index::{Changes, Enrollment, Index, NodeEnrollment, ProbeCall, Sends, Wanted};
use ambit_model::BoundService;
use ambit_proto::node::{
    Enrollment as Message, NodeEnrollment as NodeMessage, PodEnrollment, Probe, Wanted as WantedMessage,
    enrollment::Subject, probe::Kind,
};
use ambit_wds::{Packed, pack_bound_service, pack_policy, pack_service, pack_workload};
use ambit_xds::{Change, Feed, TooLarge};
use bytes::Bytes;
use prost::Message as _;

use crate::discovery::Feeds;

/// Name of a node's own resource.
const NODE: &str = "node";

/// Publishes a complete state.
pub fn all(index: &Index, feeds: &Feeds) {
    let pair = |packed: Packed| (packed.name, packed.body);
    for waypoint in index.waypoints() {
        let known = index.bound_services_of(&waypoint.name).map(|bound| pair(pack_bound_service(bound)));
        report(feeds.bound(&waypoint.name).replace(known));
    }
    report(feeds.authorization.replace(index.policies().map(|policy| pair(pack_policy(policy)))));
    let services = index.services().map(|service| pair(pack_service(service)));
    let workloads = index.workloads().map(|workload| pair(pack_workload(workload)));
    report(feeds.address.replace(services.chain(workloads)));
    let of_all = own(index.node_enrollment());
    for node in index.nodes() {
        let pods = index.enrollments_on(node);
        let pods = pods.map(|enrollment| (pod_name(&enrollment.uid), pod(enrollment)));
        let own = std::iter::once((NODE.into(), of_all.clone()));
        report(feeds.enrollment(node).replace(own.chain(pods)));
    }
}

/// Publishes changes.
pub fn changes(index: &Index, changes: &Changes, feeds: &Feeds) {
    bound(index, changes, feeds, |found| found.is_some());
    let known = changes.policies.iter().filter_map(|key| index.policy(key));
    report(feeds.authorization.publish(known.map(|policy| set(pack_policy(policy)))));
    let services = changes.services.iter().map(|key| match index.service(key) {
        Some(service) => set(pack_service(service)),
        None => Change::Remove { name: key.to_string().into() },
    });
    let workloads = changes.workloads.iter().map(|uid| match index.workload(uid) {
        Some(workload) => set(pack_workload(workload)),
        None => Change::Remove { name: uid.clone() },
    });
    report(feeds.address.publish(services.chain(workloads)));
    let gone = changes.policies.iter().filter(|key| index.policy(key).is_none());
    report(feeds.authorization.publish(gone.map(|key| Change::Remove { name: key.to_string().into() })));
    bound(index, changes, feeds, |found| found.is_none());
    waypoints(index, changes, feeds);
    enrollments(index, changes, feeds);
}

/// Publishes those compiled services for which `is_due` is true.
fn bound(
    index: &Index,
    changes: &Changes,
    feeds: &Feeds,
    is_due: impl Fn(Option<&Arc<BoundService>>) -> bool,
) {
    for (waypoint, key) in &changes.bound {
        let found = index.bound_service(waypoint, key);
        if !is_due(found) {
            continue;
        }
        let change = match found {
            Some(found) => set(pack_bound_service(found)),
            None => Change::Remove { name: key.to_string().into() },
        };
        report(feeds.bound(waypoint).publish([change]));
    }
}

fn waypoints(index: &Index, changes: &Changes, feeds: &Feeds) {
    for waypoint in &changes.waypoints {
        match index.waypoint(waypoint) {
            Some(_) => feeds.bound(waypoint).mark_synced(),
            None => feeds.forget_waypoint(waypoint),
        }
    }
}

fn enrollments(index: &Index, changes: &Changes, feeds: &Feeds) {
    for (node, uid) in &changes.enrollments {
        let change = match index.enrollment(uid).filter(|enrollment| enrollment.node == *node) {
            Some(enrollment) => Change::Set { name: pod_name(uid), body: pod(enrollment) },
            None => Change::Remove { name: pod_name(uid) },
        };
        report(feeds.enrollment(node).publish([change]));
    }
    let (known, gone): (Vec<&Arc<str>>, Vec<_>) = changes.nodes.iter().partition(|node| index.has_node(node));
    gone.into_iter().for_each(|node| feeds.forget(node));
    let told: Vec<Feed> = known.into_iter().map(|node| feeds.enrollment(node)).collect();
    let change = Change::Set { name: NODE.into(), body: own(index.node_enrollment()) };
    report(Feed::publish_to_all(&told, &change));
    told.iter().for_each(Feed::mark_synced);
}

fn set(packed: Packed) -> Change {
    Change::Set { name: packed.name, body: packed.body }
}

fn pod_name(uid: &str) -> Arc<str> {
    format!("pod/{uid}").into()
}

fn pod(enrollment: &Enrollment) -> Bytes {
    let wanted = match enrollment.wanted {
        Wanted::Out => WantedMessage::Out,
        Wanted::L4 => WantedMessage::L4,
    };
    let pod = PodEnrollment {
        uid: enrollment.uid.to_string(),
        namespace: enrollment.namespace.to_string(),
        name: enrollment.name.to_string(),
        service_account: enrollment.service_account.to_string(),
        wanted: wanted.into(),
        ips: enrollment.ips.iter().map(ToString::to_string).collect(),
        reason: enrollment.reason.to_owned(),
        bypass_inbound: enrollment.bypass_inbound,
        wanted_from_start: enrollment.wanted_from_start,
        probes: enrollment.probes.iter().map(probe).collect(),
        reroute_interfaces: enrollment.reroute_interfaces.iter().cloned().collect(),
    };
    Message { subject: Some(Subject::Pod(pod)) }.encode_to_vec().into()
}

fn probe(call: &ProbeCall) -> Probe {
    let (kind, target, host) = match &call.sends {
        Sends::Nothing => (Kind::Tcp, "", ""),
        Sends::Get { target, host } => (Kind::Http, target.as_str(), host.as_str()),
        Sends::Tls => (Kind::Tls, "", ""),
        Sends::Http2 => (Kind::Http2, "", ""),
    };
    Probe { port: call.port.into(), kind: kind.into(), target: target.to_owned(), host: host.to_owned() }
}

fn own(node: &NodeEnrollment) -> Bytes {
    let names = |names: &BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
    let node = NodeMessage {
        enrolled_namespaces: names(&node.enrolled_namespaces),
        partly_enrolled_namespaces: names(&node.partly_enrolled_namespaces),
        decommission: node.decommission,
    };
    Message { subject: Some(Subject::Node(node)) }.encode_to_vec().into()
}

fn report(refused: Vec<TooLarge>) {
    for error in refused {
        tracing::error!(%error, "A resource is not published; what was published before stays in force");
    }
}

#[cfg(test)]
mod tests {
    use ambit_index::{Object, Presence, Settings};
    use serde_json::json;

    use super::*;

    fn index() -> Index {
        Index::new(Settings { presence: Presence::Present, ..Settings::default() })
    }

    fn object(
        kind: fn(Box<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>) -> Object,
        name: &str,
    ) -> Object {
        kind(Box::new(
            serde_json::from_value(json!({"name": name, "labels": {"istio.io/dataplane-mode": "ambient"}}))
                .unwrap(),
        ))
    }

    #[test]
    fn a_node_is_served_once_it_exists_and_knows_its_enrolled_namespaces_and_pods() {
        let (mut index, feeds) = (index(), Feeds::default());
        for object in [
            object(Object::Node, "n1"),
            object(Object::Namespace, "shop"),
            Object::Pod(Box::new(
                serde_json::from_value(json!({
                    "metadata": {"name": "cart", "namespace": "shop", "uid": "u1"},
                    "spec": {"nodeName": "n1", "serviceAccountName": "cart", "containers": []},
                    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
                }))
                .unwrap(),
            )),
        ] {
            let changed = index.apply(object);
            changes(&index, &changed, &feeds);
        }
        let feed = feeds.enrollment("n1");
        assert!(feed.is_synced());
        assert_eq!((feed.len(), feeds.address.len()), (2, 1));
        let after_all = Feeds::default();
        all(&index, &after_all);
        assert_eq!((after_all.enrollment("n1").len(), after_all.address.len()), (2, 1));
        let changed = index.delete(&ambit_index::Key {
            kind: ambit_index::Kind::Pod,
            name: ambit_model::NamespacedName::new("shop", "cart"),
        });
        changes(&index, &changed, &feeds);
        assert_eq!((feed.len(), feeds.address.len()), (1, 0));
    }
}
