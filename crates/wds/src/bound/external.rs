//! Encoding of `ambit.waypoint.v1.CheckProvider`, and of CUSTOM policies.
//!
//! Invariant: a decoded provider is usable: it has a timeout, a status and a protocol. Anything
//! unknown rejects the service, so that no request passes unchecked.

use std::sync::Arc;

use ambit_model::{
    Action, Policy, StringMatch,
    bound::{CheckBody, CheckProtocol, CheckProvider, ExternalCheck, HttpCheck},
};
use ambit_proto::{security, waypoint as wire};

use super::{
    authorization,
    destination::{decode_destination, encode_destination},
};
use crate::{
    field::{self, Invalid, list},
    policy::{decode_string, encode_string},
};

pub(super) fn encode_check(check: &ExternalCheck) -> wire::Policy {
    wire::Policy {
        action: wire::policy::Action::Custom.into(),
        provider: Some(encode_provider(&check.provider)),
        ..authorization::encode_policy(&check.policy)
    }
}

/// Whether a policy has action CUSTOM.
pub(super) fn is_check(message: &wire::Policy) -> bool {
    message.action == i32::from(wire::policy::Action::Custom)
}

pub(super) fn decode_check(mut message: wire::Policy) -> Result<ExternalCheck, Invalid> {
    let provider = decode_provider(field::present("authorization.provider", message.provider.take())?)?;
    message.action = wire::policy::Action::Deny.into();
    let policy = authorization::decode_policy(message)?;
    Ok(ExternalCheck {
        policy: Arc::new(Policy { action: Action::Deny, ..policy }),
        provider: Arc::new(provider),
    })
}

fn encode_provider(provider: &CheckProvider) -> wire::CheckProvider {
    use wire::check_provider::Protocol;
    wire::CheckProvider {
        name: provider.name.to_string(),
        to: Some(encode_destination(&provider.to)),
        timeout_ms: field::millis(provider.timeout),
        fail_open: provider.fail_open,
        status_on_error: provider.status_on_error.into(),
        body: provider.body.map(|body| wire::CheckBody {
            max_bytes: body.max_bytes,
            allow_partial: body.allow_partial,
            pack_as_bytes: body.pack_as_bytes,
        }),
        protocol: Some(match &provider.protocol {
            CheckProtocol::Grpc => Protocol::Grpc(wire::Empty {}),
            CheckProtocol::Http(http) => Protocol::Http(encode_http(http)),
        }),
    }
}

fn decode_provider(message: wire::CheckProvider) -> Result<CheckProvider, Invalid> {
    use wire::check_provider::Protocol;
    let timeout = field::duration("provider.timeout_ms", message.timeout_ms)?;
    if timeout.is_zero() {
        return Err(Invalid::new("provider.timeout_ms", "is zero, so that nothing would ever be answered"));
    }
    Ok(CheckProvider {
        name: field::required("provider.name", message.name)?,
        to: decode_destination("provider.to", field::present("provider.to", message.to)?)?,
        timeout,
        fail_open: message.fail_open,
        status_on_error: field::status("provider.status_on_error", message.status_on_error)?,
        body: message.body.map(decode_body).transpose()?,
        protocol: match field::present("provider.protocol", message.protocol)? {
            Protocol::Grpc(wire::Empty {}) => CheckProtocol::Grpc,
            Protocol::Http(http) => CheckProtocol::Http(Box::new(decode_http(http)?)),
        },
    })
}

fn decode_body(body: wire::CheckBody) -> Result<CheckBody, Invalid> {
    if body.max_bytes == 0 {
        return Err(Invalid::new("provider.body.max_bytes", "is zero"));
    }
    Ok(CheckBody {
        max_bytes: body.max_bytes,
        allow_partial: body.allow_partial,
        pack_as_bytes: body.pack_as_bytes,
    })
}

fn encode_http(http: &HttpCheck) -> wire::HttpCheck {
    let strings = |list: &[StringMatch]| list.iter().map(encode_string).collect();
    let header = |(name, value): &(Arc<str>, Arc<str>)| wire::Header {
        name: name.to_string(),
        value: value.to_string(),
    };
    wire::HttpCheck {
        path_prefix: http.path_prefix.to_string(),
        request_headers: strings(&http.request_headers),
        additional_headers: http.additional_headers.iter().map(header).collect(),
        upstream_on_allow: strings(&http.upstream_on_allow),
        downstream_on_deny: strings(&http.downstream_on_deny),
        downstream_on_allow: strings(&http.downstream_on_allow),
    }
}

fn decode_http(message: wire::HttpCheck) -> Result<HttpCheck, Invalid> {
    let strings = |field, strings: Vec<security::StringMatch>| list(strings, |m| decode_string(field, m));
    let header = |header: wire::Header| {
        Ok((field::header("provider.additional_headers", header.name)?, Arc::from(header.value)))
    };
    Ok(HttpCheck {
        path_prefix: message.path_prefix.into(),
        request_headers: strings("provider.request_headers", message.request_headers)?,
        additional_headers: list(message.additional_headers, header)?,
        upstream_on_allow: strings("provider.upstream_on_allow", message.upstream_on_allow)?,
        downstream_on_deny: strings("provider.downstream_on_deny", message.downstream_on_deny)?,
        downstream_on_allow: strings("provider.downstream_on_allow", message.downstream_on_allow)?,
    })
}
