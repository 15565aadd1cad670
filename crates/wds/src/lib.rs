//! Encoding and decoding of the xDS resources: workloads, services, policies and bound services.
//!
//! Invariant: decoding is strict. A resource is decoded completely, or rejected with the invalid
//! field, because a policy decoded loosely is a policy enforced loosely. Defaults of omitted fields
//! are applied only here.

mod bound;
mod error;
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
pub use error::{DecodeError, UnreadablePolicy};
pub use policy::{decode_policy, encode_policy};
pub use service::{decode_service, encode_service};
pub use workload::{decode_workload, encode_workload};

/// One decoded `istio.workload.Address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A workload.
    Workload(Workload),
    /// A service.
    Service(Service),
}

/// An encoded xDS resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Resource name.
    pub name: Arc<str>,
    /// The encoded message; equal objects have equal bytes.
    pub body: Bytes,
}

/// Encodes an `istio.workload.Address`, named by the workload's uid.
pub fn pack_workload(workload: &Workload) -> Packed {
    let body = Address { r#type: Some(address::Type::Workload(encode_workload(workload))) };
    Packed { name: workload.uid.clone(), body: body.encode_to_vec().into() }
}

/// Encodes an `istio.workload.Address`, named `namespace/hostname`.
pub fn pack_service(service: &Service) -> Packed {
    let body = Address { r#type: Some(address::Type::Service(encode_service(service))) };
    Packed { name: service.key().to_string().into(), body: body.encode_to_vec().into() }
}

/// Encodes an `istio.security.Authorization`, named `namespace/name`.
pub fn pack_policy(policy: &Policy) -> Packed {
    Packed { name: policy.key.to_string().into(), body: encode_policy(policy).encode_to_vec().into() }
}

/// The aliases `<network>/<ip>` of an encoded `istio.workload.Address`, for on-demand queries by
/// address. Empty for a workload on the host network, whose address is not its own.
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

/// The alias of an address.
pub fn alias(network: &str, address: IpAddr) -> String {
    format!("{network}/{}", address.to_canonical())
}

/// Decodes an `istio.workload.Address` received under `name`.
///
/// # Errors
/// The field that could not be decoded, or a name that does not match the resource (it could never
/// be removed).
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

/// Decodes an `istio.security.Authorization` received under `name`.
///
/// # Errors
/// Why it was rejected, and the scope in which the receiver must deny so that nothing passes that
/// the policy may deny.
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
