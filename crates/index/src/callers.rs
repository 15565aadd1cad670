//! Services that the API server calls: admission and conversion webhooks, and aggregated APIs. The
//! API server is never in the mesh, so a waypoint that closes such a Service cuts the API server
//! off.

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

use crate::key::{Key, Kind};

/// One object, and the Services that the API server calls because of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Key of the object.
    pub key: Key,
    /// The object's kind, for messages.
    description: &'static str,
    /// The called Services, each with a port.
    called: BTreeSet<(NamespacedName, u16)>,
}

/// The default port of the API server for Services.
const DEFAULT_PORT: i32 = 443;

impl Caller {
    /// For an admission webhook that validates.
    pub fn validating(object: &ValidatingWebhookConfiguration) -> Self {
        let webhooks = object.webhooks.iter().flatten();
        Self::new(
            Kind::ValidatingWebhook,
            "ValidatingWebhookConfiguration",
            &object.metadata,
            webhooks.map(|webhook| of_webhook(&webhook.client_config)),
        )
    }

    /// For an admission webhook that mutates.
    pub fn mutating(object: &MutatingWebhookConfiguration) -> Self {
        let webhooks = object.webhooks.iter().flatten();
        Self::new(
            Kind::MutatingWebhook,
            "MutatingWebhookConfiguration",
            &object.metadata,
            webhooks.map(|webhook| of_webhook(&webhook.client_config)),
        )
    }

    /// For an aggregated API.
    pub fn aggregated(object: &APIService) -> Self {
        let service = object.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let called = service.and_then(|service| {
            called(service.namespace.as_deref()?, service.name.as_deref()?, service.port)
        });
        Self::new(Kind::ApiService, "APIService", &object.metadata, [called].into_iter())
    }

    /// For a resource whose versions a webhook converts.
    pub fn converting(object: &CustomResourceDefinition) -> Self {
        let conversion = object.spec.conversion.as_ref().and_then(|conversion| conversion.webhook.as_ref());
        let config = conversion.and_then(|webhook| webhook.client_config.as_ref());
        let service = config.and_then(|config| config.service.as_ref());
        let called = service.and_then(|service| called(&service.namespace, &service.name, service.port));
        Self::new(Kind::CustomResource, "CustomResourceDefinition", &object.metadata, [called].into_iter())
    }

    /// The object as text, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("{} {}", self.description, self.key.name.name)
    }

    fn new(
        kind: Kind,
        description: &'static str,
        metadata: &ObjectMeta,
        called: impl Iterator<Item = Option<(NamespacedName, u16)>>,
    ) -> Self {
        let name: Arc<str> = metadata.name.as_deref().unwrap_or_default().into();
        Self {
            key: Key { kind, name: NamespacedName::new("", name) },
            description,
            called: called.flatten().collect(),
        }
    }

    /// The called Services.
    pub(crate) fn services(&self) -> BTreeSet<NamespacedName> {
        self.called.iter().map(|(service, _)| service.clone()).collect()
    }

    /// The ports at which it calls a Service.
    pub(crate) fn ports_of(&self, service: &NamespacedName) -> impl Iterator<Item = u16> {
        self.called.iter().filter(move |(called, _)| called == service).map(|(_, port)| *port)
    }
}

fn of_webhook(config: &WebhookClientConfig) -> Option<(NamespacedName, u16)> {
    let service = config.service.as_ref()?;
    called(&service.namespace, &service.name, service.port)
}

fn called(namespace: &str, name: &str, port: Option<i32>) -> Option<(NamespacedName, u16)> {
    let port = u16::try_from(port.unwrap_or(DEFAULT_PORT)).ok()?;
    Some((NamespacedName::new(namespace, name), port))
}
