use std::sync::Mutex;

use ambit_index::PodIdentity;
use ambit_proto::node::{LatePod, PodReport, Stage};
use tokio::time::Instant;

use super::{
    digest::{Digest, UNKNOWN_POD_TIME_MAX, UNNAMED_POD_TIME_MAX},
    *,
};

#[derive(Default)]
struct Pods {
    known: Mutex<Vec<PodIdentity>>,
    redirected: Vec<PodIdentity>,
    node_uid: Mutex<Option<Arc<str>>>,
}

impl NodePods for Pods {
    fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
        self.known.lock().unwrap().iter().find(|pod| pod.name == *name).cloned()
    }

    fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity> {
        self.known.lock().unwrap().iter().find(|pod| &*pod.uid == uid).cloned()
    }

    fn runs_on(&self, _: &str, _: &str, _: &str) -> bool {
        false
    }

    fn redirected_on(&self, node: &str) -> Vec<PodIdentity> {
        self.redirected.iter().filter(|pod| &*pod.node == node).cloned().collect()
    }

    fn node_uid(&self, _: &str) -> Option<Arc<str>> {
        self.node_uid.lock().unwrap().clone()
    }

    fn waypoint_of(&self, _: &NamespacedName) -> Option<NamespacedName> {
        None
    }

    fn waypoint_of_account(&self, _: &str, _: &str) -> Option<NamespacedName> {
        None
    }
}

fn pod(uid: &str, node: &str) -> PodIdentity {
    PodIdentity {
        uid: uid.into(),
        name: NamespacedName::new("shop", uid),
        service_account: "default".into(),
        node: node.into(),
        terminated: false,
    }
}

fn pods() -> Pods {
    Pods { known: Mutex::new(vec![pod("a", "n1"), pod("b", "n1"), pod("far", "n2")]), ..Pods::default() }
}

fn digest() -> Digest {
    Digest::new("n1".into(), NamespacedName::new("ambit-system", "agent"))
}

fn is(uid: &str, stage: Stage) -> PodReport {
    PodReport { uid: uid.into(), stage: stage.into(), ..PodReport::default() }
}

fn fails(uid: &str, stage: Stage) -> PodReport {
    PodReport { reason: "NetnsNotFound".into(), message: "m".into(), ..is(uid, stage) }
}

fn says(pods: Vec<PodReport>) -> NodeReport {
    NodeReport { pods, proxy_connected: true, ..NodeReport::default() }
}

/// Events as text, e.g. `enrolled a`.
fn lines(events: Vec<ReportEvent>) -> Vec<String> {
    let line = |event| match event {
        ReportEvent::PodEnrolled { pod } => format!("enrolled {}", pod.uid),
        ReportEvent::PodLeft { pod } => format!("left {}", pod.uid),
        ReportEvent::PodFailed { pod, reason, .. } => format!("failed {} {reason}", pod.uid),
        ReportEvent::PodForwards { pod, out, into } => format!("forwards {} {out} {into}", pod.uid),
        ReportEvent::PodLate { pod, closed } => format!("late {} {closed}", pod.uid),
        ReportEvent::NodeClean { node, agent } => format!("clean {node} {agent}"),
        ReportEvent::NodeProblem { node, reason, .. } => format!("problem {node} {reason}"),
        ReportEvent::NodeServes { node } => format!("serves {node}"),
    };
    events.into_iter().map(line).collect()
}

#[test]
fn says_what_changes_for_peers_and_says_it_once() {
    let (mut digest, pods, now) = (digest(), pods(), Instant::now());
    for (reported, expected) in [
        (is("a", Stage::Announced), vec!["serves n1"]),
        (is("a", Stage::Redirected), vec![]),
        (is("a", Stage::Enrolled), vec!["enrolled a"]),
        (is("a", Stage::Enrolled), vec![]),
        (is("a", Stage::Unredirected), vec!["left a"]),
        (is("a", Stage::Out), vec![]),
        (fails("a", Stage::Announced), vec!["failed a NetnsNotFound"]),
        (fails("a", Stage::Announced), vec![]),
        (is("a", Stage::Enrolled), vec!["enrolled a"]),
    ] {
        assert_eq!(lines(digest.take(says(vec![reported.clone()]), &pods, now)), expected, "{reported:?}");
    }
    let gone = NodeReport { gone: vec!["a".into(), "never".into()], ..says(vec![]) };
    assert_eq!(lines(digest.take(gone, &pods, now)), ["left a"]);
}

