//! Target references of a policy, and the resulting status.
//!
//! Invariant: the status is True only for a policy that every target enforces as written.

use std::{collections::BTreeSet, sync::Arc};

use ambit_api::{
    conditions::{WAYPOINT_ACCEPTED, reason},
    labels::{ISTIO_WAYPOINT_CLASS, WAYPOINT_CLASS},
    policy::TargetReference,
};
use ambit_model::NamespacedName;

use super::judgement::{Holds, Judgement};

/// API group of Gateways.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// An object for which waypoints enforce policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// All services of a waypoint.
    Gateway(NamespacedName),
    /// A service.
    Service(NamespacedName),
    /// All waypoints of a class.
    GatewayClass(String),
}

impl Target {
    /// For messages, e.g. `Service shop/cart`.
    pub fn describe(&self) -> String {
        match self {
            Self::Gateway(name) => format!("Gateway {name}"),
            Self::Service(name) => format!("Service {name}"),
            Self::GatewayClass(name) => format!("GatewayClass {name}"),
        }
    }

    fn read(
        reference: &TargetReference,
        namespace: &str,
        roots: &BTreeSet<Arc<str>>,
    ) -> Result<Self, String> {
        let TargetReference { group, kind, name, namespace: other, unknown: _ } = reference;
        let of_kind = format!("{kind} {name:?}");
        if name.is_empty() {
            return Err(format!("{of_kind} has no name"));
        }
        if let Some(other) = other.as_deref().filter(|other| *other != namespace) {
            return Err(format!(
                "{of_kind} is in namespace {other}: a policy reaches its own namespace only"
            ));
        }
        let named = NamespacedName::new(namespace, name.as_str());
        match (group.as_str(), kind.as_str()) {
            (GATEWAY_GROUP, "Gateway") => Ok(Self::Gateway(named)),
            ("" | "core", "Service") => Ok(Self::Service(named)),
            (GATEWAY_GROUP, "GatewayClass") if !roots.contains(namespace) => {
                let roots: Vec<&str> = roots.iter().map(|root| &**root).collect();
                let roots = roots.join(" and ");
                Err(format!("{of_kind} can be the target of policies in namespace {roots} only"))
            }
            (GATEWAY_GROUP, "GatewayClass")
                if [WAYPOINT_CLASS, ISTIO_WAYPOINT_CLASS].contains(&name.as_str()) =>
            {
                Ok(Self::GatewayClass(name.clone()))
            }
            (GATEWAY_GROUP, "GatewayClass") => Err(format!("{of_kind} is not a class of waypoints")),
            (group, _) => Err(format!(
                "{of_kind} of group {group:?} is not a kind for which waypoints enforce policies"
            )),
        }
    }
}

/// A policy with target references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment<T> {
    /// The targets it is attached to.
    pub targets: Vec<Target>,
    /// Invalid references, with the reason.
    pub refused: Vec<String>,
    /// What its targets enforce. On error the policy's meaning is unknown, so its targets refuse
    /// everything.
    pub content: Result<T, String>,
}

/// The result for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This waypoint enforces the policy.
    Bound(NamespacedName),
    /// The target exists, but has no waypoint.
    NotBound,
    /// The target does not exist.
    NotFound,
}

