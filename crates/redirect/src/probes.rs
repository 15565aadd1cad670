//! The data that the kubelet's probes may send to a pod without authorization, as keys of eBPF
//! maps.
//!
//! Invariant: a port is admitted only if the data sent by its probes is known. The kernel compares
//! prefixes, so each prefix is stored completely or not at all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ambit_redirect_common::{Opening, ProbePorts, REST};

/// Probes per pod; further ones are subject to policy as plaintext.
pub const PROBES_MAX: usize = 64;
/// The client connection preface of HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Start of a TLS handshake record, of any version (RFC 8446, 5.1).
const TLS_HANDSHAKE: &[u8] = b"\x16\x03";

/// One probe or lifecycle hook of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Port of the pod.
    pub port: u16,
    /// What the kubelet sends.
    pub sends: Sends,
}

/// What a probe sends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sends {
    /// Nothing: it only connects.
    Nothing,
    /// An HTTP/1.1 GET; the connection may carry only such requests.
    Get {
        /// The request target.
        target: String,
        /// The Host header; empty for the address and port of the connection.
        host: String,
    },
    /// HTTP/2 without TLS; only the preface can be compared.
    Http2,
    /// TLS; only the start of the handshake can be compared.
    Tls,
}

/// The map entries of one pod.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ports: ProbePorts,
    /// Prefix with its length in bits, and the value of the map.
    pub(crate) openings: BTreeMap<(u32, Opening), u32>,
}

impl Plan {
    pub(crate) fn new(cookie: u64, probes: &[Probe], addresses: &[IpAddr]) -> Self {
        let mut ports = std::collections::BTreeSet::new();
        let mut openings = BTreeMap::new();
        for probe in probes.iter().take(PROBES_MAX) {
            let beginnings = probe.sends.beginnings(probe.port, addresses);
            let known = beginnings.iter().filter_map(|(text, rest)| {
                let length = u32::try_from(text.len()).ok()?;
                Some(((Opening::bits(length), Opening::new(cookie, probe.port, text)?), *rest))
            });
            let before = openings.len();
            openings.extend(known);
            if probe.sends == Sends::Nothing || openings.len() > before {
                ports.insert(probe.port);
            } else if !ports.contains(&probe.port) {
                tracing::warn!(
                    cookie,
                    port = probe.port,
                    "A probe is too long to be compared and is subject to policy as plaintext"
                );
            }
        }
        Self { ports: ProbePorts::new(ports), openings }
    }
}

impl Sends {
    /// The admitted prefixes, each with its value in the map.
    fn beginnings(&self, port: u16, addresses: &[IpAddr]) -> Vec<(Vec<u8>, u32)> {
        let get = |target: &str, host: &str| {
            // Go writes Host right after the request line.
            (format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes(), 0)
        };
        match self {
            Self::Nothing => Vec::new(),
            Self::Get { target, host } if host.is_empty() => {
                let own = addresses.iter().map(|ip| SocketAddr::new(*ip, port).to_string());
                own.map(|host| get(target, &host)).collect()
            }
            Self::Get { target, host } => vec![get(target, host)],
            Self::Http2 => vec![(HTTP2_PREFACE.to_vec(), REST)],
            Self::Tls => vec![(TLS_HANDSHAKE.to_vec(), REST)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(probes: &[Probe]) -> Vec<(u32, String, u32)> {
        let addresses = ["10.1.0.5", "fd00::5"].map(|ip| ip.parse().unwrap());
        let plan = Plan::new(7, probes, &addresses);
        for probe in probes {
            assert!(plan.ports.contains(u32::from(probe.port)));
        }
        let text =
            |opening: &Opening| String::from_utf8_lossy(&opening.bytes).trim_end_matches('\0').to_owned();
        plan.openings
            .iter()
            .map(|((bits, opening), rest)| {
                let text = text(opening);
                assert_eq!(
                    *bits,
                    Opening::bits(
                        u32::try_from(opening.bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1)
                            .unwrap()
                    )
                );
                (opening.port, text, *rest)
            })
            .collect()
    }

    fn get(target: &str, host: &str) -> Sends {
        Sends::Get { target: target.into(), host: host.into() }
    }

    #[test]
    fn each_kind_of_probe_has_its_beginning() {
        let probe = |sends| [Probe { port: 80, sends }];
        assert_eq!(plan(&probe(Sends::Nothing)), []);
        let of_v4 = (80, "GET /healthz HTTP/1.1\r\nHost: 10.1.0.5:80\r\n".to_owned(), 0);
        let of_v6 = (80, "GET /healthz HTTP/1.1\r\nHost: [fd00::5]:80\r\n".to_owned(), 0);
        assert_eq!(plan(&probe(get("/healthz", ""))), [of_v4, of_v6]);
        let named = (80, "GET / HTTP/1.1\r\nHost: a.example\r\n".to_owned(), 0);
        assert_eq!(plan(&probe(get("/", "a.example"))), [named]);
        assert_eq!(plan(&probe(Sends::Http2)), [(80, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), REST)]);
        assert_eq!(plan(&probe(Sends::Tls)), [(80, "\u{16}\u{3}".to_owned(), REST)]);
    }

    #[test]
    fn a_probe_that_is_too_long_admits_nothing() {
        let long = Probe { port: 80, sends: get(&format!("/{}", "a".repeat(300)), "a") };
        let plan = Plan::new(7, std::slice::from_ref(&long), &[]);
        assert!(plan.openings.is_empty() && !plan.ports.contains(80));
        let also = Probe { port: 80, sends: get("/", "a") };
        let plan = Plan::new(7, &[also, long], &[]);
        assert!(plan.openings.len() == 1 && plan.ports.contains(80));
    }
}
