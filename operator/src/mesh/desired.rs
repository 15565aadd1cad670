//! The objects that a valid spec needs. Pure and total.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, ServiceAccount},
};

use crate::{container::operator_address, names, spec::validate::ValidMesh};

mod agent;
mod metadata;
mod proxy;

pub(crate) use metadata::MeshInputs;
use metadata::metadata;

/// The needed objects, by kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MeshObjects {
    /// Service accounts of the agents, without permissions.
    pub service_accounts: Vec<ServiceAccount>,
    /// The trusted roots.
    pub config_maps: Vec<ConfigMap>,
    /// The agents.
    pub daemon_sets: Vec<DaemonSet>,
}

/// Computes the needed objects. Agents are added once there are an authority and an address to
/// connect to.
pub(crate) fn desired(valid: &ValidMesh, given: &MeshInputs<'_>) -> MeshObjects {
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
    MeshObjects {
        service_accounts: service_accounts.into(),
        config_maps: config_maps.into_iter().collect(),
        daemon_sets,
    }
}

#[cfg(test)]
mod tests;
