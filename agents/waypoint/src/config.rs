//! Configuration from the environment.
//!
//! Invariant: all mistakes are reported at once, and nothing else reads the environment.

use std::{num::NonZeroUsize, time::Duration};

use ambit_model::{DEFAULT_TRUST_DOMAIN, NamespacedName, Spiffe};
use ambit_proxy::{Defaults, ProxyConfig};
use ambit_runtime::{Env, Environment, env::EnvErrors};

/// How long draining lasts if the pod's grace period is not set.
const DRAIN_DEFAULT: Duration = Duration::from_secs(25);

/// Shown by `--help`.
pub const HELP: &str = "\
waypoint carries the traffic of the services that are bound to one Gateway: routing, resilience, authorization of
requests, metrics and an access log. It is configured by its environment; the operator renders that into the Deployment.

Needed:
  GATEWAY_NAME                       Gateway it serves; its namespace is POD_NAMESPACE
  POD_NAME, POD_NAMESPACE            its own pod (downward API)
  NODE_NAME                          node it runs on (downward API: spec.nodeName)
  AMBIT_OPERATOR_ADDRESS             ip:port of the operator's Service, port 15012

Usual defaults will do:
  INSTANCE_IP                        own address (downward API: status.podIP)       [127.0.0.1]
  SERVICE_ACCOUNT                    service account of its pod                     [the Gateway's name]
  TRUST_DOMAIN                       trust domain of the mesh                       [cluster.local]
  CLUSTER_ID                         cluster that its token belongs to              [Kubernetes]
  XDS_ROOT_CA                        PEM bundle that the operator is verified with  [/var/run/secrets/ambit/root-cert.pem]
  AUTH_TOKEN                         file with a token of audience istio-ca         [/var/run/secrets/tokens/istio-token]
  SECRET_TTL                         lifetime of certificates, e.g. 24h or 5400s    [24h]
  WAYPOINT_WORKER_THREADS            threads that carry connections                 [the cores it may use]
  TERMINATION_GRACE_PERIOD_SECONDS   as the pod's; 5 s less is waited for requests to end after SIGTERM  [30]
  RUST_LOG                           log filter, e.g. info,ambit_waypoint=debug     [info]
  LOG_FORMAT                         text or json                                   [text]
  AMBIT_ACCESS_LOG                   Off, Errors or All                             [All]
  OTEL_EXPORTER_OTLP_ENDPOINT        http://host:port that spans are sent to (OTLP over gRPC); unset sends none
  OTEL_TRACES_SAMPLER_ARG            share of traces begun here that is sampled, 0 to 1  [0.01]

Takes tunnels on 15008; serves /healthz/ready on 15021 and /metrics on 15020. Ready once it has its certificate and the
operator named its services, the mesh's addresses and policies. SIGTERM says GOAWAY and waits for requests to end; a
second one exits at once.";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Variables that ztunnel has too.
    pub proxy: ProxyConfig,
    /// The Gateway it serves: `namespace/name`.
    pub gateway: NamespacedName,
    /// Own pod.
    pub pod: NamespacedName,
    /// Own identity.
    pub identity: Spiffe,
    /// Where spans are sent; `None` sends none.
    pub tracing: Option<TracingConfig>,
}

/// Where spans are sent, and for which share of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// The collector, `http://host:port`.
    pub endpoint: String,
    /// Share of the traces begun here that is sampled, 0 to 1.
    pub sampled: f64,
}

impl Config {
    /// Reads the environment. `cores` is how many cores the process may use.
    ///
    /// # Errors
    /// Every variable that is missing or cannot be parsed.
    pub fn parse(environment: &dyn Environment, cores: NonZeroUsize) -> Result<Self, EnvErrors> {
        let mut env = Env::new(environment);
        let defaults = Defaults { workers: ("WAYPOINT_WORKER_THREADS", cores), drain: DRAIN_DEFAULT };
        let proxy = ProxyConfig::parse(&mut env, defaults);
        let namespace = proxy.namespace.as_str();
        let gateway: String = env.required("GATEWAY_NAME", "the Gateway this serves", String::new());
        let config = Self {
            identity: identity(&mut env, namespace, &gateway),
            gateway: NamespacedName::new(namespace, gateway),
            pod: NamespacedName::new(namespace, proxy.pod.as_str()),
            tracing: tracing_config(&mut env),
            proxy,
        };
        env.finish(config)
    }
}

fn identity(env: &mut Env<'_>, namespace: &str, gateway: &str) -> Spiffe {
    let account = env.or("SERVICE_ACCOUNT", gateway.to_owned());
    let domain = env.or("TRUST_DOMAIN", DEFAULT_TRUST_DOMAIN.to_owned());
    Spiffe { trust_domain: domain.into(), namespace: namespace.into(), service_account: account.into() }
}

fn tracing_config(env: &mut Env<'_>) -> Option<TracingConfig> {
    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const SAMPLED: &str = "OTEL_TRACES_SAMPLER_ARG";
    const SAMPLED_DEFAULT: f64 = 0.01;
    let endpoint: Option<String> = env.optional(ENDPOINT);
    let sampled = env.or(SAMPLED, SAMPLED_DEFAULT);
    if !(0.0..=1.0).contains(&sampled) {
        env.reject(SAMPLED, &sampled.to_string(), "a share, from 0 to 1");
    }
    if let Some(wrong) = endpoint.as_ref().filter(|url| !url.starts_with("http://")) {
        env.reject(ENDPOINT, wrong, "expected http://host:port");
    }
    endpoint.map(|endpoint| TracingConfig { endpoint, sampled })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const CORES: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    const NEEDED: [(&str, &str); 5] = [
        ("NODE_NAME", "n1"),
        ("POD_NAME", "waypoint-x"),
        ("POD_NAMESPACE", "shop"),
        ("GATEWAY_NAME", "waypoint"),
        ("AMBIT_OPERATOR_ADDRESS", "10.96.0.7:15012"),
    ];

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_needed_variables_are_enough() {
        let config = Config::parse(&environment(&NEEDED), CORES).unwrap();
        assert_eq!(config.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/waypoint");
        assert_eq!(config.gateway, NamespacedName::new("shop", "waypoint"));
        let Config { proxy, tracing, .. } = config;
        assert_eq!((proxy.workers, proxy.drain, tracing), (CORES, DRAIN_DEFAULT, None));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let wrong = environment(&[
            ("AMBIT_OPERATOR_ADDRESS", "ambit-operator:15012"),
            ("WAYPOINT_WORKER_THREADS", "65"),
            ("LOG_FORMAT", "xml"),
            ("AMBIT_ACCESS_LOG", "some"),
            ("SECRET_TTL", "0"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ]);
        let errors = Config::parse(&wrong, CORES).unwrap_err().to_string();
        for name in [
            "NODE_NAME",
            "POD_NAME",
            "POD_NAMESPACE",
            "GATEWAY_NAME",
            "AMBIT_OPERATOR_ADDRESS=",
            "WAYPOINT_WORKER_THREADS=",
            "LOG_FORMAT=",
            "AMBIT_ACCESS_LOG=",
            "SECRET_TTL=",
            "OTEL_EXPORTER_OTLP_ENDPOINT=",
            "OTEL_TRACES_SAMPLER_ARG=",
        ] {
            assert!(errors.contains(name), "{name} is not in {errors}");
            assert!(HELP.contains(name.trim_end_matches('=')), "{name} is not in the help");
        }
    }
}
