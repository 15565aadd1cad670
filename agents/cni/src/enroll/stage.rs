//! The enrollment state machine of one pod: level-triggered, pure.
//!
//! [`next`] compares the pod's [`Position`] with its target ([`Wanted`]) and returns one
//! [`Effect`]. Results of a failed or interrupted effect are [`Know::Maybe`], so nothing is
//! assumed.
//!
//! Invariant: capture is switched on only while a proxy holds the pod and its listeners are armed.
//! Once on, it is switched off only when the pod should leave the mesh (after the operator was
//! notified) or has no process any more.

use ambit_proto::node;

/// Whether something is in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Know {
    /// Certainly not.
    #[default]
    No,
    /// An effect started without succeeding, or an earlier process may have done it.
    Maybe,
    /// Certainly.
    Yes,
}

/// The target of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Outside the mesh. Rule and route stay in its namespace, because captured connections that
    /// are still open need them.
    Out,
    /// Outside the mesh without any trace, because the mesh leaves the node.
    Cleared,
    /// Enrolled.
    L4,
    /// The pod was deleted.
    Gone,
}

/// External facts in addition to the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    /// Whether a proxy is connected and has received its snapshot.
    pub proxy: ProxyFact,
    /// Whether peers had time to stop tunnelling since capture was switched off.
    pub linger: Linger,
    /// Whether the pod has running processes.
    pub processes: Processes,
}

/// Connection to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProxyFact {
    /// No proxy.
    Away,
    /// Connected and ready for requests.
    Ready,
}

/// The time that peers get to stop tunnelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Linger {
    /// Peers may still tunnel to the pod.
    Running,
    /// The time is over.
    Over,
}

/// Processes in the pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Processes {
    /// At least one.
    Running,
    /// None: nothing is left to protect.
    Ended,
}

/// The last state reported to the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Reported {
    /// Nothing was reported by this process.
    #[default]
    Nothing,
    /// Enrolled: peers may tunnel to the pod.
    Enrolled,
    /// Leaving: peers must stop tunnelling.
    Leaving,
    /// Outside the mesh.
    Out,
}

/// What is in place for a pod, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Position {
    /// The agent holds the namespace, and listening sockets in it.
    pub opened: Know,
    /// The connected proxy acknowledged the pod.
    pub announced: Know,
    /// Rule, route, sysctls and the pinned `sk_lookup` link.
    pub attached: Know,
    /// The listeners are in the kernel's map.
    pub armed: Know,
    /// New connections of the pod are captured.
    pub captured: Know,
    /// Tunnels to the pod are steered to the proxy.
    pub tunnelled: Know,
    /// The last state reported to the operator.
    pub reported: Reported,
}

/// One operation. All are idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Find the namespace, and adopt or open its listeners.
    Open,
    /// Pass the pod to the proxy and wait for the ack.
    Announce,
    /// Set rule, route and sysctls, and attach the link.
    Attach,
    /// Put the listeners into the kernel's map.
    Arm,
    /// One map write: switch on capture and tunnels.
    Capture,
    /// Notify the operator that peers may tunnel.
    ReportEnrolled,
    /// Notify the operator that peers must stop.
    ReportLeaving,
    /// One map write: steer only tunnels.
    Narrow,
    /// Steer nothing, and remove the listeners from the map.
    Close,
    /// Remove rule, route, sysctls and link.
    Detach,
    /// Remove the pod from the proxy.
    Withdraw,
    /// Close the agent's copies of the listeners and of the namespace.
    Drop,
    /// Notify the operator that the pod is outside.
    ReportOut,
}

/// One part of a sequence; the first part that is not done determines the effect.
enum Step {
    Do(Effect),
    Wait,
    Done,
}

/// The next effect; `None` when the target is reached, or an external fact must change first.
pub(crate) fn next(at: &Position, wanted: Wanted, facts: &Facts) -> Option<Effect> {
    let way: &[fn(&Position, &Facts) -> Step] = match wanted {
        Wanted::L4 => &[hold, protect, tell_enrolled],
        Wanted::Out => &[quiet, release, tell_out],
        Wanted::Cleared => &[quiet, detach, release, tell_out],
        Wanted::Gone => &[mourn, detach, release, tell_out],
    };
    for part in way {
        match part(at, facts) {
            Step::Do(effect) => return Some(effect),
            Step::Wait => return None,
            Step::Done => {}
        }
    }
    None
}

fn hold(at: &Position, facts: &Facts) -> Step {
    if at.opened != Know::Yes {
        Step::Do(Effect::Open)
    } else if at.announced == Know::Yes {
        Step::Done
    } else if facts.proxy == ProxyFact::Ready {
        Step::Do(Effect::Announce)
    } else {
        Step::Wait
    }
}

fn protect(at: &Position, _: &Facts) -> Step {
    if at.attached != Know::Yes {
        Step::Do(Effect::Attach)
    } else if at.armed != Know::Yes {
        Step::Do(Effect::Arm)
    } else if at.captured != Know::Yes || at.tunnelled != Know::Yes {
        Step::Do(Effect::Capture)
    } else {
        Step::Done
    }
}