impl<T> Attachment<T> {
    /// Parses target references; `None` when there are none.
    pub(crate) fn read<'a>(
        references: impl Iterator<Item = &'a TargetReference>,
        of: &NamespacedName,
        roots: &BTreeSet<Arc<str>>,
        content: impl FnOnce() -> Result<T, String>,
    ) -> Option<Self> {
        let (mut targets, mut refused) = (Vec::new(), Vec::new());
        for reference in references {
            match Target::read(reference, &of.namespace, roots) {
                Ok(target) => targets.push(target),
                Err(why) => refused.push(why),
            }
        }
        let is_any = !(targets.is_empty() && refused.is_empty());
        is_any.then(|| Self { targets, refused, content: content() })
    }

    /// The condition `WaypointAccepted`, which covers all targets.
    pub fn judge(&self, reach: impl Fn(&Target) -> Reach) -> Judgement {
        let says =
            |holds, reason, message| Judgement { condition: WAYPOINT_ACCEPTED, holds, reason, message };
        if let Err(why) = &self.content {
            // A policy without effect, AUDIT or dry run, has no targets left.
            let effect = match (self.targets.is_empty(), self.refused.is_empty()) {
                (true, true) => "it is not enforced",
                (false, _) | (true, false) => "its targets refuse everything",
            };
            return says(Holds::False, reason::INVALID, format!("{why}: {effect}"));
        }
        let (mut bound, mut wrong) = (Vec::new(), self.refused.clone());
        let (mut is_unbound, mut is_missing) = (false, false);
        for target in &self.targets {
            match reach(target) {
                Reach::Bound(waypoint) => bound.push(format!("{} by {waypoint}", target.describe())),
                Reach::NotBound => {
                    is_unbound = true;
                    wrong.push(format!("{} has no waypoint", target.describe()));
                }
                Reach::NotFound => {
                    is_missing = true;
                    wrong.push(format!("{} does not exist", target.describe()));
                }
            }
        }
        let (bound_is_any, bound, wrong) = (!bound.is_empty(), bound.join(", "), wrong.join(", "));
        match (bound_is_any, wrong.is_empty()) {
            (true, true) => says(Holds::True, reason::ACCEPTED, format!("enforced: {bound}")),
            (true, false) => {
                let message = format!("enforced: {bound}; not enforced: {wrong}");
                says(Holds::False, reason::PARTIALLY_INVALID, message)
            }
            (false, _) => {
                let why = match (is_unbound, is_missing) {
                    (true, _) => reason::ANCESTOR_NOT_BOUND,
                    (false, true) => reason::TARGET_NOT_FOUND,
                    (false, false) => reason::INVALID,
                };
                says(Holds::False, why, format!("not enforced: {wrong}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::roots;

    fn reference(group: &str, kind: &str, name: &str, namespace: Option<&str>) -> TargetReference {
        TargetReference {
            group: group.into(),
            kind: kind.into(),
            name: name.into(),
            namespace: namespace.map(Into::into),
            ..TargetReference::default()
        }
    }

    fn attached(of: &str, references: &[TargetReference], content: Result<(), String>) -> Attachment<()> {
        let of = NamespacedName::new(of, "p");
        Attachment::read(references.iter(), &of, &roots(), || content).unwrap()
    }

    #[test]
    fn a_reference_reaches_its_own_namespace_and_kinds_that_waypoints_serve() {
        let gateway = "gateway.networking.k8s.io";
        let table = [
            ("shop", reference("", "Service", "a", None), true),
            ("shop", reference("core", "Service", "a", Some("shop")), true),
            ("shop", reference("", "Service", "a", Some("other")), false),
            ("shop", reference("", "Service", "", None), false),
            ("shop", reference(gateway, "Gateway", "waypoint", None), true),
            ("shop", reference("", "Gateway", "waypoint", None), false),
            ("shop", reference("networking.istio.io", "ServiceEntry", "a", None), false),
            ("ambit-system", reference(gateway, "GatewayClass", "istio-waypoint", None), true),
            ("ambit-system", reference(gateway, "GatewayClass", "ambit-waypoint", None), true),
            ("ambit-system", reference(gateway, "GatewayClass", "istio", None), false),
            ("shop", reference(gateway, "GatewayClass", "istio-waypoint", None), false),
        ];
        for (of, reference, expected) in table {
            let found = attached(of, std::slice::from_ref(&reference), Ok(()));
            assert_eq!((found.targets.len(), found.refused.len()), if expected { (1, 0) } else { (0, 1) });
        }
        let of = NamespacedName::new("shop", "p");
        assert!(Attachment::read([].iter(), &of, &roots(), || Ok(())).is_none());
        let class = reference(gateway, "GatewayClass", "istio-waypoint", None);
        let refused = attached("shop", &[class], Ok(())).refused.concat();
        assert!(refused.contains("in namespace ambit-system and istio-system only"), "{refused}");
    }

    #[test]
    fn the_status_is_true_only_when_every_target_enforces_it() {
        let two = [reference("", "Service", "a", None), reference("", "Service", "b", None)];
        let bad = [reference("", "Service", "a", None), reference("x", "Thing", "b", None)];
        let bound = || Reach::Bound(NamespacedName::new("shop", "waypoint"));
        let invalid = || Err("CUSTOM is not supported".to_owned());
        let table = [
            (&two, Ok(()), bound(), bound(), Holds::True, reason::ACCEPTED),
            (&two, Ok(()), bound(), Reach::NotBound, Holds::False, reason::PARTIALLY_INVALID),
            (&two, Ok(()), Reach::NotFound, bound(), Holds::False, reason::PARTIALLY_INVALID),
            (&two, Ok(()), Reach::NotFound, Reach::NotBound, Holds::False, reason::ANCESTOR_NOT_BOUND),
            (&two, Ok(()), Reach::NotFound, Reach::NotFound, Holds::False, reason::TARGET_NOT_FOUND),
            (&two, invalid(), bound(), bound(), Holds::False, reason::INVALID),
            (&bad, Ok(()), bound(), bound(), Holds::False, reason::PARTIALLY_INVALID),
            (&bad, Ok(()), Reach::NotFound, bound(), Holds::False, reason::TARGET_NOT_FOUND),
        ];
        for (references, content, a, b, holds, why) in table {
            let found = attached("shop", references, content);
            let judgement = found.judge(|target| match target {
                Target::Service(name) if &*name.name == "a" => a.clone(),
                Target::Service(_) | Target::Gateway(_) | Target::GatewayClass(_) => b.clone(),
            });
            assert_eq!((judgement.holds, judgement.reason), (holds, why), "{judgement:?}");
            assert_eq!(judgement.condition, WAYPOINT_ACCEPTED);
        }
        let message = attached("shop", &bad, Ok(())).judge(|_| bound()).message;
        assert!(
            message.contains("Service shop/a by shop/waypoint") && message.contains("Thing \"b\""),
            "{message}"
        );
    }
}
