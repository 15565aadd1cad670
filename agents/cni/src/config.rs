//! Configuration from the environment, read once at start, and the paths that the operator's
//! DaemonSet mounts.

use ambit_runtime::{
    Env, Environment,
    env::{AgentConfig, EnvErrors},
};

/// Directory of the sockets. The same path on the node and in the container, so that it can be
/// written into the plugin's configuration.
pub(crate) const RUN_DIR: &str = "/run/ambit";
/// The CNI plugin's socket.
pub(crate) const CNI_SOCKET: &str = "/run/ambit/cni.sock";
/// Directory of the proxy's socket; the proxy mounts only this one.
pub(crate) const ZDS_DIR: &str = "/run/ambit/zds";
/// The proxy's socket.
pub(crate) const ZDS_SOCKET: &str = "/run/ambit/zds/zds.sock";
/// State that survives a reboot.
pub(crate) const STATE_DIR: &str = "/var/lib/ambit";
/// The plugin decides from this file while the agent is not running.
pub(crate) const STATE_FILE: &str = "/var/lib/ambit/enrolled.json";
/// Network configurations of the container runtime.
pub(crate) const CONF_DIR: &str = "/etc/cni/net.d";
/// Plugin binaries of the container runtime.
pub(crate) const BIN_DIR: &str = "/opt/cni/bin";
/// The plugin in this image.
pub(crate) const PLUGIN_SOURCE: &str = "/ambit-cni-plugin";
/// Pinned eBPF programs and maps.
pub(crate) const BPFFS_DIR: &str = "/sys/fs/bpf/ambit";

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Settings common to all agents.
    pub agent: AgentConfig,
    /// Port of `/healthz/ready`.
    pub health_port: u16,
    /// Port of `/metrics`.
    pub metrics_port: u16,
}

impl Config {
    /// Parses all variables.
    ///
    /// # Errors
    /// All invalid variables at once.
    pub fn parse(source: &dyn Environment) -> Result<Self, EnvErrors> {
        let mut env = Env::new(source);
        let config = Self {
            agent: AgentConfig::parse(&mut env),
            health_port: env.or("AMBIT_HEALTH_PORT", 15023),
            metrics_port: env.or("AMBIT_METRICS_PORT", 15022),
        };
        if config.health_port == config.metrics_port {
            let port = config.health_port.to_string();
            env.reject("AMBIT_METRICS_PORT", &port, "AMBIT_HEALTH_PORT has the same value");
        }
        env.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::PathBuf};

    use ambit_runtime::telemetry::Format;

    use super::*;

    #[test]
    fn defaults_hold_and_every_mistake_is_named_at_once() {
        let set = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let required = [
            ("NODE_NAME", "n"),
            ("POD_NAME", "p"),
            ("POD_NAMESPACE", "ambit-system"),
            ("AMBIT_OPERATOR_ADDRESS", "10.96.0.9:15012"),
        ];
        let config = Config::parse(&set(&required)).unwrap();
        assert_eq!((config.health_port, config.metrics_port), (15023, 15022));
        assert_eq!(config.agent.log_format, Format::Text);
        // The same names as those of the proxies.
        let named = [("LOG_FORMAT", "json"), ("XDS_ROOT_CA", "/roots"), ("AUTH_TOKEN", "/token")];
        let agent = Config::parse(&set(&[&required[..], &named].concat())).unwrap().agent;
        assert_eq!(agent.log_format, Format::Json);
        assert_eq!((agent.roots, agent.token), (PathBuf::from("/roots"), PathBuf::from("/token")));
        let errors = Config::parse(&set(&[
            ("AMBIT_OPERATOR_ADDRESS", "operator"),
            ("AMBIT_HEALTH_PORT", "1"),
            ("AMBIT_METRICS_PORT", "1"),
            ("LOG_FORMAT", "xml"),
        ]));
        let text = errors.unwrap_err().to_string();
        let wrong = [
            "NODE_NAME",
            "POD_NAME",
            "POD_NAMESPACE",
            "AMBIT_OPERATOR_ADDRESS",
            "AMBIT_METRICS_PORT",
            "LOG_FORMAT",
        ];
        for name in wrong {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
}
