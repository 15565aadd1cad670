//! Encode and decode workloads, services and policies, and what a waypoint does with a service.
//!
//! Invariant: decoding is strict. A resource is understood whole or refused with the field that was not, because a
//! policy read loosely is a policy enforced loosely. What the wire leaves out is filled in here and nowhere else.

mod bound;
mod field;
mod policy;
mod service;
#[cfg(test)]
mod tests;
mod workload;

use std::{net::IpAddr, sync::Arc};

use ambit_model::{Policy, Scope, Service, Workload};
use ambit_proto::workload::{Address, NetworkMode, address};
use bytes::Bytes;
use prost::Message;

pub use bound::{pack_bound_service, unpack_bound_service};
pub use policy::{decode_policy, encode_policy};
pub use service::{decode_service, encode_service};
pub use workload::{decode_workload, encode_workload};

/// Why a resource was refused; the text is what a NACK carries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {field}: {reason}")]
pub struct DecodeError {
    /// The resource.
    pub name: String,
    /// The field, as its `.proto` file calls it; `resource` for the whole.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A policy that was received and refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct UnreadablePolicy {
    /// Why.
    #[source]
    pub error: DecodeError,
    /// Where it may apply: as written where that could be read, else everywhere.
    pub scope: Scope,
    /// It asked not to be enforced, so that refusing it changes nothing.
    pub dry_run: bool,
}

/// One decoded `istio.workload.Address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A workload.
    Workload(Workload),
    /// A service.
    Service(Service),
}

/// A resource as xDS carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Resource name.
    pub name: Arc<str>,
    /// Encoded message; equal objects have equal bytes.
    pub body: Bytes,
}

/// An `istio.workload.Address` named by the workload's uid.
pub fn pack_workload(workload: &Workload) -> Packed {
    let body = Address { r#type: Some(address::Type::Workload(encode_workload(workload))) };
    Packed { name: workload.uid.clone(), body: body.encode_to_vec().into() }
}

/// An `istio.workload.Address` named `namespace/hostname`.
pub fn pack_service(service: &Service) -> Packed {
    let body = Address { r#type: Some(address::Type::Service(encode_service(service))) };
    Packed { name: service.key().to_string().into(), body: body.encode_to_vec().into() }
}

/// An `istio.security.Authorization` named `namespace/name`.
pub fn pack_policy(policy: &Policy) -> Packed {
    Packed { name: policy.key.to_string().into(), body: encode_policy(policy).encode_to_vec().into() }
}

/// `<network>/<ip>` of every address that an encoded `istio.workload.Address` is reached by: what a proxy asks for that
/// has not heard of one. None of a workload on its node's network, whose address is not its own.
pub fn aliases(body: &[u8]) -> Vec<String> {
    let Ok(Address { r#type: Some(address) }) = Address::decode(body) else { return Vec::new() };
    let name = |network: &str, bytes: &[u8]| Some(alias(network, field::ip("addresses", bytes).ok()?));
    match address {
        address::Type::Workload(workload) => {
            if workload.network_mode() == NetworkMode::HostNetwork {
                return Vec::new();
            }
            workload.addresses.iter().filter_map(|ip| name(&workload.network, ip)).collect()
        }
        address::Type::Service(service) => {
            service.addresses.iter().filter_map(|vip| name(&vip.network, &vip.address)).collect()
        }
    }
}

/// How a proxy asks for an address.
pub fn alias(network: &str, address: IpAddr) -> String {
    format!("{network}/{}", address.to_canonical())
}

/// Reads an `istio.workload.Address` that was sent under `name`.
///
/// # Errors
/// The field that could not be understood, or a name that is not the resource's own (it could never be removed).
pub fn unpack_address(name: &str, body: &[u8]) -> Result<Decoded, DecodeError> {
    let refused = |field, reason: String| DecodeError { name: name.to_owned(), field, reason };
    let address = Address::decode(body).map_err(|error| refused("resource", error.to_string()))?;
    let (decoded, own) = match address.r#type {
        Some(address::Type::Workload(workload)) => {
            let workload = decode_workload(workload)?;
            let own = workload.uid.to_string();
            (Decoded::Workload(workload), own)
        }
        Some(address::Type::Service(service)) => {
            let service = decode_service(service)?;
            let own = service.key().to_string();
            (Decoded::Service(service), own)
        }
        None => return Err(refused("type", "neither a workload nor a service".to_owned())),
    };
    if own != name {
        return Err(refused("resource", format!("is {own:?} inside")));
    }
    Ok(decoded)
}

/// Reads an `istio.security.Authorization` that was sent under `name`.
///
/// # Errors
/// Why it was refused, and how far the refusal must reach so that nothing passes which the policy may deny.
pub fn unpack_policy(name: &str, body: &[u8]) -> Result<Policy, UnreadablePolicy> {
    let refused = |reason: String| DecodeError { name: name.to_owned(), field: "resource", reason };
    let message = ambit_proto::security::Authorization::decode(body).map_err(|error| UnreadablePolicy {
        error: refused(error.to_string()),
        scope: Scope::Global,
        dry_run: false,
    })?;
    let scope = policy::scope(message.scope).unwrap_or(Scope::Global);
    let dry_run = message.dry_run;
    let unreadable = |error| UnreadablePolicy { error, scope, dry_run };
    let policy = decode_policy(message).map_err(unreadable)?;
    let own = policy.key.to_string();
    if own != name {
        return Err(unreadable(refused(format!("is {own:?} inside"))));
    }
    Ok(policy)
}
