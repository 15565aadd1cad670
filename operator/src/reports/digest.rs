//! Converts reports to events; pure.
//!
//! Invariant: an event is repeated on a stream only when it changes. A report about an unknown pod
//! is kept until the pod is known, or until a timeout.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ambit_model::NamespacedName;
use ambit_proto::node::{NodeReport, PodReport, Stage};
use tokio::time::Instant;

use super::event::ReportEvent;
use crate::ca::NodePods;

/// How long a report about an unknown pod is kept.
pub(super) const UNKNOWN_POD_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a reconnected agent may take to report a pod that is annotated as redirected.
pub(super) const UNNAMED_POD_TIME_MAX: Duration = Duration::from_secs(10);
/// Number of remembered pods per node; more are not reported.
const PODS_MAX: usize = 2048;
/// Longest reason or message, in characters.
const TEXT_MAX: usize = 1024;
/// Default reason when no proxy is connected.
const PROXY_NOT_CONNECTED: &str = "ProxyNotConnected";

/// The reports of one agent.
#[derive(Debug)]
pub(super) struct Digest {
    node: Arc<str>,
    agent: NamespacedName,
    said: HashMap<String, Said>,
    waiting: HashMap<String, (PodReport, Instant)>,
    /// Pods annotated as redirected that the complete state did not contain, with a deadline for
    /// each.
    unnamed: HashMap<Arc<str>, Instant>,
    problem: Option<Option<(String, String)>>,
    /// Uid of the Node object when the node was last reported as serving.
    served: Option<Arc<str>>,
    clean: bool,
}

/// The last event about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    enrolled: Option<bool>,
    failure: Option<(String, String)>,
    forwarded: [u64; 2],
}

impl Digest {
    pub(super) fn new(node: Arc<str>, agent: NamespacedName) -> Self {
        Self {
            node,
            agent,
            said: HashMap::new(),
            waiting: HashMap::new(),
            unnamed: HashMap::new(),
            problem: None,
            served: None,
            clean: false,
        }
    }

    pub(super) fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Processes a report.
    pub(super) fn take(&mut self, report: NodeReport, pods: &dyn NodePods, now: Instant) -> Vec<ReportEvent> {
        let mut events = Vec::new();
        self.take_node(&report, pods, &mut events);
        if report.snapshot {
            self.waiting.clear();
            self.left_out(&report, pods, now);
        }
        for late in report.late {
            match pods.pod_by_uid(&late.uid).filter(|pod| pod.node == self.node) {
                Some(pod) => events.push(ReportEvent::PodLate { pod, closed: late.closed }),
                None => {
                    tracing::warn!(node = %self.node, pod.uid = late.uid, "An unknown pod was enrolled late")
                }
            }
        }
        for uid in report.gone {
            self.waiting.remove(&uid);
            let left = PodReport { uid, stage: Stage::Out.into(), ..PodReport::default() };
            self.take_pod(&left, pods, &mut events);
            self.said.remove(&left.uid);
        }
        for pod in report.pods {
            if self.take_pod(&pod, pods, &mut events) {
                self.waiting.remove(&pod.uid);
            } else if self.waiting.len() < PODS_MAX {
                self.waiting.insert(pod.uid.clone(), (pod, now + UNKNOWN_POD_TIME_MAX));
            }
        }
        events
    }

