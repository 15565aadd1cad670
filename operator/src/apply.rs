//! The only writer of managed objects: server-side apply of what differs, then pruning of what is
//! not wanted.
//!
//! Invariant: an object that already has all wanted values is not written, and outside our own
//! namespace no object without our label is changed or deleted.

use std::{fmt::Debug, sync::Arc};

use ambit_api::labels;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    error::{Error, is_conflict, is_not_found},
    names,
};

/// A kind of objects that the operator manages.
pub(crate) trait Managed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug
{
}

impl Managed for DaemonSet {}
impl Managed for ConfigMap {}
impl Managed for ServiceAccount {}
impl Managed for Secret {}
impl Managed for Deployment {}
impl Managed for Service {}
impl Managed for HorizontalPodAutoscaler {}
impl Managed for PodDisruptionBudget {}
impl Managed for ambit_api::gateway::Gateway {}

/// Which existing objects may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// All, because the namespace belongs to the operator.
    Namespace,
    /// Those with the label of objects created for a Gateway.
    Label,
}

/// Applies one object if necessary; `live` are the current objects of its kind.
///
/// # Errors
/// [`Error::NotOurs`] when another owner's object has the name, or when the API server rejects the
/// write.
pub(crate) async fn one<K: Managed>(
    client: &Client,
    wanted: &K,
    live: &[Arc<K>],
    claim: Claim,
) -> Result<(), Error> {
    let found = live.iter().map(Arc::as_ref).find(|live| is_same(*live, wanted));
    if is_said(wanted, found)? {
        return Ok(());
    }
    match (claim, found) {
        (Claim::Namespace, _) => write(client, wanted, None, PatchParams::force).await,
        (Claim::Label, Some(found)) => {
            write(client, wanted, found.resource_version(), PatchParams::force).await
        }
        (Claim::Label, None) => take(client, wanted).await,
    }
}

/// Deletes every object that is not wanted.
///
/// # Errors
/// The first deletion that failed; the others were attempted too.
pub(crate) async fn prune<K: Managed>(
    client: &Client,
    live: &[Arc<K>],
    is_wanted: impl Fn(&K) -> bool,
) -> Result<(), Error> {
    let mut result = Ok(());
    for object in live.iter().filter(|live| !is_wanted(live)) {
        result = result.and(delete(client, object.as_ref()).await);
    }
    result
}

/// Creates an object. The caches hold only labelled objects, so an unlabelled one may still exist.
async fn take<K: Managed>(client: &Client, wanted: &K) -> Result<(), Error> {
    let (kind, namespace, name) = (K::kind(&()), namespace_of(wanted), wanted.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_opt(&name).await;
    let found = found.map_err(|source| Error::api(format!("reading {kind} {namespace}/{name}"), source))?;
    let taken = || Error::NotOurs { object: format!("{kind} {namespace}/{name}") };
    match found {
        Some(found) if is_managed(&found) => {
            write(client, wanted, found.resource_version(), PatchParams::force).await
        }
        Some(_) => Err(taken()),
        // Without force: fields of another owner are kept.
        None => match write(client, wanted, None, |params| params).await {
            Err(Error::Api { source, .. }) if is_conflict(&source) => Err(taken()),
            done => done,
        },
    }
}

/// Whether an object has the label of the operator's components.
pub(crate) fn is_ours(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::MESH))
}

/// Whether an object has the label of objects created for a Gateway.
pub(crate) fn is_managed<K: Resource>(object: &K) -> bool {
    let labels = object.meta().labels.as_ref();
    labels
        .and_then(|labels| labels.get(labels::GATEWAY_MANAGED))
        .is_some_and(|by| by == labels::WAYPOINT_MANAGED)
}

fn is_same<K: Managed>(one: &K, other: &K) -> bool {
    one.name_any() == other.name_any() && namespace_of(one) == namespace_of(other)
}

fn namespace_of<K: Managed>(object: &K) -> String {
    object.namespace().unwrap_or_else(|| names::NAMESPACE.to_owned())
}

fn json<K: Managed>(object: &K) -> Result<Value, Error> {
    let doing = || format!("{} {}/{}", K::kind(&()), namespace_of(object), object.name_any());
    serde_json::to_value(object).map_err(|source| Error::Json { doing: doing(), source })
}

