//! Configuration from the environment.
//!
//! Invariant: all errors are reported at once, and nothing else reads the environment.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use ambit_proxy::{Defaults, ProxyConfig};
use ambit_runtime::{Env, Environment, env::EnvErrors};

/// Drain time when the pod's grace period is unknown.
const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Printed by `--help`.
pub const HELP: &str = "\
ztunnel carries the TCP traffic of the pods of one node that are in the mesh: mTLS between their workloads, L4 policy,
metrics and an access log. It is configured by its environment; the operator renders that into the DaemonSet.

Needed:
  NODE_NAME                          node it runs on (downward API: spec.nodeName)
  POD_NAME, POD_NAMESPACE            its own pod (downward API)
  AMBIT_OPERATOR_ADDRESS             ip:port of the operator's Service, port 15012

Usual defaults will do:
  INSTANCE_IP                        own address, for logs of the operator          [127.0.0.1]
  CLUSTER_ID                         cluster that its token belongs to              [Kubernetes]
  INPOD_UDS                          socket of the node agent                       [/run/ambit/zds/zds.sock]
  XDS_ROOT_CA                        PEM bundle that the operator is verified with  [/var/run/secrets/ambit/root-cert.pem]
  AUTH_TOKEN                         file with a token of audience istio-ca         [/var/run/secrets/tokens/istio-token]
  SECRET_TTL                         lifetime of certificates, e.g. 24h or 5400s    [24h]
  ZTUNNEL_WORKER_THREADS             threads that carry connections                 [a quarter of the cores, at least 2]
  TERMINATION_GRACE_PERIOD_SECONDS   as the pod's; 5 s less is waited for connections to end after SIGTERM
  RUST_LOG                           log filter, e.g. info,access=off,ambit_ztunnel=debug  [info]
  LOG_FORMAT                         text or json                                   [text]
  AMBIT_ACCESS_LOG                   Off, Errors or All                             [All]

Serves /healthz/ready on 15021 and /metrics on 15020. Ready once the node agent named its pods and the operator its
addresses and policies. SIGTERM stops accepting and waits for open connections; a second one exits at once.";

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Settings common to all proxies.
    pub proxy: ProxyConfig,
    /// The node agent's socket.
    pub agent: PathBuf,
}

impl Config {
    /// Parses the environment. `cores` is the number of CPU cores.
    ///
    /// # Errors
    /// Every variable that is missing or invalid.
    pub fn parse(environment: &dyn Environment, cores: NonZeroUsize) -> Result<Self, EnvErrors> {
        let mut env = Env::new(environment);
        // At least two, so that one busy connection does not block all others.
        let workers = NonZeroUsize::new((cores.get() / 4).max(2)).unwrap_or(NonZeroUsize::MIN);
        let defaults = Defaults { workers: ("ZTUNNEL_WORKER_THREADS", workers), drain: DRAIN_DEFAULT };
        let config = Self {
            proxy: ProxyConfig::parse(&mut env, defaults),
            agent: env.or("INPOD_UDS", PathBuf::from("/run/ambit/zds/zds.sock")),
        };
        env.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const CORES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const NEEDED: [(&str, &str); 4] = [
        ("NODE_NAME", "n1"),
        ("POD_NAME", "ztunnel-x"),
        ("POD_NAMESPACE", "ambit-system"),
        ("AMBIT_OPERATOR_ADDRESS", "10.96.0.7:15012"),
    ];

    #[test]
    fn the_needed_variables_are_enough() {
        let config = Config::parse(&environment(&NEEDED), CORES).unwrap();
        assert_eq!((config.proxy.workers.get(), config.proxy.drain), (4, DRAIN_DEFAULT));
        assert_eq!(config.agent, PathBuf::from("/run/ambit/zds/zds.sock"));
        let one = NonZeroUsize::MIN;
        assert_eq!(Config::parse(&environment(&NEEDED), one).unwrap().proxy.workers.get(), 2);
    }

    #[test]
    fn every_mistake_is_named_at_once_and_in_the_help() {
        let wrong = environment(&[
            ("AMBIT_OPERATOR_ADDRESS", "ambit-operator:15012"),
            ("INSTANCE_IP", "here"),
            ("ZTUNNEL_WORKER_THREADS", "65"),
            ("TERMINATION_GRACE_PERIOD_SECONDS", "30s"),
            ("LOG_FORMAT", "xml"),
            ("AMBIT_ACCESS_LOG", "some"),
            ("SECRET_TTL", "0"),
        ]);
        let errors = Config::parse(&wrong, CORES).unwrap_err().to_string();
        for name in [
            "NODE_NAME",
            "POD_NAME",
            "POD_NAMESPACE",
            "AMBIT_OPERATOR_ADDRESS=",
            "INSTANCE_IP=",
            "ZTUNNEL_WORKER_THREADS=",
            "TERMINATION_GRACE_PERIOD_SECONDS=",
            "LOG_FORMAT=",
            "AMBIT_ACCESS_LOG=",
            "SECRET_TTL=",
        ] {
            assert!(errors.contains(name), "{name} is not in {errors}");
            assert!(HELP.contains(name.trim_end_matches('=')), "{name} is not in the help");
        }
    }

    #[test]
    fn help_names_every_other_variable_that_is_read() {
        for name in ["CLUSTER_ID", "XDS_ROOT_CA", "AUTH_TOKEN", "RUST_LOG", "INPOD_UDS"] {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
