//! Drives the state machine of one pod: runs one effect at a time, and retries a failed one with
//! backoff.
//!
//! One task per pod. Invariant: an effect starts only after the previous one has ended.

use std::time::{Duration, Instant};

use ambit_proto::node::{PodReport, Stage};
use ambit_runtime::Backoff;
use tokio::sync::watch;

use super::{
    effects::Effects,
    pod::{Intent, Sandbox},
    stage::{Effect, Facts, Know, Linger, Position, Processes, ProxyFact, Wanted, next},
};
use crate::{Error, Problem, metrics::EffectLabels, proxy::Link};

/// First delay after a failed effect; doubled for each further failure.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest delay.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a pod that leaves the mesh still accepts tunnels from peers.
pub(crate) const LINGER: Duration = Duration::from_secs(3);
/// How often to check whether the last process of a deleted pod has ended.
const PROCESSES_INTERVAL: Duration = Duration::from_secs(1);
/// Consecutive failures after which the operator is notified; fewer are normal for a pod that has
/// just started.
const FAILURES_BEFORE_REPORT: u32 = 4;

/// The progress of a pod, for callers that wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Cookie of the namespace in which the pod is enrolled, if it is.
    pub enrolled: Option<u64>,
    /// Why there is no progress.
    pub problem: Option<Problem>,
    /// Nothing of the mesh is left in the pod, and nothing will be done until its intent changes.
    pub is_cleared: bool,
}

/// The driver's ends of its channels.
#[derive(Debug)]
pub(crate) struct Channels {
    /// The wanted state.
    pub intent: watch::Receiver<Intent>,
    /// The network that CNI created.
    pub sandbox: watch::Receiver<Option<Sandbox>>,
    /// The progress.
    pub progress: watch::Sender<Progress>,
}

/// The driver of one pod.
#[derive(Debug)]
pub(crate) struct Driver {
    channels: Channels,
    effects: Effects,
    at: Position,
    link: watch::Receiver<Link>,
    breaker: watch::Receiver<u64>,
    breaker_seen: u64,
    /// When capture was switched off and only tunnels were left.
    narrowed: Option<Instant>,
    backoff: Backoff,
    failures: u32,
    problem: Option<Problem>,
}

impl Driver {
    /// A driver for a pod whose current position is `at`.
    pub(crate) fn new(channels: Channels, mut effects: Effects, at: Position) -> Self {
        if at != Position::default() {
            // An earlier agent has enrolled it, or was about to.
            effects.forgo_closing();
        }
        let (link, breaker) = (effects.proxy().link(), effects.proxy().breaker());
        let breaker_seen = *breaker.borrow();
        Self {
            channels,
            effects,
            at,
            link,
            breaker,
            breaker_seen,
            narrowed: None,
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            failures: 0,
            problem: None,
        }
    }

    /// Reports the pod's position before anything is done, so that the first report to the operator
    /// includes it.
    pub(crate) fn announce(&self) {
        let intent = self.channels.intent.borrow().clone();
        self.report(&intent);
    }

