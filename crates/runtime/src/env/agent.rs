//! What the operator tells every agent by its environment.
//!
//! Invariant: a variable has the same name and meaning in each of them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::Env;
use crate::telemetry::Format;

/// What every agent needs: who it is, whom it dials with which credentials, what it logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Name of the node.
    pub node: String,
    /// Name of the own pod.
    pub pod: String,
    /// Namespace of the own pod.
    pub namespace: String,
    /// Address of the operator's Service, port 15012.
    pub operator: SocketAddr,
    /// PEM file that the operator's certificate is verified with.
    pub roots: PathBuf,
    /// File of the token for the operator.
    pub token: PathBuf,
    /// Filter of log lines, in the syntax of `RUST_LOG`.
    pub log_filter: String,
    /// Form of log lines.
    pub log_format: Format,
}

impl AgentConfig {
    /// Reads the variables; mistakes are recorded in `env`.
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
