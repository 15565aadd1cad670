//! The xDS node of a proxy.
//!
//! Invariant: it has Istio's format, so that Istio's control plane and tools recognize the proxy.

use std::net::IpAddr;

use super::config::Node;

/// A proxy and its pod.
#[derive(Clone, Copy, Debug)]
pub struct Proxy<'a> {
    /// `ztunnel` or `waypoint`.
    pub kind: &'a str,
    /// Address of its pod.
    pub ip: IpAddr,
    /// Name of its pod.
    pub pod: &'a str,
    /// Namespace of its pod.
    pub namespace: &'a str,
    /// Name of its node.
    pub node: &'a str,
    /// Id of its cluster.
    pub cluster_id: &'a str,
}

impl From<Proxy<'_>> for Node {
    fn from(proxy: Proxy<'_>) -> Self {
        let Proxy { kind, ip, pod, namespace, node, cluster_id } = proxy;
        let ip = ip.to_string();
        let metadata = [
            ("NAME", pod),
            ("NAMESPACE", namespace),
            ("INSTANCE_IPS", &ip),
            ("NODE_NAME", node),
            ("CLUSTER_ID", cluster_id),
        ];
        Self {
            id: format!("{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}

impl Node {
    /// Adds a metadata entry.
    #[must_use]
    pub fn with(mut self, name: &str, value: String) -> Self {
        self.metadata.insert(name.to_owned(), value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_and_described_as_istio_does_it() {
        let proxy = Proxy {
            kind: "waypoint",
            ip: "10.0.0.9".parse().unwrap(),
            pod: "w-1",
            namespace: "shop",
            node: "n1",
            cluster_id: "Kubernetes",
        };
        let node = Node::from(proxy).with("GATEWAY", "w".to_owned());
        assert_eq!(node.id, "waypoint~10.0.0.9~w-1.shop~shop.svc.cluster.local");
        let facts: Vec<_> = node.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            facts,
            [
                "CLUSTER_ID=Kubernetes",
                "GATEWAY=w",
                "INSTANCE_IPS=10.0.0.9",
                "NAME=w-1",
                "NAMESPACE=shop",
                "NODE_NAME=n1"
            ]
        );
    }
}
