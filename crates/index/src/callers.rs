//! What makes the API server call Services: admission and conversion webhooks, and aggregated APIs. It is never in the
//! mesh, so a waypoint that closes such a Service cuts it off.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::NamespacedName;
use k8s_openapi::{
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};

use crate::object::{Key, Kind};

/// One object, and the Services that the API server calls because of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Which object.
    pub key: Key,
    /// Its kind, for people.
    description: &'static str,
    /// What it calls.
    pub services: BTreeSet<NamespacedName>,
}

impl Caller {
    /// Of an admission webhook that only judges.
    pub fn validating(object: &ValidatingWebhookConfiguration) -> Self {
        let webhooks = object.webhooks.iter().flatten();
        Self::new(
            (Kind::ValidatingWebhook, "ValidatingWebhookConfiguration"),
            &object.metadata,
            webhooks.map(|webhook| of_webhook(&webhook.client_config)),
        )
    }

    /// Of an admission webhook that changes objects.
    pub fn mutating(object: &MutatingWebhookConfiguration) -> Self {
        let webhooks = object.webhooks.iter().flatten();
        Self::new(
            (Kind::MutatingWebhook, "MutatingWebhookConfiguration"),
            &object.metadata,
            webhooks.map(|webhook| of_webhook(&webhook.client_config)),
        )
    }

    /// Of an aggregated API.
    pub fn aggregated(object: &APIService) -> Self {
        let service = object.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let called =
            service.and_then(|service| Some(named(service.namespace.as_deref()?, service.name.as_deref()?)));
        Self::new((Kind::ApiService, "APIService"), &object.metadata, [called].into_iter())
    }

    /// Of a resource whose versions a webhook converts.
    pub fn converting(object: &CustomResourceDefinition) -> Self {
        let conversion = object.spec.conversion.as_ref().and_then(|conversion| conversion.webhook.as_ref());
        let config = conversion.and_then(|webhook| webhook.client_config.as_ref());
        let called = config.and_then(|config| config.service.as_ref());
        let called = called.map(|service| named(&service.namespace, &service.name));
        Self::new((Kind::CustomResource, "CustomResourceDefinition"), &object.metadata, [called].into_iter())
    }

    /// The object, for people.
    pub(crate) fn describe(&self) -> String {
        format!("{} {}", self.description, self.key.name.name)
    }

    fn new(
        (kind, description): (Kind, &'static str),
        metadata: &ObjectMeta,
        called: impl Iterator<Item = Option<NamespacedName>>,
    ) -> Self {
        let name: Arc<str> = metadata.name.as_deref().unwrap_or_default().into();
        Self {
            key: Key { kind, name: NamespacedName::new("", name) },
            description,
            services: called.flatten().collect(),
        }
    }
}

fn of_webhook(config: &WebhookClientConfig) -> Option<NamespacedName> {
    config.service.as_ref().map(|service| named(&service.namespace, &service.name))
}

fn named(namespace: &str, name: &str) -> NamespacedName {
    NamespacedName::new(namespace, name)
}
