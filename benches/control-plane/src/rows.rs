//! The rows: what is set up, and which part of it is measured.

use std::time::Duration;

use ambit_index::{Index, Key, Object};
use ambit_operator::{Feeds, publish};
use anyhow::{Result, ensure};
use serde_json::json;

use crate::{clock::measure, cluster};

/// Sizes of a cluster, a namespace, a group and a number of nodes.
const CLUSTER: [usize; 4] = [6_250, 12_500, 25_000, 50_000];
const NAMESPACE: [usize; 4] = [625, 1_250, 2_500, 5_000];
const GROUP: [usize; 4] = [125, 250, 500, 1_000];

/// An event is repeated in rounds until this much CPU time is spent, for the kernel may count by ticks of some milliseconds.
const ENOUGH: Duration = Duration::from_millis(200);
const ROUNDS_MAX: usize = 40;
const ROUND: usize = 20;
const PODS_PER_SERVICE: usize = 10;

/// One row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) sizes: [usize; 4],
    pub(crate) target: &'static str,
    pub(crate) measure: fn(usize) -> Result<Duration>,
}

/// Every row, in the order of the output.
pub(crate) const ROWS: &[Row] = &[
    row("first list of n pods, services first", CLUSTER, "< 3 s with the next but one", services_first),
    row("first list of n pods, pods first", CLUSTER, "order does not matter", pods_first),
    row("publish::all of n pods", CLUSTER, "linear", publish_all),
    row("one namespace of n pods and n/10 services: first list", NAMESPACE, "< 1 s", one_namespace),
    row("one namespace: pods first", NAMESPACE, "< 1 s", one_namespace_pods_first),
    row("one namespace: a service that selects nobody", NAMESPACE, "as the pods it selects", idle_service),
    row("one namespace: a service written again unchanged", NAMESPACE, "0", same_service),
    row("one namespace: a policy that selects 10 pods", NAMESPACE, "as the pods it selects", selector_policy),
    row("mesh-wide policy created or deleted, n pods", CLUSTER, "<= 1 ms", mesh_policy),
    row("PeerAuthentication unchanged, n pods", CLUSTER, "0", same_peer),
    row("a pod born in a service of n endpoints", NAMESPACE, "constant", born_in_service),
    row("a pod born in a service of n behind a waypoint", NAMESPACE, "constant", born_behind_service),
    row("a pod born in a namespace of n behind a waypoint", GROUP, "constant", born_behind_waypoint),
    row("publishing the enrollment of a namespace to n nodes", GROUP, "encoded once", enroll),
    row("scan for refused and forgetful pods, n pods", CLUSTER, "constant", scan),
];

const fn row(
    name: &'static str,
    sizes: [usize; 4],
    target: &'static str,
    measure: fn(usize) -> Result<Duration>,
) -> Row {
    Row { name, sizes, target, measure }
}

fn services_first(pods: usize) -> Result<Duration> {
    first_list([cluster::ground(pods), cluster::services(pods), cluster::pods(pods)])
}

fn pods_first(pods: usize) -> Result<Duration> {
    first_list([cluster::pods(pods), cluster::services(pods), cluster::ground(pods)])
}

/// As the operator does it: everything is folded in, then the index is heard.
fn first_list(lists: [Vec<Object>; 3]) -> Result<Duration> {
    let mut index = cluster::index();
    let (took, ()) = measure(|| {
        for object in lists.into_iter().flatten() {
            let _ = index.apply(object);
        }
        index.serve();
    })?;
    ensure!(index.workloads().count() > 0, "no workload");
    Ok(took)
}

fn publish_all(pods: usize) -> Result<Duration> {
    let (index, feeds) = (cluster::settled(pods), Feeds::default());
    let (took, ()) = measure(|| publish::all(&index, &feeds))?;
    ensure!(feeds.address.len() > pods, "{} addresses", feeds.address.len());
    Ok(took)
}

/// Pods and Services of one namespace.
fn members(pods: usize) -> (Vec<Object>, Vec<Object>) {
    let app = |number: usize| format!("app-{}", number / PODS_PER_SERVICE);
    let made =
        (0..pods).map(|number| cluster::pod("shop", &app(number), number, number % cluster::nodes_for(pods)));
    let apps = (0..pods / PODS_PER_SERVICE).map(|number| format!("app-{number}"));
    (made.collect(), apps.map(|app| cluster::service("shop", &app, &app, &[])).collect())
}

fn one_namespace(pods: usize) -> Result<Duration> {
    let (pods, services) = members(pods);
    first_list([vec![cluster::namespace("shop")], services, pods])
}

fn one_namespace_pods_first(pods: usize) -> Result<Duration> {
    let (pods, services) = members(pods);
    first_list([vec![cluster::namespace("shop")], pods, services])
}