fn is_said<K: Managed>(wanted: &K, live: Option<&K>) -> Result<bool, Error> {
    let Some(live) = live else { return Ok(false) };
    Ok(says(&json(live)?, &json(wanted)?))
}

/// With a version, the write succeeds only if the object has not changed since.
async fn write<K: Managed>(
    client: &Client,
    object: &K,
    version: Option<String>,
    params: impl Fn(PatchParams) -> PatchParams,
) -> Result<(), Error> {
    let (kind, namespace, name) = (K::kind(&()), namespace_of(object), object.name_any());
    let mut body = json(object)?;
    if let (Some(version), Some(metadata)) =
        (&version, body.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("resourceVersion".into(), json!(version));
    }
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    match api.patch(&name, &params(PatchParams::apply(labels::FIELD_MANAGER)), &Patch::Apply(body)).await {
        Ok(_) => tracing::info!(kind = %kind, namespace, name, "Applied an object"),
        // It has changed meanwhile, which triggers another reconcile anyway.
        Err(error) if version.is_some() && is_conflict(&error) => {
            tracing::debug!(kind = %kind, namespace, name, "An object changed meanwhile");
        }
        Err(source) => return Err(Error::api(format!("applying {kind} {namespace}/{name}"), source)),
    }
    Ok(())
}

/// Deletes an object; succeeds if it is already gone.
///
/// # Errors
/// When the API server rejects the deletion.
pub(crate) async fn delete<K: Managed>(client: &Client, object: &K) -> Result<(), Error> {
    let (kind, namespace, name) = (K::kind(&()), namespace_of(object), object.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    match api.delete(&name, &DeleteParams::background()).await {
        Ok(_) => {
            tracing::info!(kind = %kind, namespace, name, "Deleted an object");
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::api(format!("deleting {kind} {namespace}/{name}"), error)),
    }
}

/// Whether `live` contains all values of `wanted`; the API server adds defaults.
pub(crate) fn says(live: &Value, wanted: &Value) -> bool {
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
    use crate::testing::{Script, account, failure};

    fn service_account_of_a_gateway(version: Option<&str>) -> ServiceAccount {
        let mut account = account("waypoint");
        account.metadata.namespace = Some("shop".into());
        account.metadata.labels =
            Some([(labels::GATEWAY_MANAGED.to_owned(), labels::WAYPOINT_MANAGED.to_owned())].into());
        account.metadata.resource_version = version.map(str::to_owned);
        account
    }

    #[tokio::test]
    async fn an_object_of_somebody_else_is_never_touched() {
        let foreign = json!({"metadata": {"name": "waypoint", "namespace": "shop"}});
        let script = Script::new([(200, foreign)]);
        let wanted = service_account_of_a_gateway(None);
        let refused = one(&script.client(), &wanted, &[], Claim::Label).await.unwrap_err();
        assert!(matches!(&refused, Error::NotOurs { object } if object == "ServiceAccount shop/waypoint"));
        assert_eq!(script.requests(), ["GET /api/v1/namespaces/shop/serviceaccounts/waypoint"]);
    }

    #[tokio::test]
    async fn an_object_that_is_not_there_is_made_without_force_so_that_whoever_is_faster_keeps_it() {
        let script = Script::new([failure(404, "NotFound"), failure(409, "Conflict")]);
        let wanted = service_account_of_a_gateway(None);
        let refused = one(&script.client(), &wanted, &[], Claim::Label).await.unwrap_err();
        assert!(matches!(refused, Error::NotOurs { .. }), "{refused}");
        assert_eq!(script.seen()[1].query, "&fieldManager=ambit-operator");
    }

    #[tokio::test]
    async fn an_object_of_ours_is_written_only_as_it_was_seen() {
        let script = Script::new([failure(409, "Conflict")]);
        let mut drifted = service_account_of_a_gateway(Some("7"));
        drifted.automount_service_account_token = Some(true);
        let wanted = service_account_of_a_gateway(None);
        one(&script.client(), &wanted, &[Arc::new(drifted)], Claim::Label).await.unwrap();
        let seen = script.seen();
        assert_eq!((seen.len(), &seen[0].body["metadata"]["resourceVersion"]), (1, &json!("7")));
        assert!(seen[0].query.contains("force=true"), "{}", seen[0].query);
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
