//! Strict decoding of single values.
//!
//! Invariant: a value that the model cannot represent is an error that names its field, never a
//! default.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ambit_model::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use ambit_proto::workload as wire;

use crate::DecodeError;

/// An invalid field; the resource's name is added later.
#[derive(Debug)]
pub(crate) struct Invalid {
    field: &'static str,
    reason: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }

    pub(crate) fn of(self, name: &str) -> DecodeError {
        DecodeError { name: name.to_owned(), field: self.field, reason: self.reason }
    }
}

pub(crate) fn required(field: &'static str, text: String) -> Result<Arc<str>, Invalid> {
    if text.is_empty() { Err(Invalid::new(field, "is empty")) } else { Ok(text.into()) }
}

/// What may not be left out; a oneof that seems to be is of a kind that is not known.
pub(crate) fn present<T>(field: &'static str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "is missing or of an unknown kind"))
}

/// A header name in the form of HTTP/2 (RFC 9113 8.2).
pub(crate) fn header(field: &'static str, name: String) -> Result<Arc<str>, Invalid> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Invalid::new(field, format!("header {name:?} is not in lower case")));
    }
    required(field, name)
}

pub(crate) fn status(field: &'static str, number: u32) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(status @ 100..=599) => Ok(status),
        Ok(_) | Err(_) => Err(Invalid::new(field, format!("{number} is not an HTTP status"))),
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn duration(field: &'static str, millis: i64) -> Result<Duration, Invalid> {
    let millis =
        u64::try_from(millis).map_err(|_| Invalid::new(field, format!("{millis} ms is negative")))?;
    Ok(Duration::from_millis(millis))
}

pub(crate) fn optional_duration(
    field: &'static str,
    millis: Option<i64>,
) -> Result<Option<Duration>, Invalid> {
    millis.map(|millis| duration(field, millis)).transpose()
}

pub(crate) fn text(value: Option<&Arc<str>>) -> Option<String> {
    value.map(ToString::to_string)
}

pub(crate) fn texts(values: &[Arc<str>]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(crate) fn list<W, T>(
    values: impl IntoIterator<Item = W>,
    read: impl Fn(W) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    values.into_iter().map(read).collect()
}

pub(crate) fn or_default(text: String, default: &str) -> Arc<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

/// Rejects numbers that `prost` does not know.
pub(crate) fn enumeration<T: TryFrom<i32>>(field: &'static str, number: i32) -> Result<T, Invalid> {
    T::try_from(number).map_err(|_| Invalid::new(field, format!("value {number} is not known")))
}

pub(crate) fn port(field: &'static str, number: u32) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(Invalid::new(field, format!("{number} is not a port"))),
    }
}

pub(crate) fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Invalid> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let any = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    any.map(|ip| ip.to_canonical())
        .map_err(|_| Invalid::new(field, format!("{} bytes are not an address", bytes.len())))
}

pub(crate) fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Decodes `namespace/name`; the namespace may be empty for mesh-wide resources.
pub(crate) fn key(field: &'static str, text: &str) -> Result<NamespacedName, Invalid> {
    match text.split_once('/') {
        Some((namespace, name)) if !name.is_empty() && !name.contains('/') => {
            Ok(NamespacedName::new(namespace, name))
        }
        Some(_) | None => Err(Invalid::new(field, format!("{text:?} is not namespace/name"))),
    }
}

pub(crate) fn network_address(
    field: &'static str,
    address: wire::NetworkAddress,
) -> Result<NetworkAddress, Invalid> {
    let ip = ip(field, &address.address)?;
    let whole = if address.address.len() == 4 { 32 } else { 128 };
    match address.length {
        Some(length) if length != whole => {
            Err(Invalid::new(field, format!("{ip}/{length}: ranges of addresses are not supported")))
        }
        Some(_) | None => Ok(NetworkAddress { network: address.network.into(), address: ip }),
    }
}

pub(crate) fn network_address_message(address: &NetworkAddress) -> wire::NetworkAddress {
    wire::NetworkAddress {
        network: address.network.to_string(),
        address: ip_bytes(address.address),
        length: None,
    }
}

pub(crate) fn gateway(field: &'static str, gateway: wire::GatewayAddress) -> Result<GatewayAddress, Invalid> {
    use wire::gateway_address::Destination;
    let destination = match gateway.destination {
        Some(Destination::Hostname(name)) => GatewayDestination::Hostname(NamespacedName {
            namespace: name.namespace.into(),
            name: required(field, name.hostname)?,
        }),
        Some(Destination::Address(address)) => GatewayDestination::Address(network_address(field, address)?),
        None => return Err(Invalid::new(field, "has no destination")),
    };
    Ok(GatewayAddress { destination, hbone_mtls_port: port(field, gateway.hbone_mtls_port)? })
}

pub(crate) fn gateway_message(gateway: &GatewayAddress) -> wire::GatewayAddress {
    use wire::gateway_address::Destination;
    let destination = match &gateway.destination {
        GatewayDestination::Hostname(name) => Destination::Hostname(wire::NamespacedHostname {
            namespace: name.namespace.to_string(),
            hostname: name.name.to_string(),
        }),
        GatewayDestination::Address(address) => Destination::Address(network_address_message(address)),
    };
    wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: gateway.hbone_mtls_port.into() }
}
