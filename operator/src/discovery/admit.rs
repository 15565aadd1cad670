//! Decides which feeds a caller may read.

use std::{sync::Arc, time::SystemTime};

use ambit_identity::Clock;
use ambit_model::NamespacedName;
use ambit_xds::{Authorizer, Feed, Scope};
use tokio::time::Instant;
use tonic::{Extensions, Status, metadata::MetadataMap};

use super::Feeds;
use crate::{
    ca::{Authenticator, Caller, CallerPod, NodePods},
    names,
};

/// Authorizes new streams.
pub(crate) struct Admission {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) feeds: Arc<Feeds>,
    pub(super) pods: Arc<dyn NodePods>,
    pub(super) clock: Clock,
}

impl Authorizer for Admission {
    async fn admit(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Scope, Status> {
        let caller = self.authenticator.caller(metadata, extensions).await?;
        let feeds = readable(&caller, &self.feeds, &*self.pods).inspect_err(|status| {
            tracing::warn!(%caller, reason = status.message(), "Discovery stream refused");
        })?;
        Ok(Scope { client: caller.to_string().into(), feeds, until: until(&caller, (self.clock)()) })
    }
}

/// Policies come before the workloads that reference them.
fn readable(caller: &Caller, feeds: &Feeds, pods: &dyn NodePods) -> Result<Vec<Feed>, Status> {
    let Some(pod) = &caller.pod else {
        return Err(Status::permission_denied("the token is not bound to a pod"));
    };
    if caller.is_system(names::ZTUNNEL) {
        return Ok(vec![feeds.authorization.clone(), feeds.address.clone()]);
    }
    if caller.is_system(names::NODE_AGENT) {
        return match &caller.node {
            Some(node) => Ok(vec![feeds.enrollment(node)]),
            None => Err(Status::permission_denied("the token is not bound to a node")),
        };
    }
    match waypoint(caller, pod, pods) {
        Some(waypoint) => Ok(vec![feeds.address.clone(), feeds.bound(&waypoint)]),
        None => Err(Status::permission_denied("this caller may not read any configuration")),
    }
}

/// The waypoint that the caller's pod belongs to. Its account is not sufficient, because users may
/// run other pods with it.
fn waypoint(caller: &Caller, claimed: &CallerPod, pods: &dyn NodePods) -> Option<NamespacedName> {
    let name = NamespacedName::new(caller.namespace.clone(), claimed.name.clone());
    let pod = pods.pod(&name).filter(|pod| pod.uid == claimed.uid && !pod.terminated)?;
    let waypoint = pods.waypoint_of(&pod.name)?;
    let is_own = waypoint.namespace == caller.namespace
        && waypoint.name == caller.service_account
        && pod.service_account == caller.service_account;
    is_own.then_some(waypoint)
}

/// A stream ends when the token that opened it expires.
fn until(caller: &Caller, now: SystemTime) -> Option<Instant> {
    let left = caller.expires?.duration_since(now).unwrap_or_default();
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ambit_index::PodIdentity;

    use super::*;

    /// One waypoint `shop/waypoint` with pod `p`, and a user's pod `own` with the same account.
    struct Pods;

    impl NodePods for Pods {
        fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
            let is_known = &*name.namespace == "shop" && ["p", "own", "done"].contains(&&*name.name);
            is_known.then(|| PodIdentity {
                uid: "u".into(),
                name: name.clone(),
                service_account: "waypoint".into(),
                node: "n1".into(),
                terminated: &*name.name == "done",
            })
        }

        fn pod_by_uid(&self, _: &str) -> Option<PodIdentity> {
            None
        }

        fn runs_on(&self, _: &str, _: &str, _: &str) -> bool {
            false
        }

        fn redirected_on(&self, _: &str) -> Vec<PodIdentity> {
            Vec::new()
        }

        fn node_uid(&self, _: &str) -> Option<Arc<str>> {
            None
        }

        fn waypoint_of(&self, pod: &NamespacedName) -> Option<NamespacedName> {
            (&*pod.name != "own").then(|| NamespacedName::new("shop", "waypoint"))
        }

        fn waypoint_of_account(&self, _: &str, _: &str) -> Option<NamespacedName> {
            None
        }
    }

