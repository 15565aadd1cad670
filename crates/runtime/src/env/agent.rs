//! Environment variables that the operator sets for every agent.
//!
//! Invariant: a variable has the same name and meaning for all agents.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::Env;
use crate::telemetry::Format;

/// Settings of every agent: its identity, the operator's address and credentials, and logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Name of the node.
    pub node: String,
    /// Name of this pod.
    pub pod: String,
    /// Namespace of this pod.
    pub namespace: String,
    /// Address of the operator's Service, port 15012.
    pub operator: SocketAddr,
    /// PEM file with the roots of the operator's certificate.
    pub roots: PathBuf,
    /// File with the token for the operator.
    pub token: PathBuf,
    /// Log filter in the syntax of `RUST_LOG`.
    pub log_filter: String,
    /// Log format.
    pub log_format: Format,
}

impl AgentConfig {
    /// Parses the variables; errors are recorded in `env`.
    pub fn parse(env: &mut Env<'_>) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            node: env.required("NODE_NAME", "the node this runs on (downward API)", String::new()),
            pod: env.required("POD_NAME", "this pod's name (downward API)", String::new()),
            namespace: env.required("POD_NAMESPACE", "this pod's namespace (downward API)", String::new()),
            operator: env.required(
                "AMBIT_OPERATOR_ADDRESS",
                "ip:port of the operator's Service, port 15012",
                nowhere,
            ),
            roots: env.or("XDS_ROOT_CA", PathBuf::from("/var/run/secrets/ambit/root-cert.pem")),
            token: env.or("AUTH_TOKEN", PathBuf::from("/var/run/secrets/tokens/istio-token")),
            log_filter: env.or("RUST_LOG", "info".to_owned()),
            log_format: env.or("LOG_FORMAT", Format::Text),
        }
    }
}
