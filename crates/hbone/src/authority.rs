//! The `:authority` of a CONNECT: `ip:port`, `[v6]:port` or `host:port`.
//!
//! Invariant: a parsed value prints as the same bytes, except for the spelling of IPv6 addresses.
//! Parsing is strict: no default port, no bare IPv6 address, no user info, no zone.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// Maximum length of a name (RFC 1035 2.3.4).
const NAME_MAX_BYTES: usize = 253;
/// Maximum length of a label (RFC 1035 2.3.4).
const LABEL_MAX_BYTES: usize = 63;

/// The host part of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address of a workload or service.
    Ip(IpAddr),
    /// A DNS name in lower case.
    Name(Arc<str>),
}

/// The target of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Address or name.
    pub host: Host,
    /// TCP port, never 0.
    pub port: u16,
}

/// The string is not an authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not ip:port, [v6]:port or host:port")]
pub struct InvalidAuthority(pub String);

impl Authority {}

impl From<SocketAddr> for Authority {
    fn from(addr: SocketAddr) -> Self {
        Self { host: Host::Ip(addr.ip()), port: addr.port() }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, InvalidAuthority> {
        parse(text).ok_or_else(|| InvalidAuthority(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Authority> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(v6) => Host::Ip(v6?.parse::<Ipv6Addr>().ok()?.into()),
        None => match host.parse::<Ipv4Addr>() {
            Ok(v4) => Host::Ip(v4.into()),
            Err(_) => Host::Name(name(host)?.into()),
        },
    };
    Some(Authority { host, port: port_number(port)? })
}

/// Digits only, without leading zeros: `u16::from_str` would accept a sign, and leading zeros would
/// allow two spellings.
fn port_number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// Validates a DNS name. A name whose last label is a number is a mistyped address (WHATWG URL
/// 3.5).
fn name(text: &str) -> Option<&str> {
    let label = |l: &str| {
        (1..=LABEL_MAX_BYTES).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    let numeric = text.rsplit('.').next()?.bytes().all(|b| b.is_ascii_digit());
    (text.len() <= NAME_MAX_BYTES && !numeric && text.split('.').all(label)).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_it_prints() {
        for text in ["10.0.0.1:80", "[fd00::1]:8080", "cart.shop.svc.cluster.local:65535", "a_b:1"] {
            assert_eq!(text.parse::<Authority>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_not_exactly_an_authority() {
        for bad in [
            "",
            ":",
            ":80",
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:080",
            "10.0.0.1:+80",
            "10.0.0.1:65536",
            "10.0.0.1:80:80",
            "10.0.0:80",
            "10.0.0.256:80",
            "010.0.0.1:80",
            "fd00::1:80",
            "[fd00::1]80",
            "[fd00::1:80",
            "[fe80::1%eth0]:80",
            "[10.0.0.1]:80",
            "[]:80",
            "user@host:80",
            "a..b:80",
            ".a:80",
            "a.:80",
            "-a:80",
            "a-:80",
            "A:80",
            "a b:80",
            "a\0:80",
            "a/b:80",
            "http://a:80",
            "é:80",
            " a:80",
            "a:80 ",
        ] {
            assert_eq!(bad.parse::<Authority>(), Err(InvalidAuthority(bad.to_owned())), "{bad:?}");
        }
        let label = "a".repeat(64);
        assert!(format!("{label}:80").parse::<Authority>().is_err());
    }

    proptest! {
        #[test]
        fn any_address_survives_a_round_trip(ip: IpAddr, port in 1..=u16::MAX) {
            let authority = Authority::from(SocketAddr::new(ip, port));
            prop_assert_eq!(authority.to_string().parse::<Authority>(), Ok(authority));
        }

        #[test]
        fn no_input_panics_and_what_parses_is_stable(text in "\\PC{0,40}") {
            if let Ok(authority) = text.parse::<Authority>() {
                prop_assert_eq!(authority.to_string().parse::<Authority>(), Ok(authority));
            }
        }

        #[test]
        fn names_survive_a_round_trip(name in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,4}", port in 1..=u16::MAX) {
            let text = format!("{name}:{port}");
            prop_assert_eq!(text.parse::<Authority>().map(|a| a.to_string()), Ok(text));
        }
    }
}