    fn caller(namespace: &str, account: &str, node: Option<&str>) -> Caller {
        Caller {
            namespace: namespace.into(),
            service_account: account.into(),
            pod: Some(CallerPod { name: "p".into(), uid: "u".into() }),
            node: node.map(Into::into),
            expires: None,
        }
    }

    fn waypoint(pod: &str, uid: &str) -> Caller {
        Caller {
            pod: Some(CallerPod { name: pod.into(), uid: uid.into() }),
            ..caller("shop", "waypoint", Some("n1"))
        }
    }

    #[test]
    fn a_waypoint_reads_what_it_is_to_know_and_no_other_does() {
        let feeds = Feeds::default();
        let other = NamespacedName::new("shop", "other");
        let resource = ("shop/cart".into(), bytes::Bytes::from_static(b"x"));
        assert!(feeds.bound(&other).replace([resource]).is_empty());
        let read = readable(&waypoint("p", "u"), &feeds, &Pods).unwrap();
        assert_eq!(read.iter().map(Feed::len).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn each_agent_reads_its_own_types_and_strangers_none() {
        let feeds = Feeds::default();
        let types = |caller: &Caller| -> Option<Vec<&'static str>> {
            readable(caller, &feeds, &Pods).ok().map(|feeds| feeds.iter().map(Feed::type_url).collect())
        };
        let ztunnel = caller("ambit-system", "ztunnel", Some("n1"));
        let both = vec![ambit_proto::AUTHORIZATION, ambit_proto::ADDRESS];
        let unbound = Caller { pod: None, ..ztunnel.clone() };
        for (name, caller, expected) in [
            ("ztunnel", ztunnel, Some(both)),
            ("a token without a pod", unbound, None),
            ("ztunnel of elsewhere", caller("shop", "ztunnel", Some("n1")), None),
            (
                "node agent",
                caller("ambit-system", "ambit-node-agent", Some("n1")),
                Some(vec![ambit_proto::ENROLLMENT]),
            ),
            ("node agent without a node", caller("ambit-system", "ambit-node-agent", None), None),
            ("operator", caller("ambit-system", "ambit-operator", Some("n1")), None),
            (
                "a waypoint's pod",
                waypoint("p", "u"),
                Some(vec![ambit_proto::ADDRESS, ambit_proto::BOUND_SERVICE]),
            ),
            ("a user's pod under the waypoint's account", waypoint("own", "u"), None),
            ("a pod of another incarnation", waypoint("p", "v"), None),
            ("a pod that has ended", waypoint("done", "u"), None),
            ("another account in a pod with the labels", caller("shop", "cart", Some("n1")), None),
            ("the same names elsewhere", caller("pay", "waypoint", Some("n1")), None),
            ("a waypoint's token without a pod", Caller { pod: None, ..waypoint("p", "u") }, None),
        ] {
            assert_eq!(types(&caller), expected, "{name}");
        }
    }

    #[test]
    fn a_node_agent_reads_only_the_feed_of_its_own_node() {
        let feeds = Feeds::default();
        assert!(
            feeds.enrollment("n1").replace([("node".into(), bytes::Bytes::from_static(b"x"))]).is_empty()
        );
        let of = |node| {
            let agent = caller("ambit-system", "ambit-node-agent", Some(node));
            let read = readable(&agent, &feeds, &Pods).unwrap();
            read.first().map(|feed| feed.len())
        };
        assert_eq!((of("n1"), of("n2")), (Some(1), Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_the_token() {
        let now = SystemTime::now();
        let caller = Caller { expires: Some(now + Duration::from_secs(60)), ..caller("n", "a", None) };
        assert_eq!(until(&caller, now), Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(until(&caller, now + Duration::from_secs(90)), Some(Instant::now()));
    }
}