    /// Runs until a deleted pod is cleaned up, or the agent stops.
    pub(crate) async fn run(mut self) {
        loop {
            let intent = self.channels.intent.borrow_and_update().clone();
            let sandbox = self.channels.sandbox.borrow_and_update().clone();
            if let Err(error) = self.effects.describe(&intent.pod, sandbox.as_ref(), &mut self.at).await {
                self.failed("replace", &error);
                self.publish(&intent);
                if self.pause().await.is_err() {
                    return;
                }
                continue;
            }
            let facts = self.facts(&intent).await;
            match next(&self.at, intent.wanted, &facts) {
                Some(effect) => {
                    let failed = self.perform(effect, &intent).await.is_err();
                    self.publish(&intent);
                    if failed && self.pause().await.is_err() {
                        return;
                    }
                }
                None => {
                    self.arrived(&intent, &facts);
                    self.publish(&intent);
                    let is_over = intent.wanted == Wanted::Gone && self.at.is_finished();
                    if is_over || self.wait(&intent, &facts).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Updates the position after external changes, and collects the facts.
    async fn facts(&mut self, intent: &Intent) -> Facts {
        let breaker = *self.breaker.borrow_and_update();
        if breaker != self.breaker_seen {
            self.breaker_seen = breaker;
            self.at.disarmed();
        }
        let link = *self.link.borrow_and_update();
        let proxy = match link {
            Link::Away => {
                self.at.proxy_lost();
                ProxyFact::Away
            }
            Link::Ready(generation) => {
                let is_acked = self.effects.roster().acked(&intent.pod.uid) == Some(generation);
                self.at.announced = match self.at.announced {
                    _ if is_acked => Know::Yes,
                    Know::Maybe => Know::Maybe,
                    Know::No | Know::Yes => Know::No,
                };
                ProxyFact::Ready
            }
        };
        let lingers = self.narrowed.is_some_and(|since| since.elapsed() < LINGER);
        let processes = match intent.wanted {
            Wanted::Gone => self.effects.processes(&intent.pod.uid).await,
            Wanted::Out | Wanted::Cleared | Wanted::L4 => Processes::Running,
        };
        Facts { proxy, linger: if lingers { Linger::Running } else { Linger::Over }, processes }
    }

    async fn perform(&mut self, effect: Effect, intent: &Intent) -> Result<(), Error> {
        self.at.begun(effect);
        let result = self.effects.perform(effect, intent).await;
        let outcome = result.as_ref().err().map_or("ok", Error::reason);
        let name = format!("{effect:?}");
        self.effects.metrics().effects.get_or_create(&EffectLabels { effect: name.clone(), outcome }).inc();
        match &result {
            Ok(()) => {
                self.at.succeeded(effect);
                self.backoff.reset();
                self.failures = 0;
                self.problem = None;
                if effect == Effect::Narrow {
                    self.narrowed = Some(Instant::now());
                }
                tracing::debug!(pod.uid = intent.pod.uid, effect = name, "Done");
            }
            Err(error) => self.failed(&name, error),
        }
        result
    }

    fn failed(&mut self, effect: &str, error: &Error) {
        self.failures += 1;
        if self.failures == FAILURES_BEFORE_REPORT {
            tracing::warn!(effect, %error, "A pod does not make progress");
        }
        self.problem = Some(error.problem());
    }

    /// Nothing to do: the pod has reached its target, or waits for an external change.
    fn arrived(&mut self, intent: &Intent, facts: &Facts) {
        let waits_for_proxy =
            intent.wanted == Wanted::L4 && self.at.announced != Know::Yes && facts.proxy == ProxyFact::Away;
        self.problem = waits_for_proxy.then(|| Error::ProxyAway.problem());
        self.failures = if waits_for_proxy { FAILURES_BEFORE_REPORT } else { 0 };
    }

    fn publish(&self, intent: &Intent) {
        let is_enrolled = intent.wanted == Wanted::L4
            && self.at.captured == Know::Yes
            && self.at.stage() == Some(Stage::Enrolled);
        let progress = Progress {
            enrolled: self.effects.cookie().filter(|_| is_enrolled),
            problem: self.problem.clone(),
            is_cleared: self.at.is_finished(),
        };
        self.channels.progress.send_if_modified(|old| {
            let changed = *old != progress;
            if changed && old.enrolled.is_some() != progress.enrolled.is_some() {
                let gauge = &self.effects.metrics().pods_enrolled;
                if progress.enrolled.is_some() {
                    gauge.inc()
                } else {
                    gauge.dec()
                };
            }
            *old = progress;
            changed
        });
        self.report(intent);
    }

    fn report(&self, intent: &Intent) {
        let reported = self.problem.as_ref().filter(|_| self.failures >= FAILURES_BEFORE_REPORT);
        let stage = match (self.at.stage(), reported) {
            (Some(stage), _) => stage,
            // An earlier agent may have enrolled it, and the operator must not conclude that it
            // left the mesh.
            (None, _) if self.at.captured != Know::No => Stage::Redirected,
            (None, Some(_)) => Stage::Out,
            (None, None) => return,
        };
        let reporter = self.effects.reporter();
        if intent.wanted == Wanted::Gone {
            if stage == Stage::Out {
                reporter.gone(&intent.pod.uid);
            }
            return;
        }
        reporter.pod(PodReport {
            uid: intent.pod.uid.clone(),
            namespace: intent.pod.namespace.clone(),
            name: intent.pod.name.clone(),
            stage: stage.into(),
            reason: reported.map(|problem| problem.reason.to_owned()).unwrap_or_default(),
            message: reported.map(|problem| problem.message.clone()).unwrap_or_default(),
            ..PodReport::default()
        });
    }

    /// Waits after a failure; ends early when the intent or the proxy changes.
    async fn pause(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            () = tokio::time::sleep(self.backoff.pause()) => Ok(()),
            changed = self.channels.intent.changed() => changed,
            changed = self.channels.sandbox.changed() => changed,
            changed = self.link.changed() => changed,
        }
    }

    /// Waits for any change that could lead to another effect.
    async fn wait(&mut self, intent: &Intent, facts: &Facts) -> Result<(), watch::error::RecvError> {
        let timer = match (facts.linger, intent.wanted) {
            (Linger::Running, _) => {
                LINGER.saturating_sub(self.narrowed.map_or(LINGER, |since| since.elapsed()))
            }
            (Linger::Over, Wanted::Gone) => PROCESSES_INTERVAL,
            (Linger::Over, Wanted::Out | Wanted::Cleared | Wanted::L4) => Duration::MAX,
        };
        tokio::select! {
            () = tokio::time::sleep(timer) => Ok(()),
            changed = self.channels.intent.changed() => changed,
            changed = self.link.changed() => changed,
            changed = self.breaker.changed() => changed,
            changed = self.channels.sandbox.changed() => changed,
        }
    }
}
