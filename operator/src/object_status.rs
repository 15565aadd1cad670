//! Writes the status of any object.
//!
//! Invariant: a status is written only to the version from which it was computed; an object that
//! changed meanwhile is evaluated again anyway.

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, is_conflict, is_not_found};

/// The object from which a status was computed.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace; `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Resource version that was evaluated.
    pub version: String,
}

impl Judged {
    /// The object as observed.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: object.namespace(),
            name: object.name_any(),
            version: object.resource_version().unwrap_or_default(),
        }
    }
}

/// Writes fields of the status of an object; those that are not named stay.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn write(
    client: &Client,
    judged: &Judged,
    status: &(impl Serialize + Sync),
) -> Result<(), Error> {
    let Judged { resource, namespace, name, version } = judged;
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let body = json!({"metadata": {"resourceVersion": version}, "status": status});
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&body)).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => {
            let place = namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
            Err(Error::api(format!("writing the status of {} {place}{name}", resource.kind), error))
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::testing::{Script, failure};

    fn service() -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "4"}}),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_status_goes_onto_the_version_that_was_judged() {
        let script = Script::default();
        let status = json!({"conditions": []});
        write(&script.client(), &Judged::of(&service()), &status).await.unwrap();
        let seen = script.seen();
        assert_eq!(seen[0].path, "/api/v1/namespaces/shop/services/cart/status");
        assert_eq!(seen[0].body, json!({"metadata": {"resourceVersion": "4"}, "status": status}));
    }

    #[tokio::test]
    async fn an_object_that_changed_or_went_is_no_error_and_a_refusal_names_it() {
        for code in [(409, "Conflict"), (404, "NotFound")] {
            let script = Script::new([failure(code.0, code.1)]);
            write(&script.client(), &Judged::of(&service()), &json!({})).await.unwrap();
        }
        let script = Script::new([failure(403, "Forbidden")]);
        let error = write(&script.client(), &Judged::of(&service()), &json!({})).await.unwrap_err();
        assert!(error.to_string().contains("Service shop/cart"), "{error}");
    }
}
