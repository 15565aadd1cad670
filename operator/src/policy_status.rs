//! The status of users' policies: what of each is enforced, written by the leader when it is not said already.

use std::{sync::Arc, time::Duration};

use ambit_api::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication, policy::PolicyCondition};
use ambit_index::{Judgement, Kind, StatusPatch};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::{
    error::{Error, is_conflict, is_not_found},
    state::SharedIndex,
};

/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(100);
/// Pause after a write failed.
const RETRY: Duration = Duration::from_secs(2);

/// Writes until dropped, while this replica leads.
pub async fn run(client: Client, index: SharedIndex, mut leads: watch::Receiver<bool>, wake: Arc<Notify>) {
    loop {
        tokio::select! {
            () = wake.notified() => tokio::time::sleep(GATHER).await,
            changed = leads.changed() => if changed.is_err() { return },
        }
        if !*leads.borrow() {
            continue;
        }
        let patches = index.read().status_patches();
        for patch in patches {
            if let Err(error) = write(&client, &patch).await {
                tracing::warn!(%error, "The status of a policy cannot be written, trying again");
                tokio::time::sleep(RETRY).await;
                wake.notify_one();
            }
        }
    }
}

async fn write(client: &Client, patch: &StatusPatch) -> Result<(), Error> {
    let body = json!({
        "metadata": {"resourceVersion": patch.resource_version},
        "status": {"conditions": conditions(patch, Timestamp::now())},
    });
    match patch.kind {
        Kind::AuthorizationPolicy => send::<AuthorizationPolicy>(client, patch, &body).await,
        Kind::PeerAuthentication => send::<PeerAuthentication>(client, patch, &body).await,
        Kind::RequestAuthentication => send::<RequestAuthentication>(client, patch, &body).await,
        Kind::Pod | Kind::Service | Kind::EndpointSlice | Kind::Node | Kind::Namespace => Ok(()),
    }
}

/// All conditions, with ours put in; the time moves only when the status does.
fn conditions(patch: &StatusPatch, now: Timestamp) -> Vec<PolicyCondition> {
    let ours = |judgement: &Judgement| {
        let old = patch.current.iter().find(|condition| condition.kind == judgement.condition);
        let same = old.filter(|old| old.status == judgement.holds.as_str());
        let since = same.and_then(|old| old.last_transition_time.clone()).unwrap_or_else(|| now.to_string());
        PolicyCondition {
            kind: judgement.condition.to_owned(),
            status: judgement.holds.as_str().to_owned(),
            reason: judgement.reason.to_owned(),
            message: judgement.message.clone(),
            last_transition_time: Some(since),
            observed_generation: patch.generation,
        }
    };
    let is_ours = |condition: &PolicyCondition| {
        patch.judgements.iter().any(|judgement| judgement.condition == condition.kind)
    };
    let others = patch.current.iter().filter(|condition| !is_ours(condition)).cloned();
    others.chain(patch.judgements.iter().map(ours)).collect()
}

/// An object that changed meanwhile is judged again anyway.
async fn send<K>(client: &Client, patch: &StatusPatch, body: &serde_json::Value) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &patch.name.namespace);
    match api.patch_status(&patch.name.name, &PatchParams::default(), &Patch::Merge(body)).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => {
            Err(Error::api(format!("writing the status of {} {}", K::kind(&()), patch.name), error))
        }
    }
}
