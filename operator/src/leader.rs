//! Leader election: a Lease in our namespace, held by one replica at a time.
//!
//! Invariant: a replica considers itself leader only for [`RENEW_DEADLINE`] after its last
//! successful write. That is shorter than [`LEASE_DURATION`], after which another one may take
//! over. Clocks of other machines are not used: a Lease is stale when this replica has seen it
//! unchanged for the whole duration.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    error::{is_conflict, is_not_found},
    names,
};

/// How long a Lease is respected without renewal.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long the holder relies on its last renewal.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Interval of renewals, and of checking another replica's Lease.
pub(crate) const RETRY: Duration = Duration::from_secs(3);

/// What to do about the current Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is no Lease.
    Create,
    /// It is ours, has no holder, or is stale.
    Write,
    /// Another replica holds it.
    Wait,
}

/// The Lease as last observed by this replica.
#[derive(Debug, Default)]
struct Sight {
    version: Option<String>,
    since: Option<Instant>,
}

impl Sight {
    fn next(&mut self, lease: Option<&Lease>, me: &str, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let version = lease.metadata.resource_version.clone();
        if self.version != version || self.since.is_none() {
            *self = Self { version, since: Some(now) };
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let is_stale = self.since.is_some_and(|since| now.duration_since(since) >= LEASE_DURATION);
        if holder == me || holder.is_empty() || is_stale { Step::Write } else { Step::Wait }
    }
}

/// Takes part in the election until dropped; `leads` tells whether this replica is the leader.
pub(crate) async fn elect(client: Client, me: String, leads: watch::Sender<bool>) {
    let api: Api<Lease> = Api::namespaced(client, names::NAMESPACE);
    let mut sight = Sight::default();
    let mut renewed: Option<Instant> = None;
    loop {
        let started = Instant::now();
        match tokio::time::timeout(RETRY, attempt(&api, &mut sight, &me)).await {
            Ok(Ok(true)) => renewed = Some(started),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => tracing::warn!(%error, "The Lease cannot be read or written"),
            Err(_) => tracing::warn!("The Lease cannot be read or written in time"),
        }
        let is_leading = renewed.is_some_and(|at| at.elapsed() < RENEW_DEADLINE);
        leads.send_if_modified(|leads| {
            let is_new = *leads != is_leading;
            *leads = is_leading;
            if is_new {
                tracing::info!(leader = is_leading, "Leadership changed");
            }
            is_new
        });
        tokio::time::sleep(RETRY).await;
    }
}

/// Releases the Lease, so that another replica need not wait.
pub(crate) async fn release(client: Client, me: &str) {
    let api: Api<Lease> = Api::namespaced(client, names::NAMESPACE);
    let Ok(Some(lease)) = api.get_opt(names::OPERATOR).await else { return };
    if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(me) {
        return;
    }
    let version = lease.metadata.resource_version;
    let nobody =
        serde_json::json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}});
    if let Err(error) = api.patch(names::OPERATOR, &PatchParams::default(), &Patch::Merge(nobody)).await {
        tracing::debug!(%error, "The Lease was not given away");
    }
}

async fn attempt(api: &Api<Lease>, sight: &mut Sight, me: &str) -> Result<bool, kube::Error> {
    let lease = api.get_opt(names::OPERATOR).await?;
    let written = match sight.next(lease.as_ref(), me, Instant::now()) {
        Step::Wait => return Ok(false),
        Step::Create => api.create(&PostParams::default(), &mine(None, me, Timestamp::now())).await,
        Step::Write => {
            let lease = mine(lease, me, Timestamp::now());
            api.replace(names::OPERATOR, &PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The Lease with this replica as its holder.
fn mine(lease: Option<Lease>, me: &str, now: Timestamp) -> Lease {
    let lease = lease.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(names::OPERATOR.into()),
            namespace: Some(names::NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    });
    let old = lease.spec.clone().unwrap_or_default();
    let is_mine = old.holder_identity.as_deref() == Some(me);
    let transitions = old.lease_transitions.unwrap_or_default();
    let spec = LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(i32::try_from(LEASE_DURATION.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: if is_mine { old.acquire_time.clone() } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_mine { transitions } else { transitions.saturating_add(1) }),
        ..old
    };
    Lease { spec: Some(spec), ..lease }
}

#[cfg(test)]
mod tests;
