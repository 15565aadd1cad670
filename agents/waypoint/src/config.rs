//! What the environment says.
//!
//! Invariant: all mistakes are reported at once, and nothing else reads the environment.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ambit_model::{DEFAULT_TRUST_DOMAIN, NamespacedName, Spiffe};
use ambit_runtime::{Env, Environment, env::EnvErrors, telemetry};

/// How long open requests are waited for when nothing says how long the pod's grace period is.
const DRAIN_DEFAULT: Duration = Duration::from_secs(25);
/// Of the grace period, what is left for cutting connections and ending the process.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// More threads than this only cost memory.
const WORKERS_MAX: usize = 64;

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
  OTEL_EXPORTER_OTLP_ENDPOINT        http://host:port that spans go to (OTLP over gRPC); none sends none
  OTEL_TRACES_SAMPLER_ARG            share of traces begun here that is sampled, 0 to 1  [0.01]

Takes tunnels on 15008; serves /healthz/ready on 15021 and /metrics on 15020. Ready once it has its certificate and the
operator named its services, the mesh's addresses and policies. SIGTERM says GOAWAY and waits for requests to end; a
second one exits at once.";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The Gateway: `namespace/name`.
    pub gateway: NamespacedName,
    /// Own pod.
    pub pod: NamespacedName,
    /// Node.
    pub node: String,
    /// Own address.
    pub instance_ip: IpAddr,
    /// Own identity.
    pub identity: Spiffe,
    /// Cluster of the token.
    pub cluster_id: String,
    /// The operator.
    pub operator: SocketAddr,
    /// Roots of the operator's certificate.
    pub roots: PathBuf,
    /// Token for the operator.
    pub token: PathBuf,
    /// Lifetime of certificates to ask for.
    pub certificate_ttl: Duration,
    /// Threads that carry connections.
    pub workers: NonZeroUsize,
    /// How long open requests are waited for after SIGTERM.
    pub drain: Duration,
    /// Log filter.
    pub log_filter: String,
    /// Log format.
    pub log_format: telemetry::Format,
    /// Which requests are logged.
    pub access_log: Logged,
    /// Where spans go.
    pub tracing: Option<TracingConfig>,
}

/// Which requests and connections get a line in the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logged {
    /// None.
    Off,
    /// Those that failed: 5xx, or no answer.
    Errors,
    /// All.
    #[default]
    All,
}

impl FromStr for Logged {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "Off" => Ok(Self::Off),
            "Errors" => Ok(Self::Errors),
            "All" => Ok(Self::All),
            _ => Err("expected Off, Errors or All"),
        }
    }
}

/// Where spans go, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// The collector, `http://host:port`.
    pub endpoint: String,
    /// Share of the traces begun here that is sampled, 0 to 1.
    pub sampled: f64,
}

impl Config {
    /// Reads the environment. `cores` is what the process may use.
    ///
    /// # Errors
    /// Every variable that is missing or cannot be parsed.
    pub fn parse(environment: &dyn Environment, cores: NonZeroUsize) -> Result<Self, EnvErrors> {
        let mut env = Env::new(environment);
        let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let grace: Option<u64> = env.optional("TERMINATION_GRACE_PERIOD_SECONDS");
        let ttl = env.or("SECRET_TTL", Ttl(ambit_identity::client::TTL));
        let namespace: String =
            env.required("POD_NAMESPACE", "this pod's namespace (downward API)", String::new());
        let pod: String = env.required("POD_NAME", "this pod's name (downward API)", String::new());
        let gateway: String = env.required("GATEWAY_NAME", "the Gateway this serves", String::new());
        let config = Self {
            identity: identity(&mut env, &namespace, &gateway),
            gateway: NamespacedName::new(namespace.as_str(), gateway),
            pod: NamespacedName::new(namespace.as_str(), pod),
            node: env.required("NODE_NAME", "the node this runs on (downward API)", String::new()),
            instance_ip: env.or("INSTANCE_IP", Ipv4Addr::LOCALHOST.into()),
            cluster_id: env.or("CLUSTER_ID", "Kubernetes".to_owned()),
            operator: env.required(
                "AMBIT_OPERATOR_ADDRESS",
                "ip:port of the operator's Service, port 15012",
                none,
            ),
            roots: env.or("XDS_ROOT_CA", PathBuf::from("/var/run/secrets/ambit/root-cert.pem")),
            token: env.or("AUTH_TOKEN", PathBuf::from("/var/run/secrets/tokens/istio-token")),
            certificate_ttl: ttl.0,
            workers: workers(&mut env, cores),
            drain: grace.map_or(DRAIN_DEFAULT, drain_time),
            log_filter: env.or("RUST_LOG", "info".to_owned()),
            log_format: env.or("LOG_FORMAT", telemetry::Format::Text),
            access_log: env.or("AMBIT_ACCESS_LOG", Logged::All),
            tracing: tracing_config(&mut env),
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

/// A lifetime as Istio writes it: `24h`, `1h30m`, `5400s`.
struct Ttl(Duration);

impl FromStr for Ttl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "expected whole hours, minutes or seconds, such as 24h or 1h30m, and more than nothing";
        let mut seconds: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
            let (number, unit) = rest.split_at(digits);
            let factor = match unit.chars().next() {
                Some('h') => 3600,
                Some('m') => 60,
                Some('s') => 1,
                _ => return Err(WRONG),
            };
            let part =
                number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or(WRONG)?;
            seconds = seconds.checked_add(part).ok_or(WRONG)?;
            rest = unit.get(1..).unwrap_or_default();
        }
        if seconds == 0 { Err(WRONG) } else { Ok(Self(Duration::from_secs(seconds))) }
    }
}

fn workers(env: &mut Env<'_>, cores: NonZeroUsize) -> NonZeroUsize {
    const NAME: &str = "WAYPOINT_WORKER_THREADS";
    let wanted = env.or(NAME, cores.min(NonZeroUsize::new(WORKERS_MAX).unwrap_or(NonZeroUsize::MIN)));
    if wanted.get() > WORKERS_MAX {
        env.reject(NAME, &wanted.to_string(), format!("at most {WORKERS_MAX}"));
    }
    wanted
}

/// What is left of the grace period once the process has had time to end.
fn drain_time(grace_seconds: u64) -> Duration {
    let grace = Duration::from_secs(grace_seconds);
    let margin = if grace > DRAIN_MARGIN * 2 { DRAIN_MARGIN } else { Duration::from_secs(1) };
    grace.saturating_sub(margin).max(Duration::from_secs(1))
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
        assert_eq!((config.workers, config.drain, config.tracing), (CORES, DRAIN_DEFAULT, None));
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

    #[test]
    fn drains_as_long_as_the_grace_period_lets() {
        let seconds = [0, 1, 2, 10, 11, 30].map(|grace| drain_time(grace).as_secs());
        assert_eq!(seconds, [1, 1, 1, 9, 6, 25]);
    }

    #[test]
    fn lifetimes_are_read_as_istio_writes_them() {
        let read = |text: &str| text.parse::<Ttl>().ok().map(|ttl| ttl.0.as_secs());
        assert_eq!(
            [read("24h"), read("1h30m0s"), read("0s"), read("1d")],
            [Some(86400), Some(5400), None, None]
        );
    }
}
