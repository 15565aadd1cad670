//! The steps of a service or pod to a waypoint, and back.
//!
//! Invariant: a step is taken only once all proxies had time to receive the one before. A waypoint
//! has a service before clients are sent there, and as long as some still may be. Other callers are
//! refused only after clients were sent to the waypoint. A service that moves is served and
//! admitted by both waypoints. What is closed to others stays closed while a waypoint is requested,
//! whatever happens to that waypoint.

use ambit_model::NamespacedName;

/// The target state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Goal {
    /// No waypoint.
    #[default]
    Out,
    /// A waypoint that cannot get its traffic yet, or must not.
    Serve(NamespacedName),
    /// Clients use the waypoint, and others may bypass it (`failurePolicy: Open`).
    Announce(NamespacedName),
    /// Clients use the waypoint, and nothing can bypass it.
    Enforce(NamespacedName),
    /// All traffic fails: the waypoint that had it is gone or rejects it.
    Close(NamespacedName),
}

/// The current state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not published to any waypoint.
    #[default]
    Unbound,
    /// Published to the waypoint.
    Served(NamespacedName),
    /// Clients are sent to the waypoint.
    Announced(NamespacedName),
    /// Callers that bypass the waypoint are refused.
    Enforced(NamespacedName),
    /// Clients use one waypoint, and the next one has it too.
    Moving { from: NamespacedName, to: NamespacedName },
    /// Clients are sent to the next one.
    Moved { from: NamespacedName, to: NamespacedName },
    /// Clients are still sent to the previous waypoint, which does not have it any more, and others
    /// are refused.
    Closed(NamespacedName),
}

/// The next step towards a goal; `None` when it is reached.
pub(crate) fn next(stage: &Stage, goal: &Goal) -> Option<Stage> {
    use Goal::{Announce, Close, Enforce, Out, Serve};
    match (stage, goal) {
        // Requests fail in this state anyway, so entering and leaving it needs no steps.
        (Stage::Closed(now), Close(at)) => (now != at).then(|| Stage::Closed(at.clone())),
        (_, Close(at)) => Some(Stage::Closed(at.clone())),
        (Stage::Closed(_), Out) => Some(Stage::Unbound),
        (Stage::Closed(_), Serve(to)) => Some(Stage::Served(to.clone())),
        (Stage::Closed(_), Announce(to)) => Some(Stage::Announced(to.clone())),
        (Stage::Closed(_), Enforce(to)) => Some(Stage::Enforced(to.clone())),
        (Stage::Unbound, Out) => None,
        (Stage::Unbound, Serve(to) | Announce(to) | Enforce(to)) => Some(Stage::Served(to.clone())),
        (Stage::Served(_), Out) => Some(Stage::Unbound),
        (Stage::Served(at), Serve(to)) => (at != to).then(|| Stage::Served(to.clone())),
        (Stage::Served(at), Announce(to) | Enforce(to)) if at == to => Some(Stage::Announced(to.clone())),
        (Stage::Served(_), Announce(to) | Enforce(to)) => Some(Stage::Served(to.clone())),
        (Stage::Announced(at), Out | Serve(_)) => Some(Stage::Served(at.clone())),
        (Stage::Announced(at), Announce(to)) if at == to => None,
        (Stage::Announced(at), Enforce(to)) if at == to => Some(Stage::Enforced(to.clone())),
        (Stage::Announced(at), Announce(to) | Enforce(to)) => Some(moving(at, to)),
        (Stage::Enforced(at), Out | Serve(_) | Announce(_)) => Some(Stage::Announced(at.clone())),
        (Stage::Enforced(at), Enforce(to)) => (at != to).then(|| moving(at, to)),
        (Stage::Moving { from, to }, Announce(wanted) | Enforce(wanted)) if to == wanted => {
            Some(Stage::Moved { from: from.clone(), to: to.clone() })
        }
        (Stage::Moving { from, .. }, Enforce(_)) => Some(Stage::Enforced(from.clone())),
        (Stage::Moving { from, .. }, Out | Serve(_) | Announce(_)) => Some(Stage::Announced(from.clone())),
        (Stage::Moved { to, .. }, Enforce(_)) => Some(Stage::Enforced(to.clone())),
        (Stage::Moved { to, .. }, Out | Serve(_) | Announce(_)) => Some(Stage::Announced(to.clone())),
    }
}

