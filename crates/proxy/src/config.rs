//! The environment variables that both proxies read.
//!
//! Invariant: a variable means the same to each of them; what differs is a default.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ambit_identity::client::TTL;
use ambit_runtime::{Env, env::AgentConfig, lines::Logged, telemetry::Format};
use ambit_xds::{Node, Proxy};
use jiff::SignedDuration;

/// Rest of the grace period, for cutting connections and ending the process.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// More threads than this only cost memory.
const WORKERS_MAX: usize = 64;

/// Defaults that depend on the kind of proxy.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Name of the variable for the number of threads that carry connections, and its default.
    pub workers: (&'static str, NonZeroUsize),
    /// How long draining lasts if the pod's grace period is not set.
    pub drain: Duration,
}

/// Configuration of either proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Node.
    pub node: String,
    /// Own pod.
    pub pod: String,
    /// Namespace of the own pod.
    pub namespace: String,
    /// Own address.
    pub instance_ip: IpAddr,
    /// Cluster of the token.
    pub cluster_id: String,
    /// The operator.
    pub operator: SocketAddr,
    /// Roots of the operator's certificate.
    pub roots: PathBuf,
    /// Token for the operator.
    pub token: PathBuf,
    /// Lifetime of the certificates that are requested.
    pub certificate_ttl: Duration,
    /// Threads that carry connections.
    pub workers: NonZeroUsize,
    /// How long draining lasts after SIGTERM.
    pub drain: Duration,
    /// Log filter.
    pub log_filter: String,
    /// Log format.
    pub log_format: Format,
    /// Which connections and requests the access log has.
    pub access_log: Logged,
}

impl ProxyConfig {
    /// Reads the variables; mistakes are recorded in `env`.
    pub fn parse(env: &mut Env<'_>, defaults: Defaults) -> Self {
        let AgentConfig { node, pod, namespace, operator, roots, token, log_filter, log_format } =
            AgentConfig::parse(env);
        let grace: Option<u64> = env.optional("TERMINATION_GRACE_PERIOD_SECONDS");
        Self {
            node,
            pod,
            namespace,
            instance_ip: env.or("INSTANCE_IP", Ipv4Addr::LOCALHOST.into()),
            cluster_id: env.or("CLUSTER_ID", "Kubernetes".to_owned()),
            operator,
            roots,
            token,
            certificate_ttl: env.or("SECRET_TTL", Ttl(TTL)).0,
            workers: workers(env, defaults.workers),
            drain: grace.map_or(defaults.drain, drain_time),
            log_filter,
            log_format,
            access_log: env.or("AMBIT_ACCESS_LOG", Logged::All),
        }
    }

    /// The subscriber as the operator sees it; `kind` is `ztunnel` or `waypoint`.
    pub fn subscriber(&self, kind: &str) -> Node {
        Node::from(Proxy {
            kind,
            ip: self.instance_ip,
            pod: &self.pod,
            namespace: &self.namespace,
            node: &self.node,
            cluster_id: &self.cluster_id,
        })
    }
}

/// A lifetime as Istio writes it: `24h`, `1h30m`, `5400s`.
struct Ttl(Duration);

impl FromStr for Ttl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "expected hours, minutes or seconds, such as 24h or 1h30m, and at least one second";
        let read = text.parse::<SignedDuration>().ok().and_then(|read| Duration::try_from(read).ok());
        read.filter(|ttl| ttl.as_secs() > 0).map(Self).ok_or(WRONG)
    }
}

fn workers(env: &mut Env<'_>, (name, default): (&str, NonZeroUsize)) -> NonZeroUsize {
    let default = default.min(NonZeroUsize::new(WORKERS_MAX).unwrap_or(NonZeroUsize::MIN));
    let wanted = env.or(name, default);
    if wanted.get() > WORKERS_MAX {
        env.reject(name, &wanted.to_string(), format!("at most {WORKERS_MAX}"));
    }
    wanted
}

/// Istio's rule: what is left of the grace period once the process has had time to end.
fn drain_time(grace_seconds: u64) -> Duration {
    let grace = Duration::from_secs(grace_seconds);
    let margin = if grace > DRAIN_MARGIN * 2 { DRAIN_MARGIN } else { Duration::from_secs(1) };
    grace.saturating_sub(margin).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ambit_runtime::env::EnvErrors;

    use super::*;

    const DRAIN: Duration = Duration::from_secs(7);
    const NEEDED: [(&str, &str); 4] = [
        ("NODE_NAME", "n1"),
        ("POD_NAME", "proxy-x"),
        ("POD_NAMESPACE", "shop"),
        ("AMBIT_OPERATOR_ADDRESS", "10.96.0.7:15012"),
    ];

    fn parsed(pairs: &[(&str, &str)], cores: usize) -> Result<ProxyConfig, EnvErrors> {
        let environment: HashMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut env = Env::new(&environment);
        let defaults = Defaults { workers: ("THREADS", NonZeroUsize::new(cores).unwrap()), drain: DRAIN };
        let config = ProxyConfig::parse(&mut env, defaults);
        env.finish(config)
    }

    #[test]
    fn the_needed_variables_are_enough() {
        let config = parsed(&NEEDED, 4).unwrap();
        assert_eq!((config.node.as_str(), config.pod.as_str()), ("n1", "proxy-x"));
        assert_eq!((config.workers.get(), config.drain), (4, DRAIN));
        assert_eq!(config.operator, "10.96.0.7:15012".parse().unwrap());
        assert_eq!(config.access_log, Logged::All);
        assert_eq!(parsed(&NEEDED, 500).unwrap().workers.get(), WORKERS_MAX);
        let with = |name, value| parsed(&[&NEEDED[..], &[(name, value)]].concat(), 4).unwrap();
        assert_eq!(with("TERMINATION_GRACE_PERIOD_SECONDS", "30").drain, Duration::from_secs(25));
        assert_eq!(with("THREADS", "3").workers.get(), 3);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let wrong = [
            ("AMBIT_OPERATOR_ADDRESS", "ambit-operator:15012"),
            ("THREADS", "65"),
            ("LOG_FORMAT", "xml"),
            ("AMBIT_ACCESS_LOG", "some"),
            ("SECRET_TTL", "0"),
            ("INSTANCE_IP", "here"),
            ("TERMINATION_GRACE_PERIOD_SECONDS", "30s"),
        ];
        let errors = parsed(&wrong, 4).unwrap_err().to_string();
        for missing in ["NODE_NAME", "POD_NAME", "POD_NAMESPACE"] {
            assert!(errors.contains(&format!("{missing} is not set")), "{missing} is not in {errors}");
        }
        for (name, _) in wrong {
            assert!(errors.contains(&format!("{name}=")), "{name} is not in {errors}");
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
        let cases = [("24h", 86400), ("1h30m0s", 5400), ("86400s", 86400)];
        assert!(cases.iter().all(|(text, seconds)| read(text) == Some(*seconds)));
        for wrong in ["", "0s", "86400", "1d", "-1h", "h", "99999999999999999999h"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