    /// Whether [`Digest::retry`] has something to do, now or later.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.unnamed.is_empty()
    }

    /// Retries waiting reports, drops those past their deadline, and checks whether the node has
    /// registered again.
    pub(super) fn retry(&mut self, pods: &dyn NodePods, now: Instant) -> Vec<ReportEvent> {
        let mut events = Vec::new();
        self.registered_again(pods, &mut events);
        self.give_up_unnamed(pods, now, &mut events);
        for (uid, (report, until)) in std::mem::take(&mut self.waiting) {
            if self.take_pod(&report, pods, &mut events) {
                continue;
            }
            if now < until {
                self.waiting.insert(uid, (report, until));
            } else {
                tracing::warn!(node = %self.node, pod.uid = uid, "Report about a pod that is not on this node");
            }
        }
        events
    }

    /// A node that registers again has its startup taint again, even if its agent kept running and
    /// has nothing new to report.
    fn registered_again(&mut self, pods: &dyn NodePods, events: &mut Vec<ReportEvent>) {
        let uid = pods.node_uid(&self.node);
        if self.problem == Some(None) && uid.is_some() && uid != self.served {
            self.served = uid;
            events.push(ReportEvent::NodeServes { node: self.node.clone() });
        }
    }

    fn take_node(&mut self, report: &NodeReport, pods: &dyn NodePods, events: &mut Vec<ReportEvent>) {
        let node = || self.node.clone();
        if report.clean && !self.clean {
            events.push(ReportEvent::NodeClean { node: node(), agent: self.agent.clone() });
        }
        self.clean = report.clean;
        let problem = if !report.reason.is_empty() {
            Some((text(&report.reason), text(&report.message)))
        } else if report.proxy_connected || report.clean {
            None
        } else {
            Some((PROXY_NOT_CONNECTED.to_owned(), "no ztunnel is connected to the node agent".to_owned()))
        };
        if self.problem.as_ref() != Some(&problem) {
            events.push(match problem.clone() {
                Some((reason, message)) => ReportEvent::NodeProblem { node: node(), reason, message },
                None => ReportEvent::NodeServes { node: node() },
            });
            self.problem = Some(problem);
            self.served = pods.node_uid(&self.node);
        }
        self.registered_again(pods, events);
    }

    /// A restarted agent reports its pods one by one as it finds them. The others get time, because
    /// removing the annotation of a pod that is still redirected would make its peers use
    /// plaintext.
    fn left_out(&mut self, report: &NodeReport, pods: &dyn NodePods, now: Instant) {
        let named = |uid: &str| report.pods.iter().any(|pod| pod.uid == uid);
        self.said.retain(|uid, _| named(uid));
        let unnamed = pods.redirected_on(&self.node).into_iter().filter(|pod| !named(&pod.uid));
        self.unnamed = unnamed.map(|pod| (pod.uid, now + UNNAMED_POD_TIME_MAX)).collect();
    }

    fn give_up_unnamed(&mut self, pods: &dyn NodePods, now: Instant, events: &mut Vec<ReportEvent>) {
        let over: Vec<_> = self.unnamed.extract_if(|_, until| *until <= now).collect();
        for (uid, _) in over {
            if let Some(pod) = pods.pod_by_uid(&uid).filter(|pod| pod.node == self.node) {
                events.push(ReportEvent::PodLeft { pod });
            }
        }
    }

    /// False when the pod is not known on this node.
    fn take_pod(&mut self, report: &PodReport, pods: &dyn NodePods, events: &mut Vec<ReportEvent>) -> bool {
        let Some(pod) = pods.pod_by_uid(&report.uid).filter(|pod| pod.node == self.node) else {
            return false;
        };
        self.unnamed.remove(&pod.uid);
        if self.said.len() >= PODS_MAX && !self.said.contains_key(&report.uid) {
            tracing::warn!(node = %self.node, limit = PODS_MAX, "More pods reported than a node can have");
            return true;
        }
        let said = self.said.entry(report.uid.clone()).or_default();
        let enrolled = match report.stage() {
            Stage::Enrolled => Some(true),
            Stage::Out | Stage::Unredirected => Some(false),
            // Enrollment in progress: nothing has changed for peers yet.
            Stage::Announced | Stage::Redirected => said.enrolled,
        };
        let failure = (!report.reason.is_empty()).then(|| (text(&report.reason), text(&report.message)));
        if enrolled != said.enrolled {
            events.push(match enrolled {
                Some(true) => ReportEvent::PodEnrolled { pod: pod.clone() },
                Some(false) | None => ReportEvent::PodLeft { pod: pod.clone() },
            });
        }
        let forwarded = [report.forwarded_out_dropped, report.forwarded_in_dropped];
        let [out, into] = forwarded;
        if forwarded != said.forwarded && out.saturating_add(into) > 0 {
            events.push(ReportEvent::PodForwards { pod: pod.clone(), out, into });
        }
        if let Some((reason, message)) = failure.clone().filter(|_| failure != said.failure) {
            events.push(ReportEvent::PodFailed { pod, reason, message });
        }
        *said = Said { enrolled, failure, forwarded };
        true
    }
}

fn text(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