fn moving(from: &NamespacedName, to: &NamespacedName) -> Stage {
    Stage::Moving { from: from.clone(), to: to.clone() }
}

impl Stage {
    /// The waypoints that it is published to.
    pub(crate) fn served_by(&self) -> Vec<&NamespacedName> {
        match self {
            Self::Unbound | Self::Closed(_) => Vec::new(),
            Self::Served(at) | Self::Announced(at) | Self::Enforced(at) => vec![at],
            Self::Moving { from, to } | Self::Moved { from, to } => vec![from, to],
        }
    }

    /// The waypoint that clients are sent to.
    pub(crate) fn announced(&self) -> Option<&NamespacedName> {
        match self {
            Self::Unbound | Self::Served(_) => None,
            Self::Announced(at) | Self::Enforced(at) | Self::Closed(at) => Some(at),
            Self::Moving { from, .. } => Some(from),
            Self::Moved { to, .. } => Some(to),
        }
    }

    /// Whether it must be listed by name, because a waypoint cannot tell from the published address
    /// alone that it has it.
    pub(crate) fn is_on_its_way(&self) -> bool {
        match self {
            Self::Unbound | Self::Enforced(_) | Self::Closed(_) => false,
            Self::Served(_) | Self::Announced(_) | Self::Moving { .. } | Self::Moved { .. } => true,
        }
    }

