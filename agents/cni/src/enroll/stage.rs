//! The enrollment machine of one pod: level-triggered, pure.
//!
//! [`next`] compares where a pod is ([`Position`]) with where it should be ([`Wanted`]) and names one [`Effect`].
//! What a failed or interrupted effect may have left behind is [`Know::Maybe`], so nothing is ever assumed.
//!
//! Invariant: capture is switched on only while a proxy holds the pod and its listeners are armed; once on, it
//! goes off only because the pod is wanted out (after the operator was told) or no longer runs.

use ambit_proto::node;

/// Whether something is in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Know {
    /// Certainly not.
    #[default]
    No,
    /// An effect began and did not end well, or an earlier process left it.
    Maybe,
    /// Certainly.
    Yes,
}

/// Where the pod should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Outside the mesh. Rule and route stay in its namespace, because captured connections that are still open
    /// need them.
    Out,
    /// Outside the mesh and without any trace of it: the mesh leaves the node.
    Cleared,
    /// Enrolled.
    L4,
    /// The pod was deleted.
    Gone,
}

/// What the machine must know besides the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Whether a proxy is connected and has its snapshot.
    pub proxy: Proxy,
    /// Whether peers had time to stop tunnelling since capture went off.
    pub linger: Linger,
    /// Whether processes of the pod still run.
    pub processes: Processes,
}

/// Connection to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// No proxy.
    Away,
    /// Ready for requests.
    Ready,
}

/// Time since capture went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linger {
    /// Peers may still tunnel to the pod.
    Running,
    /// They had their time.
    Over,
}

/// Processes in the pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Processes {
    /// At least one.
    Running,
    /// None: there is nobody left to protect.
    Ended,
}

/// What the operator was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Told {
    /// Nothing by this process.
    #[default]
    Nothing,
    /// The pod is enrolled: peers may tunnel.
    Enrolled,
    /// The pod is leaving: peers are to stop tunnelling.
    Leaving,
    /// The pod is outside.
    Out,
}

/// What is known to be in place for a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The agent holds the namespace and listening sockets in it.
    pub opened: Know,
    /// The connected proxy acknowledged the pod.
    pub announced: Know,
    /// Rule, route, sysctls and the pinned `sk_lookup` link.
    pub attached: Know,
    /// The listeners are in their slots.
    pub armed: Know,
    /// New connections of the pod are captured.
    pub captured: Know,
    /// Tunnels to the pod are steered to the proxy.
    pub tunnelled: Know,
    /// What the operator was told.
    pub told: Told,
}

/// One thing to do. Each is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Find the namespace, adopt or open its listeners.
    Open,
    /// Hand the pod to the proxy and await the ack.
    Announce,
    /// Rule, route, sysctls, link.
    Attach,
    /// Put the listeners into their slots.
    Arm,
    /// One map write: capture and tunnels on.
    Capture,
    /// Tell the operator that peers may tunnel.
    TellEnrolled,
    /// Tell the operator that peers are to stop.
    TellLeaving,
    /// One map write: only tunnels stay steered.
    Narrow,
    /// Nothing is steered any more; the slots are emptied.
    Close,
    /// Rule, route, sysctls and link are taken away.
    Detach,
    /// Take the pod back from the proxy.
    Withdraw,
    /// Close the agent's copies of the listeners and the namespace.
    Drop,
    /// Tell the operator that the pod is outside.
    TellOut,
}

/// Part of a way, in order: the first that is not done decides.
enum Step {
    Do(Effect),
    Wait,
    Done,
}

/// The one thing to do next, or nothing: arrived, or waiting for a fact to change.
pub fn next(at: &Position, wanted: Wanted, facts: &Facts) -> Option<Effect> {
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
    } else if facts.proxy == Proxy::Ready {
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
    if at.told == Told::Enrolled { Step::Done } else { Step::Do(Effect::TellEnrolled) }
}

/// Peers are told, capture goes off, tunnels are served until they had their time, then nothing is steered.
fn quiet(at: &Position, facts: &Facts) -> Step {
    if at.captured != Know::No {
        Step::Do(if at.told == Told::Leaving { Effect::Narrow } else { Effect::TellLeaving })
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
        if facts.proxy == Proxy::Ready { Step::Do(Effect::Withdraw) } else { Step::Wait }
    } else if at.opened != Know::No {
        Step::Do(Effect::Drop)
    } else {
        Step::Done
    }
}

fn tell_out(at: &Position, _: &Facts) -> Step {
    if at.told == Told::Out { Step::Done } else { Step::Do(Effect::TellOut) }
}

impl Position {
    /// A pod whose pins an earlier agent left.
    pub fn inherited() -> Self {
        Self {
            attached: Know::Maybe,
            armed: Know::Maybe,
            captured: Know::Maybe,
            tunnelled: Know::Maybe,
            ..Self::default()
        }
    }

    /// An effect begins: from here on what it touches is uncertain.
    pub fn begun(&mut self, effect: Effect) {
        self.mark(effect, Know::Maybe, Know::Maybe);
    }

    /// An effect ended well.
    pub fn succeeded(&mut self, effect: Effect) {
        self.mark(effect, Know::Yes, Know::No);
        match effect {
            Effect::TellEnrolled => self.told = Told::Enrolled,
            Effect::TellLeaving => self.told = Told::Leaving,
            Effect::TellOut => self.told = Told::Out,
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

    /// The connection to the proxy that acknowledged the pod is gone.
    pub fn proxy_lost(&mut self) {
        self.announced = Know::No;
    }

    /// The slots were emptied because no proxy came back.
    pub fn disarmed(&mut self) {
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
            Effect::TellEnrolled | Effect::TellLeaving | Effect::TellOut => {}
        }
    }

    /// The stage that the operator is told; `None` while it is not known well enough to say anything.
    pub fn stage(&self) -> Option<node::Stage> {
        match self.told {
            Told::Enrolled => Some(node::Stage::Enrolled),
            Told::Leaving => Some(node::Stage::Unredirected),
            Told::Out => Some(node::Stage::Out),
            Told::Nothing if self.captured == Know::Yes => Some(node::Stage::Redirected),
            Told::Nothing if self.captured == Know::Maybe => None,
            Told::Nothing if self.announced == Know::Yes => Some(node::Stage::Announced),
            Told::Nothing => None,
        }
    }

    /// Whether nothing of the pod is left and the operator knows.
    pub fn is_finished(&self) -> bool {
        *self == Self { told: Told::Out, ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
