//! Names of objects, and ports of services.

use ambit_model::{Destination, NamespacedName};
use ambit_proto::waypoint as wire;

use crate::field::{self, Invalid};

pub(super) fn encode_destination(destination: &Destination) -> wire::Destination {
    wire::Destination { service: Some(encode_name(&destination.service)), port: destination.port.into() }
}

pub(super) fn decode_destination(
    field: &'static str,
    message: wire::Destination,
) -> Result<Destination, Invalid> {
    Ok(Destination { service: decode_name(field, message.service)?, port: field::port(field, message.port)? })
}

pub(super) fn encode_name(name: &NamespacedName) -> wire::Name {
    wire::Name { namespace: name.namespace.to_string(), name: name.name.to_string() }
}

pub(super) fn decode_name(
    field: &'static str,
    message: Option<wire::Name>,
) -> Result<NamespacedName, Invalid> {
    let name = field::present(field, message)?;
    Ok(NamespacedName { namespace: name.namespace.into(), name: field::required(field, name.name)? })
}
