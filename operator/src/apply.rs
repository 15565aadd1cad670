//! The only writer of managed objects: server-side apply of what differs, then prune of what is not wanted.
//!
//! Invariant: an object that already says everything that is wanted is not written.

use std::{fmt::Debug, sync::Arc};

use ambit_api::labels;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{Error, is_not_found},
    mesh::{World, desired::Objects, removal::is_ours},
    names,
};

/// A kind that the operator rolls out into its own namespace.
pub trait Managed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug
{
}

impl Managed for k8s_openapi::api::apps::v1::DaemonSet {}
impl Managed for k8s_openapi::api::core::v1::ConfigMap {}
impl Managed for k8s_openapi::api::core::v1::ServiceAccount {}
impl Managed for k8s_openapi::api::core::v1::Secret {}

/// Makes the cluster say what is wanted.
///
/// # Errors
/// The first write that failed; the others were tried too.
pub async fn apply(client: &Client, wanted: &Objects, world: &World) -> Result<(), Error> {
    let results = [
        all(client, &wanted.service_accounts, &world.service_accounts).await,
        all(client, &wanted.config_maps, &world.config_maps).await,
        all(client, &wanted.daemon_sets, &world.daemon_sets).await,
    ];
    results.into_iter().collect()
}

async fn all<K: Managed>(client: &Client, wanted: &[K], live: &[Arc<K>]) -> Result<(), Error> {
    let mut result = Ok(());
    for object in wanted {
        let name = object.name_any();
        let found = live.iter().find(|live| live.name_any() == name);
        let done = match is_said(object, found.map(Arc::as_ref)) {
            Ok(true) => Ok(()),
            Ok(false) => write(client, object, &name).await,
            Err(error) => Err(error),
        };
        result = result.and(done);
    }
    let unwanted = live.iter().filter(|live| is_ours(live.meta()));
    for object in unwanted.filter(|live| !wanted.iter().any(|wanted| wanted.name_any() == live.name_any())) {
        // Objects that are waiting for something (roots, an address) were applied before and stay.
        if !wanted.is_empty() {
            result = result.and(delete::<K>(client, &object.name_any()).await);
        }
    }
    result
}

fn is_said<K: Managed>(wanted: &K, live: Option<&K>) -> Result<bool, Error> {
    let Some(live) = live else { return Ok(false) };
    let json = |object: &K| {
        serde_json::to_value(object).map_err(|source| Error::Json {
            doing: format!("{} {}", K::kind(&()), object.name_any()),
            source,
        })
    };
    Ok(says(&json(live)?, &json(wanted)?))
}

async fn write<K: Managed>(client: &Client, object: &K, name: &str) -> Result<(), Error> {
    let api: Api<K> = Api::namespaced(client.clone(), names::NAMESPACE);
    let params = PatchParams::apply(labels::FIELD_MANAGER).force();
    let doing = || format!("applying {} {}/{name}", K::kind(&()), names::NAMESPACE);
    api.patch(name, &params, &Patch::Apply(object)).await.map_err(|source| Error::api(doing(), source))?;
    tracing::info!(kind = %K::kind(&()), name, "Applied an object");
    Ok(())
}

/// Deletes an object of our namespace; one that is gone already is fine.
///
/// # Errors
/// When the API server refuses.
pub async fn delete<K: Managed>(client: &Client, name: &str) -> Result<(), Error> {
    let api: Api<K> = Api::namespaced(client.clone(), names::NAMESPACE);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => {
            tracing::info!(kind = %K::kind(&()), name, "Deleted an object");
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => {
            Err(Error::api(format!("deleting {} {}/{name}", K::kind(&()), names::NAMESPACE), error))
        }
    }
}

/// Whether `live` says everything that `wanted` says; the API server adds defaults beside it.
fn says(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|live| says(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| says(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceAccount;
    use serde_json::json;

    use super::*;
    use crate::testing::{Script, failure};

    fn account(name: &str) -> ServiceAccount {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ambit-system", "labels": {"ambit.dev/mesh": "default"}},
            "automountServiceAccountToken": false
        }))
        .unwrap()
    }

    fn requests(script: &Script) -> Vec<String> {
        script.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }

    #[tokio::test]
    async fn only_what_differs_is_written_and_only_what_is_ours_is_pruned() {
        let script = Script::default();
        let wanted =
            Objects { service_accounts: vec![account("same"), account("drifted")], ..Objects::default() };
        let mut drifted = account("drifted");
        drifted.automount_service_account_token = Some(true);
        let mut foreign = account("foreign");
        foreign.metadata.labels = None;
        let live = [account("same"), drifted, account("old"), foreign];
        let world = World { service_accounts: live.map(Arc::new).into(), ..World::default() };
        apply(&script.client(), &wanted, &world).await.unwrap();
        let path = "/api/v1/namespaces/ambit-system/serviceaccounts";
        assert_eq!(requests(&script), [format!("PATCH {path}/drifted"), format!("DELETE {path}/old")]);
    }

    #[tokio::test]
    async fn a_refused_write_is_named_and_does_not_keep_others_from_being_written() {
        let script = Script::new([failure(403, "Forbidden"), (200, json!({"metadata": {}}))]);
        let wanted = Objects { service_accounts: vec![account("a"), account("b")], ..Objects::default() };
        let error = apply(&script.client(), &wanted, &World::default()).await.unwrap_err().to_string();
        assert!(error.contains("ServiceAccount ambit-system/a"), "{error}");
        assert_eq!(requests(&script).len(), 2);
    }

    #[test]
    fn an_object_with_defaults_added_still_says_what_is_wanted() {
        let wanted = json!({"spec": {"containers": [{"name": "a", "image": "i"}], "hostPID": true}});
        let live = json!({"metadata": {"uid": "x"}, "spec": {"containers": [{"name": "a", "image": "i", "stdin": false}], "hostPID": true}});
        assert!(says(&live, &wanted));
    }

    #[test]
    fn a_changed_removed_or_added_value_is_drift() {
        let wanted = json!({"spec": {"env": [{"name": "A", "value": "1"}], "x": 1}});
        for live in [
            json!({"spec": {"env": [{"name": "A", "value": "2"}], "x": 1}}),
            json!({"spec": {"env": [{"name": "A", "value": "1"}]}}),
            json!({"spec": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}], "x": 1}}),
        ] {
            assert!(!says(&live, &wanted), "{live}");
        }
    }
}