fn tell_enrolled(at: &Position, _: &Facts) -> Step {
    if at.reported == Reported::Enrolled { Step::Done } else { Step::Do(Effect::ReportEnrolled) }
}

/// Notify peers, switch off capture, serve tunnels for a while, then steer nothing.
fn quiet(at: &Position, facts: &Facts) -> Step {
    if at.captured != Know::No {
        Step::Do(if at.reported == Reported::Leaving { Effect::Narrow } else { Effect::ReportLeaving })
    } else if at.tunnelled != Know::No && facts.linger == Linger::Running {
        Step::Wait
    } else if at.tunnelled != Know::No || at.armed != Know::No {
        Step::Do(Effect::Close)
    } else {
        Step::Done
    }
}

fn mourn(_: &Position, facts: &Facts) -> Step {
    if facts.processes == Processes::Running { Step::Wait } else { Step::Done }
}

fn detach(at: &Position, _: &Facts) -> Step {
    let left = [at.captured, at.tunnelled, at.armed, at.attached];
    if left.iter().all(|know| *know == Know::No) { Step::Done } else { Step::Do(Effect::Detach) }
}

fn release(at: &Position, facts: &Facts) -> Step {
    if at.announced != Know::No {
        if facts.proxy == ProxyFact::Ready { Step::Do(Effect::Withdraw) } else { Step::Wait }
    } else if at.opened != Know::No {
        Step::Do(Effect::Drop)
    } else {
        Step::Done
    }
}

fn tell_out(at: &Position, _: &Facts) -> Step {
    if at.reported == Reported::Out { Step::Done } else { Step::Do(Effect::ReportOut) }
}

impl Position {
    /// A pod with pins of an earlier agent.
    pub(crate) fn inherited() -> Self {
        Self {
            attached: Know::Maybe,
            armed: Know::Maybe,
            captured: Know::Maybe,
            tunnelled: Know::Maybe,
            ..Self::default()
        }
    }

    /// An effect starts: what it changes is uncertain from now on.
    pub(crate) fn begun(&mut self, effect: Effect) {
        self.mark(effect, Know::Maybe, Know::Maybe);
    }

    /// An effect succeeded.
    pub(crate) fn succeeded(&mut self, effect: Effect) {
        self.mark(effect, Know::Yes, Know::No);
        match effect {
            Effect::ReportEnrolled => self.reported = Reported::Enrolled,
            Effect::ReportLeaving => self.reported = Reported::Leaving,
            Effect::ReportOut => self.reported = Reported::Out,
            Effect::Narrow => self.tunnelled = Know::Yes,
            Effect::Open
            | Effect::Announce
            | Effect::Attach
            | Effect::Arm
            | Effect::Capture
            | Effect::Close
            | Effect::Detach
            | Effect::Withdraw
            | Effect::Drop => {}
        }
    }

    /// The connection to the proxy that acknowledged the pod was lost.
    pub(crate) fn proxy_lost(&mut self) {
        self.announced = Know::No;
    }

    /// The listeners were removed because no proxy came back.
    pub(crate) fn disarmed(&mut self) {
        self.armed = Know::No;
    }

    fn mark(&mut self, effect: Effect, on: Know, off: Know) {
        match effect {
            Effect::Open => self.opened = on,
            Effect::Announce => self.announced = on,
            Effect::Attach => self.attached = on,
            Effect::Arm => self.armed = on,
            Effect::Capture => (self.captured, self.tunnelled) = (on, on),
            Effect::Narrow => (self.captured, self.tunnelled) = (off, Know::Maybe),
            Effect::Close => (self.captured, self.tunnelled, self.armed) = (off, off, off),
            Effect::Detach => {
                (self.captured, self.tunnelled, self.armed, self.attached) = (off, off, off, off);
            }
            Effect::Withdraw => self.announced = off,
            Effect::Drop => self.opened = off,
            Effect::ReportEnrolled | Effect::ReportLeaving | Effect::ReportOut => {}
        }
    }

    /// The stage to report to the operator; `None` while it is not known well enough.
    pub(crate) fn stage(&self) -> Option<node::Stage> {
        match self.reported {
            Reported::Enrolled => Some(node::Stage::Enrolled),
            Reported::Leaving => Some(node::Stage::Unredirected),
            Reported::Out => Some(node::Stage::Out),
            Reported::Nothing if self.captured == Know::Yes => Some(node::Stage::Redirected),
            Reported::Nothing if self.captured == Know::Maybe => None,
            Reported::Nothing if self.announced == Know::Yes => Some(node::Stage::Announced),
            Reported::Nothing => None,
        }
    }

    /// Whether nothing is left of the pod and the operator was notified.
    pub(crate) fn is_finished(&self) -> bool {
        *self == Self { reported: Reported::Out, ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