fn namespace_of(pods: usize) -> Index {
    let (pods, services) = members(pods);
    let objects = [vec![cluster::namespace("shop")], services, pods];
    settle(objects.into_iter().flatten())
}

fn settle(objects: impl Iterator<Item = Object>) -> Index {
    let mut index = cluster::index();
    for object in objects {
        let _ = index.apply(object);
    }
    index.serve();
    index
}

/// The mean time of folding an object in, and where `is_taken_out`, out again.
fn repeated(
    index: &mut Index,
    object: impl Fn(usize) -> Result<Object>,
    is_taken_out: bool,
) -> Result<Duration> {
    let (mut spent, mut events) = (Duration::ZERO, 0);
    for round in 0..ROUNDS_MAX {
        let numbers = round * ROUND..(round + 1) * ROUND;
        let objects = numbers.map(&object).collect::<Result<Vec<_>>>()?;
        let keys: Vec<Key> = objects.iter().filter(|_| is_taken_out).map(Object::key).collect();
        events += objects.len() + keys.len();
        let (took, ()) = measure(|| {
            for object in objects {
                let _ = index.apply(object);
            }
            for key in &keys {
                let _ = index.delete(key);
            }
        })?;
        spent += took;
        if spent > ENOUGH {
            break;
        }
    }
    Ok(spent / u32::try_from(events)?)
}

fn idle_service(pods: usize) -> Result<Duration> {
    let service = |number| Ok(cluster::service("shop", &format!("idle-{number}"), "nobody", &[]));
    repeated(&mut namespace_of(pods), service, true)
}

fn same_service(pods: usize) -> Result<Duration> {
    repeated(&mut namespace_of(pods), |_| Ok(cluster::service("shop", "app-0", "app-0", &[])), false)
}

fn selector_policy(pods: usize) -> Result<Duration> {
    let spec = json!({"selector": {"matchLabels": {"app": "app-0"}}, "rules": [{}]});
    let policy = |number| cluster::authorization("shop", &format!("some-{number}"), &spec);
    repeated(&mut namespace_of(pods), policy, true)
}

fn mesh_policy(pods: usize) -> Result<Duration> {
    let policy =
        |number| cluster::authorization("istio-system", &format!("all-{number}"), &json!({"rules": [{}]}));
    repeated(&mut cluster::settled(pods), policy, true)
}

fn same_peer(pods: usize) -> Result<Duration> {
    let mut index = cluster::settled(pods);
    let _ = index.apply(cluster::strict("istio-system")?);
    repeated(&mut index, |_| cluster::strict("istio-system"), false)
}

fn born_in_service(pods: usize) -> Result<Duration> {
    born(pods, cluster::namespace("shop"), &[], "service")
}

fn born_behind_service(pods: usize) -> Result<Duration> {
    born(pods, cluster::namespace("shop"), &[("istio.io/use-waypoint", "waypoint")], "service")
}

fn born_behind_waypoint(pods: usize) -> Result<Duration> {
    let labels = [("istio.io/dataplane-mode", "ambient"), ("istio.io/use-waypoint", "waypoint")];
    born(pods, cluster::labelled_namespace("shop", &labels), &[], "all")
}

/// Pods that come to a Service of so many, one after the other.
fn born(pods: usize, namespace: Object, labels: &[(&str, &str)], serves: &str) -> Result<Duration> {
    let pod = |number: usize| cluster::pod("shop", "app", number, number % cluster::nodes_for(pods));
    let service = cluster::service("shop", "app", "app", labels);
    let objects = [namespace, cluster::waypoint("shop", serves)?, service].into_iter();
    let mut index = settle(objects.chain((0..pods).map(pod)));
    repeated(&mut index, |number| Ok(pod(pods + number)), false)
}

fn enroll(nodes: usize) -> Result<Duration> {
    let pods = nodes * cluster::PODS_PER_NODE;
    let (mut index, feeds) = (cluster::settled(pods), Feeds::default());
    publish::all(&index, &feeds);
    let changes = index.apply(cluster::namespace("newcomers"));
    ensure!(changes.nodes.len() == nodes, "{} nodes are told", changes.nodes.len());
    let (took, ()) = measure(|| publish::changes(&index, &changes, &feeds))?;
    Ok(took)
}

fn scan(pods: usize) -> Result<Duration> {
    let mut index = cluster::settled(pods);
    // Every pod of one namespace asks for a waypoint, and has it.
    let labels = [("istio.io/dataplane-mode", "ambient"), ("istio.io/use-waypoint", "waypoint")];
    for namespace in 0..pods / 500 {
        let name = format!("team-{namespace}");
        let _ = index.apply(cluster::waypoint(&name, "workload")?);
        let _ = index.apply(cluster::labelled_namespace(&name, &labels));
    }
    let (took, found) = measure(|| index.refused_pods().count() + index.pods_to_annotate().count())?;
    ensure!(found <= pods, "{found} of {pods} pods");
    Ok(took)
}
