//! The operator's configuration from environment variables.

use ambit_runtime::{Env, Environment, env::EnvErrors, telemetry::Format};

use crate::names;

/// Images of the components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Image of the operator.
    pub operator: String,
    /// Image of the node proxy.
    pub ztunnel: String,
    /// Image of the node agent, which also contains the CNI plugin.
    pub node_agent: String,
    /// Image of the L7 proxy.
    pub waypoint: String,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            operator: "localhost/ambit-operator:dev".into(),
            ztunnel: "localhost/ambit-ztunnel:dev".into(),
            node_agent: "localhost/ambit-node-agent:dev".into(),
            waypoint: "localhost/ambit-waypoint:dev".into(),
        }
    }
}

/// The operator's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Images of the components.
    pub images: Images,
    /// Name of this replica, for the Lease and for Events.
    pub pod_name: String,
    /// Port of discovery, certificates and reports.
    pub discovery_port: u16,
    /// Port of `/healthz/ready`.
    pub health_port: u16,
    /// Port of `/metrics`.
    pub metrics_port: u16,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: Format,
}

/// Description of the variables for `--help`.
pub const HELP: &str = "\
Environment:
  POD_NAME               name of this replica, holder of the Lease (default: ambit-operator)
  AMBIT_OPERATOR_IMAGE   image of the operator, for `manifests`  (default: localhost/ambit-operator:dev)
  AMBIT_ZTUNNEL_IMAGE    image of the node proxy                 (default: localhost/ambit-ztunnel:dev)
  AMBIT_NODE_AGENT_IMAGE image of the node agent                 (default: localhost/ambit-node-agent:dev)
  AMBIT_WAYPOINT_IMAGE   image of the L7 proxy                   (default: localhost/ambit-waypoint:dev)
  AMBIT_DISCOVERY_PORT   discovery, certificates, reports        (default: 15012)
  AMBIT_HEALTH_PORT      /healthz/ready                          (default: 15021)
  AMBIT_METRICS_PORT     /metrics                                (default: 15020)
  RUST_LOG               what is logged                          (default: info)
  LOG_FORMAT             text or json                            (default: text)
  KUBECONFIG             API server, outside of a cluster";

impl Config {
    /// Parses the environment.
    ///
    /// # Errors
    /// All invalid variables.
    pub fn parse(source: &dyn Environment) -> Result<Self, EnvErrors> {
        let mut env = Env::new(source);
        let images = Images::default();
        let config = Self {
            images: Images {
                operator: env.or("AMBIT_OPERATOR_IMAGE", images.operator),
                ztunnel: env.or("AMBIT_ZTUNNEL_IMAGE", images.ztunnel),
                node_agent: env.or("AMBIT_NODE_AGENT_IMAGE", images.node_agent),
                waypoint: env.or("AMBIT_WAYPOINT_IMAGE", images.waypoint),
            },
            pod_name: env.or("POD_NAME", names::OPERATOR.to_owned()),
            discovery_port: env.or("AMBIT_DISCOVERY_PORT", names::DISCOVERY_PORT),
            health_port: env.or("AMBIT_HEALTH_PORT", names::HEALTH_PORT),
            metrics_port: env.or("AMBIT_METRICS_PORT", names::METRICS_PORT),
            log: env.or("RUST_LOG", "info".to_owned()),
            log_format: env.or("LOG_FORMAT", Format::Text),
        };
        env.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn everything_has_a_default_and_mistakes_are_named_together() {
        let config = Config::parse(&HashMap::new()).unwrap();
        assert_eq!((config.discovery_port, config.images), (15012, Images::default()));
        let bad = HashMap::from([
            ("AMBIT_DISCOVERY_PORT".to_owned(), "x".to_owned()),
            ("LOG_FORMAT".to_owned(), "xml".to_owned()),
        ]);
        let errors = Config::parse(&bad).unwrap_err().to_string();
        assert!(errors.contains("AMBIT_DISCOVERY_PORT") && errors.contains("LOG_FORMAT"), "{errors}");
    }
}
