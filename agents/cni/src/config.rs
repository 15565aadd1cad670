//! What the environment says, read once at start.

use std::{net::SocketAddr, path::PathBuf};

use ambit_runtime::{Env, Environment, env::EnvErrors, telemetry::Format};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node_name: String,
    /// This pod.
    pub pod_name: String,
    /// Its namespace: that of the mesh's own pods.
    pub namespace: String,
    /// The operator.
    pub operator_address: SocketAddr,
    /// Name in its certificate.
    pub operator_name: String,
    /// Root certificates.
    pub roots_path: PathBuf,
    /// Token.
    pub token_path: PathBuf,
    /// Port of `/healthz/ready`.
    pub health_port: u16,
    /// Port of `/metrics`.
    pub metrics_port: u16,
    /// Sockets.
    pub run_dir: PathBuf,
    /// What survives a reboot.
    pub state_dir: PathBuf,
    /// Network configurations.
    pub conf_dir: PathBuf,
    /// Plugin binaries.
    pub bin_dir: PathBuf,
    /// The plugin in this image.
    pub plugin_source: PathBuf,
    /// Pins.
    pub bpffs_dir: PathBuf,
    /// The cgroup v2 mount of the node; found by itself when absent.
    pub cgroup_root: Option<PathBuf>,
    /// Filter of log lines.
    pub log_filter: String,
    /// Form of log lines.
    pub log_format: Format,
}

impl Config {
    /// Reads all variables.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(source: &dyn Environment) -> Result<Self, EnvErrors> {
        let mut env = Env::new(source);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let path = |env: &mut Env<'_>, name: &str, default: &str| env.or(name, PathBuf::from(default));
        let config = Self {
            node_name: env.required("NODE_NAME", "the node this runs on (spec.nodeName)", String::new()),
            pod_name: env.required("POD_NAME", "the pod this runs in (metadata.name)", String::new()),
            namespace: env.or("POD_NAMESPACE", "ambit-system".to_owned()),
            operator_address: env.required("AMBIT_OPERATOR_ADDRESS", "ip:port of the operator", nowhere),
            operator_name: env.or("AMBIT_OPERATOR_NAME", "ambit-operator.ambit-system.svc".to_owned()),
            roots_path: path(&mut env, "AMBIT_ROOTS_PATH", "/var/run/secrets/ambit/root-cert.pem"),
            token_path: path(&mut env, "AMBIT_TOKEN_PATH", "/var/run/secrets/tokens/istio-token"),
            health_port: env.or("AMBIT_HEALTH_PORT", 15023),
            metrics_port: env.or("AMBIT_METRICS_PORT", 15022),
            run_dir: path(&mut env, "AMBIT_RUN_DIR", "/run/ambit"),
            state_dir: path(&mut env, "AMBIT_STATE_DIR", "/var/lib/ambit"),
            conf_dir: path(&mut env, "AMBIT_CNI_CONF_DIR", "/etc/cni/net.d"),
            bin_dir: path(&mut env, "AMBIT_CNI_BIN_DIR", "/opt/cni/bin"),
            plugin_source: path(&mut env, "AMBIT_PLUGIN_SOURCE", "/ambit-cni-plugin"),
            bpffs_dir: path(&mut env, "AMBIT_BPFFS_DIR", "/sys/fs/bpf/ambit"),
            cgroup_root: env.optional("AMBIT_CGROUP_ROOT"),
            log_filter: env.or("RUST_LOG", "info".to_owned()),
            log_format: env.or("AMBIT_LOG_FORMAT", Format::Text),
        };
        if config.health_port == config.metrics_port {
            let port = config.health_port.to_string();
            env.reject("AMBIT_METRICS_PORT", &port, "it is also AMBIT_HEALTH_PORT");
        }
        env.finish(config)
    }

    /// The CNI plugin's socket.
    pub fn cni_socket(&self) -> PathBuf {
        self.run_dir.join("cni.sock")
    }

    /// The proxy's socket, in a directory of its own that the proxy mounts.
    pub fn zds_socket(&self) -> PathBuf {
        self.run_dir.join("zds").join("zds.sock")
    }

    /// The plugin's fallback while the agent is away.
    pub fn state_file(&self) -> PathBuf {
        self.state_dir.join("enrolled.json")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn defaults_hold_and_every_mistake_is_named_at_once() {
        let set = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let required = [("NODE_NAME", "n"), ("POD_NAME", "p"), ("AMBIT_OPERATOR_ADDRESS", "10.96.0.9:15012")];
        let config = Config::parse(&set(&required)).unwrap();
        assert_eq!((config.health_port, config.metrics_port), (15023, 15022));
        assert_eq!(config.zds_socket(), PathBuf::from("/run/ambit/zds/zds.sock"));
        assert_eq!(config.state_file(), PathBuf::from("/var/lib/ambit/enrolled.json"));
        let errors = Config::parse(&set(&[
            ("AMBIT_OPERATOR_ADDRESS", "operator"),
            ("AMBIT_HEALTH_PORT", "1"),
            ("AMBIT_METRICS_PORT", "1"),
        ]));
        let text = errors.unwrap_err().to_string();
        for name in ["NODE_NAME", "POD_NAME", "AMBIT_OPERATOR_ADDRESS", "AMBIT_METRICS_PORT"] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
}
