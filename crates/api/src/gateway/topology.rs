//! Proxies in front of a Gateway, as Istio's `gatewayTopology` states them.

use serde::{Deserialize, de::IgnoredAny};

use super::Gateway;
use crate::labels::PROXY_CONFIG;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    gateway_topology: Option<Topology>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Topology {
    num_trusted_proxies: Option<u32>,
    proxy_protocol: Option<IgnoredAny>,
}

impl Gateway {
    /// The annotation `proxy.istio.io/config`: of its proxies, else of the Gateway itself, as in Istio.
    pub fn proxy_config(&self) -> Option<&String> {
        let proxies = self.spec.infrastructure.as_ref().and_then(|given| given.annotations.get(PROXY_CONFIG));
        proxies.or_else(|| self.metadata.annotations.as_ref()?.get(PROXY_CONFIG))
    }
}

fn read(config: &str) -> Result<Option<Topology>, serde_norway::Error> {
    Ok(serde_norway::from_str::<Option<ProxyConfig>>(config)?.unwrap_or_default().gateway_topology)
}

/// `gatewayTopology.numTrustedProxies` of the annotation `proxy.istio.io/config` (YAML); `None` if it is not set or cannot be read.
pub fn trusted_proxies(config: &str) -> Option<u32> {
    read(config).ok()??.num_trusted_proxies
}

/// What a waypoint cannot do of the annotation, or why it cannot be read.
pub fn topology_problem(config: &str) -> Option<String> {
    match read(config) {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(topology) => topology?.proxy_protocol.map(|_| {
            "gatewayTopology.proxyProtocol is not read: a waypoint takes tunnels of the mesh only, which carry no PROXY \
             protocol; remove it, and set it at the gateway that the load balancer calls"
                .to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_number_of_proxies_and_what_is_not_done_is_a_problem() {
        let table = [
            ("gatewayTopology: {numTrustedProxies: 2}", Some(2), ""),
            ("{\"gatewayTopology\": {\"numTrustedProxies\": 0}, \"concurrency\": 1}", Some(0), ""),
            ("gatewayTopology: {}", None, ""),
            ("concurrency: 1", None, ""),
            ("gatewayTopology: {numTrustedProxies: -1}", None, "cannot be read"),
            ("gatewayTopology: {numTrustedProxies: two}", None, "cannot be read"),
            ("- a", None, "cannot be read"),
            ("", None, ""),
            ("gatewayTopology: {proxyProtocol: {}}", None, "proxyProtocol is not read"),
            (
                "gatewayTopology: {proxyProtocol: {}, numTrustedProxies: 1}",
                Some(1),
                "proxyProtocol is not read",
            ),
            ("gatewayTopology: {proxyProtocol: null}", None, ""),
        ];
        for (text, expected, problem) in table {
            assert_eq!(trusted_proxies(text), expected, "{text}");
            let found = topology_problem(text).unwrap_or_default();
            assert!(found.contains(problem) && found.is_empty() == problem.is_empty(), "{text}: {found}");
        }
    }
}