    /// The only waypoints that are admitted; empty admits everyone.
    pub(crate) fn admitted(&self, goal: &Goal) -> Vec<&NamespacedName> {
        match (self, goal) {
            (Self::Unbound | Self::Served(_) | Self::Announced(_), _) => Vec::new(),
            (Self::Enforced(at) | Self::Closed(at), _) => vec![at],
            (Self::Moving { from, to } | Self::Moved { from, to }, Goal::Enforce(_) | Goal::Close(_)) => {
                vec![from, to]
            }
            (Self::Moving { .. } | Self::Moved { .. }, Goal::Out | Goal::Serve(_) | Goal::Announce(_)) => {
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn waypoint(name: &str) -> NamespacedName {
        NamespacedName::new("shop", name)
    }

    fn goals() -> Vec<Goal> {
        let of = |name: &str| {
            [Goal::Serve(waypoint(name)), Goal::Announce(waypoint(name)), Goal::Enforce(waypoint(name))]
        };
        [Goal::Out].into_iter().chain(of("a")).chain(of("b")).chain(of("c")).collect()
    }

    fn closing() -> Vec<Goal> {
        ["a", "b"].map(|name| Goal::Close(waypoint(name))).into()
    }

    fn is_closed(stage: &Stage) -> bool {
        matches!(stage, Stage::Closed(_))
    }

    /// All stages reachable when goals change at any time.
    fn reachable() -> Vec<Stage> {
        let (mut found, mut waiting) = (Vec::new(), vec![Stage::Unbound]);
        while let Some(stage) = waiting.pop() {
            if !found.contains(&stage) {
                waiting.extend(goals().iter().chain(&closing()).filter_map(|goal| next(&stage, goal)));
                found.push(stage);
            }
        }
        found
    }

    /// What clients and destinations do in a stage, while some are still in the stage before.
    #[test]
    fn no_request_fails_while_both_sides_of_a_step_are_believed() {
        for old in reachable().into_iter().filter(|stage| !is_closed(stage)) {
            for goal in goals() {
                let Some(new) = next(&old, &goal) else { continue };
                let believed = [&old, &new];
                for client in believed {
                    for other in believed {
                        let Some(through) = client.announced() else {
                            let refused = other.admitted(&goal);
                            assert!(refused.is_empty(), "{old:?} to {new:?}: direct clients are refused");
                            continue;
                        };
                        assert!(
                            other.served_by().contains(&through),
                            "{old:?} to {new:?}: {through} does not know it"
                        );
                        let admitted = other.admitted(&goal);
                        assert!(
                            admitted.is_empty() || admitted.contains(&through),
                            "{old:?} to {new:?}: {through} is refused"
                        );
                    }
                }
            }
        }
    }

    /// A waypoint recognizes a pod that is not listed by name by the published waypoint address,
    /// and receives the two in any order.
    #[test]
    fn a_pod_is_known_to_the_waypoint_that_clients_are_sent_to_whatever_it_has_heard() {
        for old in reachable().into_iter().filter(|stage| !is_closed(stage)) {
            for new in goals().iter().filter_map(|goal| next(&old, goal)) {
                let believed = [&old, &new];
                for (client, named, addressed) in believed
                    .iter()
                    .flat_map(|c| believed.iter().flat_map(move |n| believed.map(|a| (c, n, a))))
                {
                    let Some(through) = client.announced() else { continue };
                    let is_named = named.is_on_its_way() && named.served_by().contains(&through);
                    assert!(
                        is_named || addressed.announced() == Some(through),
                        "{old:?} to {new:?}: {through} does not know it by {named:?} and {addressed:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_goal_is_reached_from_every_stage_in_a_few_steps() {
        for start in reachable() {
            for goal in goals().into_iter().chain(closing()) {
                let mut stage = start.clone();
                for _ in 0..6 {
                    stage = next(&stage, &goal).unwrap_or(stage);
                }
                assert_eq!(next(&stage, &goal), None, "{start:?} to {goal:?} ends in {stage:?}");
                let expected = match &goal {
                    Goal::Out => Stage::Unbound,
                    Goal::Serve(to) => Stage::Served(to.clone()),
                    Goal::Announce(to) => Stage::Announced(to.clone()),
                    Goal::Enforce(to) => Stage::Enforced(to.clone()),
                    Goal::Close(at) => Stage::Closed(at.clone()),
                };
                assert_eq!(stage, expected);
            }
        }
    }

    #[test]
    fn a_service_that_moves_is_behind_some_waypoint_all_the_time() {
        for enforce in [Goal::Enforce(waypoint("b")), Goal::Announce(waypoint("b"))] {
            for start in [Stage::Announced(waypoint("a")), Stage::Enforced(waypoint("a"))] {
                let mut stage = start;
                let mut seen = BTreeSet::new();
                while let Some(then) = next(&stage, &enforce) {
                    stage = then;
                    seen.extend(stage.announced().cloned());
                    assert!(stage.announced().is_some(), "{stage:?}");
                }
                assert!(seen.contains(&waypoint("b")));
            }
        }
    }

    #[test]
    fn what_is_closed_opens_for_nobody_on_any_way_to_another_waypoint_or_back() {
        let closed = || closing().into_iter().chain(["a", "b"].map(|name| Goal::Enforce(waypoint(name))));
        for start in reachable() {
            // Pairs of successive goals that must not open it.
            for (first, second) in
                closed().flat_map(|first| closed().map(move |second| (first.clone(), second)))
            {
                let mut stage = start.clone();
                let mut was_closed = !stage.admitted(&first).is_empty();
                for goal in [&first, &second] {
                    while let Some(then) = next(&stage, goal) {
                        stage = then;
                        let is_closed = !stage.admitted(goal).is_empty();
                        assert!(is_closed || !was_closed, "{start:?} by {goal:?}: {stage:?} is open");
                        was_closed |= is_closed;
                    }
                }
                assert!(was_closed);
            }
        }
    }
}
