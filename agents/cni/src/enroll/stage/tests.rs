//! Explores every reachable state of the machine: effects that fail before or after taking hold, an
//! agent that dies between any two steps, proxies that come and go, and a target that changes at
//! any time.

use std::collections::{HashSet, VecDeque};

use super::*;

/// The actual state, in contrast to the agent's view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Truth {
    opened: bool,
    announced: bool,
    attached: bool,
    armed: bool,
    captured: bool,
    tunnelled: bool,
    /// The operator's view.
    reported: Reported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    at: Position,
    truth: Truth,
    wanted: Wanted,
    facts: Facts,
}

const START: World = World {
    at: Position {
        opened: Know::No,
        announced: Know::No,
        attached: Know::No,
        armed: Know::No,
        captured: Know::No,
        tunnelled: Know::No,
        reported: Reported::Nothing,
    },
    truth: Truth {
        opened: false,
        announced: false,
        attached: false,
        armed: false,
        captured: false,
        tunnelled: false,
        reported: Reported::Nothing,
    },
    wanted: Wanted::Out,
    facts: Facts { proxy: ProxyFact::Away, linger: Linger::Running, processes: Processes::Running },
};

fn take_hold(truth: &mut Truth, effect: Effect) {
    match effect {
        Effect::Open => truth.opened = true,
        Effect::Announce => truth.announced = true,
        Effect::Attach => truth.attached = true,
        Effect::Arm => truth.armed = true,
        Effect::Capture => (truth.captured, truth.tunnelled) = (true, true),
        Effect::Narrow => (truth.captured, truth.tunnelled) = (false, true),
        Effect::Close => (truth.captured, truth.tunnelled, truth.armed) = (false, false, false),
        Effect::Detach => {
            (truth.captured, truth.tunnelled, truth.armed, truth.attached) = (false, false, false, false);
        }
        Effect::Withdraw => truth.announced = false,
        Effect::Drop => truth.opened = false,
        Effect::ReportEnrolled => truth.reported = Reported::Enrolled,
        Effect::ReportLeaving => truth.reported = Reported::Leaving,
        Effect::ReportOut => truth.reported = Reported::Out,
    }
}

fn tells(effect: Effect) -> bool {
    matches!(effect, Effect::ReportEnrolled | Effect::ReportLeaving | Effect::ReportOut)
}

/// The possible results of an effect: it succeeded, it failed before taking hold, or it took hold
/// without being acknowledged.
fn after_effect(world: &World, effect: Effect) -> Vec<World> {
    let mut held = *world;
    held.at.begun(effect);
    take_hold(&mut held.truth, effect);
    let mut all = Vec::new();
    if !tells(effect) {
        all.push(held);
        let mut failed = *world;
        failed.at.begun(effect);
        all.push(failed);
    }
    held.at.succeeded(effect);
    if effect == Effect::Narrow {
        held.facts.linger = Linger::Running;
    }
    all.push(held);
    all
}

/// The possible external events.
fn surroundings(world: &World) -> Vec<World> {
    let mut all = Vec::new();
    let mut push = |change: &dyn Fn(&mut World)| {
        let mut changed = *world;
        change(&mut changed);
        all.push(changed);
    };
    push(&|w| w.facts.linger = Linger::Over);
    push(&|w| w.facts.proxy = ProxyFact::Ready);
    push(&|w| {
        w.facts.proxy = ProxyFact::Away;
        w.truth.announced = false;
        w.at.proxy_lost();
    });
    if world.facts.proxy == ProxyFact::Away {
        push(&|w| {
            w.truth.armed = false;
            w.at.disarmed();
        });
    }
    push(&|w| {
        // The agent dies, and its successor finds the pins.
        w.truth.announced = false;
        w.truth.opened = false;
        let anything = w.truth.attached || w.truth.captured || w.truth.tunnelled || w.truth.armed;
        w.at = if anything { Position::inherited() } else { Position::default() };
        w.facts.proxy = ProxyFact::Away;
        w.facts.linger = Linger::Running;
    });
    if world.wanted != Wanted::Gone {
        for wanted in [Wanted::Out, Wanted::L4, Wanted::Cleared, Wanted::Gone] {
            push(&move |w| w.wanted = wanted);
        }
    }
    if world.wanted == Wanted::Gone {
        push(&|w| w.facts.processes = Processes::Ended);
    }
    all
}

fn reachable() -> HashSet<World> {
    let mut seen = HashSet::from([START]);
    let mut queue = VecDeque::from([START]);
    while let Some(world) = queue.pop_front() {
        let mut following = surroundings(&world);
        if let Some(effect) = next(&world.at, world.wanted, &world.facts) {
            following.extend(after_effect(&world, effect));
        }
        for world in following {
            if seen.insert(world) {
                queue.push_back(world);
            }
        }
    }
    seen
}

