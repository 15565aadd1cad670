//! Reports to the operator about this node: first the complete state, then changes.
//!
//! Invariant: at most one entry per pod is queued, the newest. What was being sent when a stream
//! ended is part of the next stream's snapshot.

mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ambit_proto::node::{LatePod, NodeReport, PodReport};
use tokio::sync::Notify;

use crate::Problem;

pub(crate) use stream::run;

/// Collects what is to be reported.
#[derive(Clone, Debug, Default)]
pub struct Reporter(Arc<ReporterInner>);

#[derive(Debug, Default)]
struct ReporterInner {
    state: Mutex<ReportState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct ReportState {
    pods: BTreeMap<String, PodReport>,
    dirty: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// Pods that ran before they were enrolled, until a report with them is acknowledged.
    late: BTreeMap<String, u32>,
    late_sent: BTreeMap<String, u32>,
    node: Node,
    node_dirty: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    clean: bool,
    proxy_connected: bool,
    proxy_problem: Option<Problem>,
    install_problem: Option<Problem>,
}

impl Reporter {
    /// Sets the state of a pod.
    pub fn pod(&self, mut report: PodReport) {
        self.change(|state| {
            let uid = report.uid.clone();
            if let Some(before) = state.pods.get(&uid) {
                report.forwarded_out_dropped = before.forwarded_out_dropped;
                report.forwarded_in_dropped = before.forwarded_in_dropped;
            }
            if state.pods.get(&uid) != Some(&report) {
                state.pods.insert(uid.clone(), report);
                state.gone.remove(&uid);
                state.dirty.insert(uid);
            }
        });
    }

    /// Sets the number of a pod's dropped forwarded packets, out and in.
    pub fn forwarded(&self, uid: &str, [out, into]: [u64; 2]) {
        self.change(|state| {
            let Some(report) = state.pods.get_mut(uid) else { return };
            (report.forwarded_out_dropped, report.forwarded_in_dropped) = (out, into);
            state.dirty.insert(uid.to_owned());
        });
    }

    /// Records that a pod ran before it was enrolled, and how many connections were closed.
    pub fn late(&self, uid: &str, closed: u32) {
        self.change(|state| {
            state.late.insert(uid.to_owned(), closed);
        });
    }

    /// The operator has acknowledged the last report.
    fn acknowledged(&self) {
        self.lock().late_sent.clear();
    }

    /// Removes a pod.
    pub fn gone(&self, uid: &str) {
        self.change(|state| {
            if state.pods.remove(uid).is_some() {
                state.dirty.remove(uid);
                state.gone.insert(uid.to_owned());
            }
        });
    }

    /// Sets whether a proxy is connected, and if not, why.
    pub fn proxy(&self, connected: bool, problem: Option<Problem>) {
        self.node(|node| {
            node.proxy_connected = connected;
            node.proxy_problem = problem;
        });
    }

    /// Sets why new pods do not go through the agent; `None` when they do.
    pub fn install(&self, problem: Option<Problem>) {
        self.node(|node| node.install_problem = problem);
    }

    /// Reports that nothing of the mesh is left on the node.
    pub fn clean(&self) {
        self.node(|node| node.clean = true);
    }

    fn node(&self, change: impl FnOnce(&mut Node)) {
        self.change(|state| {
            let before = state.node.clone();
            change(&mut state.node);
            state.node_dirty |= before != state.node;
        });
    }