#[test]
fn reports_about_pods_of_other_nodes_are_dropped_and_those_about_new_pods_kept() {
    let (mut digest, pods, start) = (digest(), pods(), Instant::now());
    let reports = vec![is("far", Stage::Enrolled), is("new", Stage::Enrolled)];
    assert_eq!(lines(digest.take(says(reports), &pods, start)), ["serves n1"]);
    assert!(digest.is_waiting());
    pods.known.lock().unwrap().push(pod("new", "n1"));
    assert_eq!(lines(digest.retry(&pods, start)), ["enrolled new"]);
    assert!(digest.is_waiting(), "the pod of another node may yet turn out to be a mistake of the cache");
    assert!(digest.retry(&pods, start + UNKNOWN_POD_TIME_MAX).is_empty());
    assert!(!digest.is_waiting());
}

#[test]
fn a_marked_pod_that_a_restarted_agent_does_not_name_in_time_has_left() {
    let pods = Pods { redirected: vec![pod("a", "n1"), pod("b", "n1"), pod("far", "n2")], ..pods() };
    let (mut digest, start) = (digest(), Instant::now());
    let snapshot = NodeReport { snapshot: true, ..says(vec![]) };
    assert_eq!(lines(digest.take(snapshot, &pods, start)), ["serves n1"]);
    let soon = start + UNNAMED_POD_TIME_MAX / 2;
    assert_eq!(lines(digest.take(says(vec![is("a", Stage::Announced)]), &pods, soon)), Vec::<String>::new());
    assert!(digest.retry(&pods, soon).is_empty());
    assert_eq!(lines(digest.retry(&pods, start + UNNAMED_POD_TIME_MAX)), ["left b"]);
    assert!(!digest.is_waiting());
}

#[test]
fn says_how_the_node_is_on_every_change() {
    let (mut digest, pods, now) = (digest(), pods(), Instant::now());
    let cni = NodeReport { reason: "CNIConfigMissing".into(), ..says(vec![]) };
    let away = NodeReport { proxy_connected: false, ..says(vec![]) };
    let clean = NodeReport { clean: true, ..away.clone() };
    for (report, expected) in [
        (away.clone(), vec!["problem n1 ProxyNotConnected"]),
        (away, vec![]),
        (cni, vec!["problem n1 CNIConfigMissing"]),
        (says(vec![]), vec!["serves n1"]),
        (clean.clone(), vec!["clean n1 ambit-system/agent"]),
        (clean, vec![]),
    ] {
        assert_eq!(lines(digest.take(report.clone(), &pods, now)), expected, "{report:?}");
    }
}

#[test]
fn a_node_that_registers_again_while_its_agent_serves_is_said_to_serve_again() {
    let (mut digest, pods, now) = (digest(), pods(), Instant::now());
    let register = |uid: Option<&str>| *pods.node_uid.lock().unwrap() = uid.map(Arc::from);
    let away = NodeReport { proxy_connected: false, ..says(vec![]) };
    register(Some("first"));
    assert!(digest.retry(&pods, now).is_empty(), "nothing was reported yet");
    assert_eq!(lines(digest.take(says(vec![]), &pods, now)), ["serves n1"]);
    assert!(digest.retry(&pods, now).is_empty());
    register(None);
    assert!(digest.retry(&pods, now).is_empty());
    register(Some("second"));
    assert_eq!(lines(digest.retry(&pods, now)), ["serves n1"]);
    assert!(digest.retry(&pods, now).is_empty());
    assert_eq!(lines(digest.take(away, &pods, now)), ["problem n1 ProxyNotConnected"]);
    register(Some("third"));
    assert!(digest.retry(&pods, now).is_empty(), "it does not serve");
    // The Node object may arrive after the first report.
    register(None);
    assert_eq!(lines(digest.take(says(vec![]), &pods, now)), ["serves n1"]);
    register(Some("fourth"));
    assert_eq!(lines(digest.take(says(vec![]), &pods, now)), ["serves n1"]);
}

#[test]
fn packets_dropped_instead_of_forwarded_are_said_whenever_they_become_more() {
    let (mut digest, pods) = (digest(), pods());
    let dropped = |out| PodReport { forwarded_out_dropped: out, ..is("a", Stage::Enrolled) };
    let mut take = |out| lines(digest.take(says(vec![dropped(out)]), &pods, Instant::now()));
    let said = take(0);
    assert!(!said.iter().any(|line| line.starts_with("forwards")), "{said:?}");
    assert_eq!(take(3), ["forwards a 3 0"]);
    assert!(take(3).is_empty());
    assert_eq!(take(5), ["forwards a 5 0"]);
}

#[test]
fn a_late_pod_of_the_node_is_passed_on_and_one_of_another_node_is_not() {
    let late = |uid: &str| LatePod { uid: uid.into(), closed: 2 };
    let report = NodeReport { late: vec![late("a"), late("far"), late("no")], ..says(Vec::new()) };
    let events = lines(digest().take(report, &pods(), Instant::now()));
    assert_eq!(events, ["serves n1", "late a 2"]);
}
