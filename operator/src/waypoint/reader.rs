//! Reads the parameters of Gateways, once per version of a ConfigMap.

use std::collections::{BTreeMap, HashMap};

use ambit_api::gateway::Gateway;
use ambit_model::NamespacedName;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::{parameters, validate::Found};
use crate::error::{Error, is_not_found};

/// Number of cached ConfigMaps; others are read again.
const REMEMBERED_MAX: usize = 1024;

/// Reads and caches parameters.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    read: HashMap<NamespacedName, (String, Found)>,
}

impl Reader {
    /// The result of a Gateway's `parametersRef`. `versions` are those of all ConfigMaps.
    ///
    /// # Errors
    /// When the API server cannot be reached.
    pub(crate) async fn find(
        &mut self,
        client: &Client,
        gateway: &Gateway,
        versions: &BTreeMap<NamespacedName, String>,
    ) -> Result<Found, Error> {
        let reference = gateway.spec.infrastructure.as_ref().and_then(|infra| infra.parameters_ref.as_ref());
        let Some(reference) = reference else { return Ok(Found::Parameters(Box::default())) };
        if !reference.group.is_empty() || reference.kind != "ConfigMap" {
            let kind = &reference.kind;
            return Ok(Found::Missing(format!(
                "{kind} cannot contain parameters; reference a ConfigMap (group \"\")"
            )));
        }
        let namespace = ambit_index::name_of(&gateway.metadata).namespace;
        let name = NamespacedName::new(namespace, reference.name.as_str());
        let missing = || Found::Missing(format!("ConfigMap {name} does not exist"));
        let Some(version) = versions.get(&name) else { return Ok(missing()) };
        if let Some((_, found)) = self.read.get(&name).filter(|(known, _)| known == version) {
            return Ok(found.clone());
        }
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &name.namespace);
        let found = match api.get(&name.name).await {
            Ok(config_map) => match parameters::read(&config_map) {
                Ok(parameters) => Found::Parameters(Box::new(parameters)),
                Err(wrong) => Found::Invalid(format!("ConfigMap {name}: {wrong}")),
            },
            Err(error) if is_not_found(&error) => return Ok(missing()),
            Err(source) => return Err(Error::api(format!("reading ConfigMap {name}"), source)),
        };
        if self.read.len() >= REMEMBERED_MAX {
            self.read.clear();
        }
        self.read.insert(name, (version.clone(), found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Script, failure};

    fn gateway(kind: &str) -> Gateway {
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop"},
            "spec": {
                "gatewayClassName": "ambit-waypoint", "listeners": [],
                "infrastructure": {"parametersRef": {"group": "", "kind": kind, "name": "size"}}
            }
        }))
        .unwrap()
    }

    fn versions(version: &str) -> BTreeMap<NamespacedName, String> {
        [(NamespacedName::new("shop", "size"), version.to_owned())].into()
    }

    #[tokio::test]
    async fn a_config_map_is_read_once_for_each_version() {
        let of = |text: &str| (200, json!({"metadata": {"name": "size"}, "data": {"waypoint": text}}));
        let script = Script::new([of("failurePolicy: Open"), of("replica: 3")]);
        let (mut reader, client) = (Reader::default(), script.client());
        let first = reader.find(&client, &gateway("ConfigMap"), &versions("1")).await.unwrap();
        assert_eq!(reader.find(&client, &gateway("ConfigMap"), &versions("1")).await.unwrap(), first);
        assert_eq!(script.seen().len(), 1);
        let second = reader.find(&client, &gateway("ConfigMap"), &versions("2")).await.unwrap();
        assert!(matches!(first, Found::Parameters(_)));
        assert!(matches!(second, Found::Invalid(wrong) if wrong.starts_with("ConfigMap shop/size: ")));
    }

    #[tokio::test]
    async fn what_does_not_exist_or_is_no_config_map_is_missing() {
        let script = Script::new([failure(404, "NotFound")]);
        let (mut reader, client) = (Reader::default(), script.client());
        let nothing = BTreeMap::new();
        for (gateway, versions) in [
            (gateway("ConfigMap"), &nothing),
            (gateway("Deployment"), &versions("1")),
            (gateway("ConfigMap"), &versions("1")),
        ] {
            let found = reader.find(&client, &gateway, versions).await.unwrap();
            assert!(matches!(found, Found::Missing(_)), "{found:?}");
        }
    }
}