#[test]
fn in_every_reachable_world_the_next_effect_is_safe() {
    let worlds = reachable();
    assert!(worlds.len() > 1000, "only {} worlds", worlds.len());
    for world in &worlds {
        let World { truth, wanted, facts, .. } = world;
        let Some(effect) = next(&world.at, *wanted, facts) else { continue };
        let mut after = *truth;
        take_hold(&mut after, effect);
        if effect == Effect::Capture {
            assert!(truth.opened && truth.announced && truth.attached && truth.armed, "{world:?}");
        }
        if effect == Effect::ReportEnrolled {
            assert!(truth.captured && truth.announced && truth.armed, "{world:?}");
        }
        if truth.captured && !after.captured {
            let allowed = matches!(wanted, Wanted::Out | Wanted::Cleared)
                || (*wanted == Wanted::Gone && facts.processes == Processes::Ended);
            assert!(allowed, "capture must not stop: {world:?} {effect:?}");
            let is_notified = truth.reported == Reported::Leaving || *wanted == Wanted::Gone;
            assert!(is_notified, "peers are notified first: {world:?} {effect:?}");
        }
        if truth.captured && (truth.armed && !after.armed || truth.attached && !after.attached) {
            assert!(!after.captured, "a captured pod keeps its listeners: {world:?} {effect:?}");
        }
        if matches!(effect, Effect::Withdraw | Effect::Drop) {
            assert!(!truth.captured && !truth.tunnelled, "{world:?}");
        }
        if effect == Effect::Close {
            assert!(facts.linger == Linger::Over || !truth.tunnelled, "{world:?}");
        }
    }
}

#[test]
fn belief_is_never_certain_and_wrong() {
    for world in reachable() {
        let World { at, truth, .. } = world;
        let pairs = [
            (at.opened, truth.opened),
            (at.announced, truth.announced),
            (at.attached, truth.attached),
            (at.armed, truth.armed),
            (at.captured, truth.captured),
            (at.tunnelled, truth.tunnelled),
        ];
        for (know, truth) in pairs {
            assert!(know != Know::Yes || truth, "{world:?}");
            assert!(know != Know::No || !truth, "{world:?}");
        }
    }
}

/// More effects than any path needs.
const STEPS_MAX: usize = 20;

#[test]
fn every_reachable_world_arrives_once_its_surroundings_are_kind() {
    for mut world in reachable() {
        let origin = world;
        world.facts = Facts { proxy: ProxyFact::Ready, linger: Linger::Over, processes: Processes::Ended };
        let mut steps = 0;
        while let Some(effect) = next(&world.at, world.wanted, &world.facts) {
            world.at.begun(effect);
            take_hold(&mut world.truth, effect);
            world.at.succeeded(effect);
            steps += 1;
            assert!(steps <= STEPS_MAX, "does not end: {origin:?}");
        }
        let truth = world.truth;
        match world.wanted {
            Wanted::L4 => {
                let all = [truth.opened, truth.announced, truth.attached, truth.armed, truth.captured];
                assert!(all.iter().all(|is| *is) && truth.reported == Reported::Enrolled, "{origin:?}");
            }
            Wanted::Out => {
                let left = [truth.opened, truth.announced, truth.armed, truth.captured, truth.tunnelled];
                assert!(left.iter().all(|is| !is) && truth.reported == Reported::Out, "{origin:?}");
            }
            Wanted::Cleared | Wanted::Gone => {
                assert_eq!(truth, Truth { reported: Reported::Out, ..Truth::default() }, "{origin:?}");
                assert!(world.at.is_finished());
            }
        }
    }
}

#[test]
fn without_a_proxy_an_enrolled_pod_stays_captured_and_a_new_one_waits() {
    let facts = Facts { proxy: ProxyFact::Away, linger: Linger::Over, processes: Processes::Running };
    let mut at = Position::inherited();
    at.opened = Know::Yes;
    assert_eq!(next(&at, Wanted::L4, &facts), None);
    assert_eq!(next(&Position { opened: Know::Yes, ..Position::default() }, Wanted::L4, &facts), None);
    assert_eq!(next(&at, Wanted::Gone, &facts), None, "its processes still run");
}

#[test]
fn a_pod_that_is_wanted_again_while_it_leaves_is_captured_again_at_once() {
    let facts = Facts { proxy: ProxyFact::Ready, linger: Linger::Running, processes: Processes::Running };
    let at = Position {
        opened: Know::Yes,
        announced: Know::Yes,
        attached: Know::Yes,
        armed: Know::Yes,
        captured: Know::No,
        tunnelled: Know::Yes,
        reported: Reported::Leaving,
    };
    assert_eq!(next(&at, Wanted::Out, &facts), None, "lingering");
    assert_eq!(next(&at, Wanted::L4, &facts), Some(Effect::Capture));
}