    fn change(&self, change: impl FnOnce(&mut ReportState)) {
        change(&mut self.lock());
        self.0.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, ReportState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The complete state; later reports contain only changes.
    fn snapshot(&self) -> NodeReport {
        let mut state = self.lock();
        state.dirty.clear();
        state.gone.clear();
        state.node_dirty = false;
        let sent = std::mem::take(&mut state.late_sent);
        state.late.extend(sent);
        let pods = state.pods.values().cloned().collect();
        NodeReport { snapshot: true, pods, late: state.send_late(), ..state.node.report() }
    }

    /// The changes since the last report, if there are any.
    fn changes(&self) -> Option<NodeReport> {
        let mut state = self.lock();
        if state.dirty.is_empty() && state.gone.is_empty() && state.late.is_empty() && !state.node_dirty {
            return None;
        }
        state.node_dirty = false;
        let dirty = std::mem::take(&mut state.dirty);
        let pods = dirty.iter().filter_map(|uid| state.pods.get(uid)).cloned().collect();
        let gone = std::mem::take(&mut state.gone).into_iter().collect();
        Some(NodeReport { snapshot: false, pods, gone, late: state.send_late(), ..state.node.report() })
    }

    async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl ReportState {
    fn send_late(&mut self) -> Vec<LatePod> {
        let late = std::mem::take(&mut self.late);
        self.late_sent.extend(late.clone());
        late.into_iter().map(|(uid, closed)| LatePod { uid, closed }).collect()
    }
}

impl Node {
    fn report(&self) -> NodeReport {
        let problem = self.install_problem.as_ref().or(self.proxy_problem.as_ref());
        NodeReport {
            clean: self.clean,
            proxy_connected: self.proxy_connected,
            reason: problem.map(|problem| problem.reason.to_owned()).unwrap_or_default(),
            message: problem.map(|problem| problem.message.clone()).unwrap_or_default(),
            ..NodeReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use ambit_proto::node::Stage;

    use super::*;

    fn report(uid: &str, stage: Stage) -> PodReport {
        PodReport { uid: uid.into(), stage: stage.into(), ..PodReport::default() }
    }

    #[test]
    fn only_the_newest_state_of_a_pod_waits_and_nothing_is_told_twice() {
        let reporter = Reporter::default();
        reporter.pod(report("a", Stage::Announced));
        assert_eq!(reporter.snapshot().pods.len(), 1);
        assert!(reporter.changes().is_none());
        reporter.pod(report("a", Stage::Redirected));
        reporter.pod(report("a", Stage::Enrolled));
        reporter.pod(report("a", Stage::Enrolled));
        let changes = reporter.changes().unwrap();
        assert_eq!(changes.pods, [report("a", Stage::Enrolled)]);
        assert!(!changes.snapshot && reporter.changes().is_none());
        reporter.pod(report("a", Stage::Enrolled));
        assert!(reporter.changes().is_none(), "unchanged");
        reporter.gone("a");
        reporter.gone("a");
        assert_eq!(reporter.changes().unwrap().gone, ["a"]);
        assert!(reporter.snapshot().pods.is_empty());
    }

    #[test]
    fn what_a_pod_forwarded_in_vain_is_told_beside_where_it_is() {
        let reporter = Reporter::default();
        reporter.forwarded("a", [1, 0]);
        assert!(reporter.changes().is_none(), "a pod that nobody reported");
        reporter.pod(report("a", Stage::Enrolled));
        reporter.changes();
        reporter.forwarded("a", [3, 4]);
        let expected =
            PodReport { forwarded_out_dropped: 3, forwarded_in_dropped: 4, ..report("a", Stage::Enrolled) };
        assert_eq!(reporter.changes().unwrap().pods, [expected]);
        reporter.pod(report("a", Stage::Enrolled));
        assert!(reporter.changes().is_none(), "unchanged");
    }

    #[test]
    fn a_late_pod_is_named_until_the_operator_acknowledges_it() {
        let reporter = Reporter::default();
        reporter.late("a", 3);
        assert_eq!(reporter.snapshot().late, [LatePod { uid: "a".into(), closed: 3 }]);
        assert!(reporter.changes().is_none(), "under way");
        assert_eq!(reporter.snapshot().late.len(), 1, "the stream broke before it was acknowledged");
        reporter.acknowledged();
        assert!(reporter.snapshot().late.is_empty());
        reporter.late("b", 0);
        assert_eq!(reporter.changes().unwrap().late.len(), 1);
    }

    #[test]
    fn the_node_says_why_it_cannot_serve() {
        let reporter = Reporter::default();
        reporter.proxy(false, Some(Problem { reason: "ProxyNotConnected", message: "m".into() }));
        assert_eq!(reporter.changes().unwrap().reason, "ProxyNotConnected");
        reporter.install(Some(Problem { reason: "CNIConfigMissing", message: "m".into() }));
        assert_eq!(reporter.changes().unwrap().reason, "CNIConfigMissing");
        reporter.install(None);
        reporter.proxy(true, None);
        let report = reporter.changes().unwrap();
        assert!(report.reason.is_empty() && report.proxy_connected);
    }
}
