//! Clusters made of objects as the API server would list them: nodes, enrolled namespaces, Services and redirected pods.

use std::collections::BTreeMap;

use ambit_index::{Index, Object, Presence, Settings};
use anyhow::Result;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, Pod, PodCondition, PodIP, PodSpec, PodStatus, Service, ServicePort,
        ServiceSpec,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde_json::{Value, json};

/// Pods on one node, in a namespace, and behind a Service.
pub(crate) const PODS_PER_NODE: usize = 50;
const PODS_PER_NAMESPACE: usize = 500;
const PODS_PER_SERVICE: usize = 20;

/// A cluster that has seen no object yet.
pub(crate) fn index() -> Index {
    Index::new(Settings { presence: Presence::Present, ..Settings::default() })
}

/// Nodes and namespaces for so many pods.
pub(crate) fn ground(pods: usize) -> Vec<Object> {
    let nodes = (0..nodes_for(pods)).map(node);
    let namespaces =
        (0..pods.div_ceil(PODS_PER_NAMESPACE)).map(|number| namespace(&format!("team-{number}")));
    nodes.chain(namespaces).collect()
}

/// So many pods, spread over nodes and namespaces, one Service for each twenty of them.
pub(crate) fn pods(pods: usize) -> Vec<Object> {
    let made = (0..pods).map(|number| {
        let namespace = format!("team-{}", number / PODS_PER_NAMESPACE);
        pod(&namespace, &format!("app-{}", number / PODS_PER_SERVICE), number, number % nodes_for(pods))
    });
    made.collect()
}

/// The Services of [`pods`].
pub(crate) fn services(pods: usize) -> Vec<Object> {
    let made = (0..pods / PODS_PER_SERVICE).map(|number| {
        let namespace = format!("team-{}", number * PODS_PER_SERVICE / PODS_PER_NAMESPACE);
        let app = format!("app-{number}");
        service(&namespace, &app, &app, &[])
    });
    made.collect()
}

/// An index that has heard of a whole cluster, and is heard itself.
pub(crate) fn settled(pods: usize) -> Index {
    let mut index = index();
    for object in [ground(pods), services(pods), self::pods(pods)].into_iter().flatten() {
        let _ = index.apply(object);
    }
    index.serve();
    index
}

pub(crate) fn nodes_for(pods: usize) -> usize {
    pods.div_ceil(PODS_PER_NODE)
}

pub(crate) fn node(number: usize) -> Object {
    let labels = [("topology.kubernetes.io/zone", "a")];
    Object::Node(Box::new(metadata("", &format!("node-{number}"), &labels)))
}

/// An enrolled namespace.
pub(crate) fn namespace(name: &str) -> Object {
    labelled_namespace(name, &[("istio.io/dataplane-mode", "ambient")])
}

pub(crate) fn labelled_namespace(name: &str, labels: &[(&str, &str)]) -> Object {
    Object::Namespace(Box::new(metadata("", name, labels)))
}

/// A Service on the pods of an application.
pub(crate) fn service(namespace: &str, name: &str, app: &str, labels: &[(&str, &str)]) -> Object {
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: 80,
        target_port: Some(IntOrString::String("http".to_owned())),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        cluster_ip: Some("10.96.0.1".to_owned()),
        selector: Some(BTreeMap::from([("app".to_owned(), app.to_owned())])),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    let metadata = metadata(namespace, name, labels);
    Object::Service(Box::new(Service { metadata, spec: Some(spec), ..Service::default() }))
}

/// A pod that runs, is ready and redirected.
pub(crate) fn pod(namespace: &str, app: &str, number: usize, node: usize) -> Object {
    let name = format!("{app}-{number}");
    let mut metadata =
        metadata(namespace, &name, &[("app", app), ("version", "v1"), ("pod-template-hash", "5d4")]);
    metadata.annotations = Some(map(&[("ambient.istio.io/redirection", "enabled")]));
    let port =
        ContainerPort { name: Some("http".to_owned()), container_port: 8080, ..ContainerPort::default() };
    let container = Container { name: "app".to_owned(), ports: Some(vec![port]), ..Container::default() };
    let ip = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
    let ready =
        PodCondition { type_: "Ready".to_owned(), status: "True".to_owned(), ..PodCondition::default() };
    let pod = Pod {
        metadata,
        spec: Some(PodSpec {
            node_name: Some(format!("node-{node}")),
            service_account_name: Some(app.to_owned()),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: Some(ip.clone()),
            pod_ips: Some(vec![PodIP { ip }]),
            conditions: Some(vec![ready]),
            ..PodStatus::default()
        }),
    };
    Object::Pod(Box::new(pod))
}

/// A waypoint that has been ready.
pub(crate) fn waypoint(namespace: &str, serves: &str) -> Result<Object> {
    Ok(Object::Gateway(Box::new(serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": namespace, "labels": {"istio.io/waypoint-for": serves}},
        "spec": {"gatewayClassName": "istio-waypoint",
                 "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": [{"type": "IPAddress", "value": "10.96.1.1"}]}
    }))?)))
}

/// A policy that allows what `spec` says.
pub(crate) fn authorization(namespace: &str, name: &str, spec: &Value) -> Result<Object> {
    Ok(Object::AuthorizationPolicy(Box::new(serde_json::from_value(json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec
    }))?)))
}

/// STRICT for a namespace.
pub(crate) fn strict(namespace: &str) -> Result<Object> {
    Ok(Object::PeerAuthentication(Box::new(serde_json::from_value(json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "strict", "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"mtls": {"mode": "STRICT"}}
    }))?)))
}

fn metadata(namespace: &str, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        uid: Some(format!("uid-{namespace}-{name}")),
        labels: Some(map(labels)),
        ..ObjectMeta::default()
    }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
