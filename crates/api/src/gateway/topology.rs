//! Proxies in front of a Gateway, as Istio's `gatewayTopology` states them.

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    gateway_topology: Option<Topology>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Topology {
    num_trusted_proxies: Option<u32>,
}

/// `gatewayTopology.numTrustedProxies` of the annotation `proxy.istio.io/config` (YAML); `None` if it is not set or cannot be read.
pub fn trusted_proxies(config: &str) -> Option<u32> {
    serde_norway::from_str::<ProxyConfig>(config).ok()?.gateway_topology?.num_trusted_proxies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_number_of_proxies() {
        let table = [
            ("gatewayTopology: {numTrustedProxies: 2}", Some(2)),
            ("{\"gatewayTopology\": {\"numTrustedProxies\": 0}, \"concurrency\": 1}", Some(0)),
            ("gatewayTopology: {}", None),
            ("concurrency: 1", None),
            ("gatewayTopology: {numTrustedProxies: -1}", None),
            ("gatewayTopology: {numTrustedProxies: two}", None),
            ("- a", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(trusted_proxies(text), expected, "{text}");
        }
    }
}
