//! Which feeds a caller may read.

use std::{sync::Arc, time::SystemTime};

use ambit_identity::Clock;
use ambit_xds::{Authorizer, Feed, Scope};
use tokio::time::Instant;
use tonic::{Status, metadata::MetadataMap};

use super::Feeds;
use crate::{
    ca::{Authenticator, Caller},
    names,
};

/// Judges new streams.
pub struct Admission {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) feeds: Arc<Feeds>,
    pub(super) clock: Clock,
}

impl Authorizer for Admission {
    async fn admit(&self, metadata: &MetadataMap) -> Result<Scope, Status> {
        let caller = self.authenticator.caller(metadata).await?;
        let feeds = readable(&caller, &self.feeds).inspect_err(|status| {
            tracing::warn!(%caller, reason = status.message(), "Discovery stream refused");
        })?;
        Ok(Scope { client: caller.to_string().into(), feeds, until: until(&caller, (self.clock)()) })
    }
}

/// Policies come before workloads, because these refer to them.
fn readable(caller: &Caller, feeds: &Feeds) -> Result<Vec<Feed>, Status> {
    if caller.is_system(names::ZTUNNEL) && caller.pod.is_some() {
        return Ok(vec![feeds.authorization.clone(), feeds.address.clone()]);
    }
    if !caller.is_system(names::NODE_AGENT) || caller.pod.is_none() {
        return Err(Status::permission_denied("this caller reads no configuration"));
    }
    match &caller.node {
        Some(node) => Ok(vec![feeds.enrollment(node)]),
        None => Err(Status::permission_denied("the token is not bound to a node")),
    }
}

/// A stream does not outlive the token that opened it.
fn until(caller: &Caller, now: SystemTime) -> Option<Instant> {
    let left = caller.expires?.duration_since(now).unwrap_or_default();
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ca::CallerPod;

    fn caller(namespace: &str, account: &str, node: Option<&str>) -> Caller {
        Caller {
            namespace: namespace.into(),
            service_account: account.into(),
            pod: Some(CallerPod { name: "p".into(), uid: "u".into() }),
            node: node.map(Into::into),
            expires: None,
        }
    }

    #[test]
    fn each_agent_reads_its_own_types_and_strangers_none() {
        let feeds = Feeds::default();
        let types = |caller: &Caller| -> Option<Vec<&'static str>> {
            readable(caller, &feeds).ok().map(|feeds| feeds.iter().map(Feed::type_url).collect())
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
            let read = readable(&caller("ambit-system", "ambit-node-agent", Some(node)), &feeds).unwrap();
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
