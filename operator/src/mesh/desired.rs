//! Everything that must exist for a valid spec. Pure and total.

use std::collections::BTreeMap;

use ambit_api::labels;
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, ServiceAccount, Toleration},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};

use super::validate::Valid;
use crate::{config::Images, container::operator_address, names};

mod agent;
mod proxy;

/// What is desired depends on, beside the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Given<'a> {
    /// Images of the parts.
    pub images: &'a Images,
    /// ClusterIP of the operator's Service; without it no agent can be started.
    pub operator_ip: Option<&'a str>,
    /// Trusted roots as PEM; without them no agent can be started.
    pub roots: Option<&'a str>,
    /// The Mesh, as owner of everything.
    pub owner: Option<OwnerReference>,
}

/// Everything that must exist, by kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Accounts of the agents; they may do nothing in the API.
    pub service_accounts: Vec<ServiceAccount>,
    /// The trusted roots.
    pub config_maps: Vec<ConfigMap>,
    /// The agents.
    pub daemon_sets: Vec<DaemonSet>,
}

/// Everything that must exist. Agents follow once there is an authority and an address to dial.
pub fn desired(valid: &Valid, given: &Given<'_>) -> Objects {
    let service_accounts = [names::NODE_AGENT, names::ZTUNNEL].map(|name| ServiceAccount {
        metadata: metadata(name, given),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    });
    let config_maps = given.roots.map(|roots| ConfigMap {
        metadata: metadata(names::ROOTS, given),
        data: Some(BTreeMap::from([(names::ROOTS_KEY.to_owned(), roots.to_owned())])),
        ..ConfigMap::default()
    });
    let daemon_sets = match (given.operator_ip, given.roots) {
        (Some(ip), Some(_)) => {
            let address = operator_address(ip);
            vec![agent::daemon_set(valid, given, &address), proxy::daemon_set(valid, given, &address)]
        }
        (_, _) => Vec::new(),
    };
    Objects {
        service_accounts: service_accounts.into(),
        config_maps: config_maps.into_iter().collect(),
        daemon_sets,
    }
}

fn metadata(name: &str, given: &Given<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(names::NAMESPACE.to_owned()),
        labels: Some(object_labels(name)),
        owner_references: given.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn object_labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::APP.to_owned(), app.to_owned()),
        (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
        (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
    ])
}

/// Our own pods are never enrolled.
fn pod_metadata(app: &str) -> ObjectMeta {
    let labels = BTreeMap::from([
        (labels::APP.to_owned(), app.to_owned()),
        (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
        (labels::DATAPLANE_MODE.to_owned(), labels::NONE.to_owned()),
    ]);
    ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
}

fn selector(app: &str) -> LabelSelector {
    let labels = BTreeMap::from([(labels::APP.to_owned(), app.to_owned())]);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// On every node, whatever its taints.
fn tolerations() -> Vec<Toleration> {
    vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]
}

#[cfg(test)]
mod tests;
