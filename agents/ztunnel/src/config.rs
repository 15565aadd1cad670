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

use ambit_runtime::{Env, Environment, env::EnvErrors, telemetry};

use crate::access_log::Which;

/// How long open connections are waited for when nothing says how long the pod's grace period is.
const DRAIN_DEFAULT: Duration = Duration::from_secs(5);
/// Of the grace period, what is left for cutting connections and ending the process.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// More threads than this only cost memory.
const WORKERS_MAX: usize = 64;

/// Shown by `--help`.
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

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
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
    /// The node agent's socket.
    pub agent: PathBuf,
    /// Roots of the operator's certificate.
    pub roots: PathBuf,
    /// Token for the operator.
    pub token: PathBuf,
    /// Lifetime of certificates to ask for.
    pub certificate_ttl: Duration,
    /// Threads that carry connections.
    pub workers: NonZeroUsize,
    /// How long open connections are waited for after SIGTERM.
    pub drain: Duration,
    /// Log filter.
    pub log_filter: String,
    /// Log format.
    pub log_format: telemetry::Format,
    /// Which connections are logged.
    pub access_log: Which,
}

impl Config {
    /// Reads the environment. `cores` is what the machine has.
    ///
    /// # Errors
    /// Every variable that is missing or cannot be parsed.
    pub fn parse(environment: &dyn Environment, cores: NonZeroUsize) -> Result<Self, EnvErrors> {
        let mut env = Env::new(environment);
        let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let grace: Option<u64> = env.optional("TERMINATION_GRACE_PERIOD_SECONDS");
        let ttl = env.or("SECRET_TTL", Ttl(ambit_identity::client::TTL));
        let config = Self {
            node: env.required("NODE_NAME", "the node this runs on (downward API)", String::new()),
            pod: env.required("POD_NAME", "this pod's name (downward API)", String::new()),
            namespace: env.required("POD_NAMESPACE", "this pod's namespace (downward API)", String::new()),
            instance_ip: env.or("INSTANCE_IP", Ipv4Addr::LOCALHOST.into()),
            cluster_id: env.or("CLUSTER_ID", "Kubernetes".to_owned()),
            operator: env.required(
                "AMBIT_OPERATOR_ADDRESS",
                "ip:port of the operator's Service, port 15012",
                none,
            ),
            agent: env.or("INPOD_UDS", PathBuf::from("/run/ambit/zds/zds.sock")),
            roots: env.or("XDS_ROOT_CA", PathBuf::from("/var/run/secrets/ambit/root-cert.pem")),
            token: env.or("AUTH_TOKEN", PathBuf::from("/var/run/secrets/tokens/istio-token")),
            certificate_ttl: ttl.0,
            workers: workers(&mut env, cores),
            drain: grace.map_or(DRAIN_DEFAULT, drain_time),
            log_filter: env.or("RUST_LOG", "info".to_owned()),
            log_format: env.or("LOG_FORMAT", telemetry::Format::Text),
            access_log: env.or("AMBIT_ACCESS_LOG", Which::All),
        };
        env.finish(config)
    }
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
    const NAME: &str = "ZTUNNEL_WORKER_THREADS";
    // Two at least, so that one busy connection never holds up all others.
    let default = NonZeroUsize::new((cores.get() / 4).max(2)).unwrap_or(NonZeroUsize::MIN);
    let wanted = env.or(NAME, default);
    if wanted.get() > WORKERS_MAX {
        env.reject(NAME, &wanted.to_string(), format!("at most {WORKERS_MAX}"));
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
        assert_eq!((config.workers.get(), config.drain), (4, DRAIN_DEFAULT));
        assert_eq!(config.operator, "10.96.0.7:15012".parse().unwrap());
        assert_eq!(config.access_log, Which::All);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let wrong = environment(&[
            ("AMBIT_OPERATOR_ADDRESS", "ambit-operator:15012"),
            ("ZTUNNEL_WORKER_THREADS", "65"),
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
            "ZTUNNEL_WORKER_THREADS=",
            "LOG_FORMAT=",
            "AMBIT_ACCESS_LOG=",
            "SECRET_TTL=",
        ] {
            assert!(errors.contains(name), "{name} is not in {errors}");
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
        for wrong in ["", "0s", "86400", "1d", "-1h", "h", "99999999999999999999h", "24 h"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn help_names_every_variable_that_is_read() {
        for name in ["NODE_NAME", "INSTANCE_IP", "SECRET_TTL", "RUST_LOG", "AMBIT_ACCESS_LOG", "INPOD_UDS"] {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
