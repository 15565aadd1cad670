//! Encoding of `ambit.waypoint.v1.JwtProvider`.
//!
//! Invariant: a provider without a key set is kept, so that its tokens are rejected instead of
//! ignored.

use ambit_model::bound::{ClaimHeader, JwtProvider, TokenLocation};
use ambit_proto::waypoint as wire;

use crate::field::{self, Invalid, list, text, texts};

pub(super) fn encode_provider(provider: &JwtProvider) -> wire::JwtProvider {
    let claim = |claim: &ClaimHeader| wire::ClaimHeader {
        header: claim.header.to_string(),
        claim: claim.claim.to_string(),
    };
    wire::JwtProvider {
        issuer: provider.issuer.to_string(),
        audiences: texts(&provider.audiences),
        jwks: text(provider.jwks.as_ref()),
        locations: provider.locations.iter().map(encode_location).collect(),
        forward: provider.forward,
        payload_header: text(provider.payload_header.as_ref()),
        claim_headers: provider.claim_headers.iter().map(claim).collect(),
        space_delimited: texts(&provider.space_delimited),
        any_issuer: provider.issuer.is_empty(),
    }
}

pub(super) fn decode_provider(message: wire::JwtProvider) -> Result<JwtProvider, Invalid> {
    let claim = |claim: wire::ClaimHeader| {
        Ok(ClaimHeader {
            header: field::header("claim_headers.header", claim.header)?,
            claim: field::required("claim_headers.claim", claim.claim)?,
        })
    };
    let payload_header = message.payload_header.map(|name| field::header("payload_header", name));
    Ok(JwtProvider {
        issuer: if message.any_issuer { "".into() } else { field::required("issuer", message.issuer)? },
        audiences: list(message.audiences, |audience| field::required("audiences", audience))?,
        jwks: message.jwks.map(Into::into),
        locations: list(message.locations, decode_location)?,
        forward: message.forward,
        payload_header: payload_header.transpose()?,
        claim_headers: list(message.claim_headers, claim)?,
        space_delimited: list(message.space_delimited, |claim| field::required("space_delimited", claim))?,
    })
}

fn encode_location(location: &TokenLocation) -> wire::TokenLocation {
    use wire::token_location::Kind;
    let kind = match location {
        TokenLocation::Header { name, prefix } => {
            Kind::Header(wire::TokenHeader { name: name.to_string(), prefix: prefix.to_string() })
        }
        TokenLocation::Query(name) => Kind::Query(name.to_string()),
        TokenLocation::Cookie(name) => Kind::Cookie(name.to_string()),
    };
    wire::TokenLocation { kind: Some(kind) }
}

fn decode_location(message: wire::TokenLocation) -> Result<TokenLocation, Invalid> {
    use wire::token_location::Kind;
    Ok(match field::present("locations", message.kind)? {
        Kind::Header(header) => TokenLocation::Header {
            name: field::header("locations.header", header.name)?,
            prefix: header.prefix.into(),
        },
        Kind::Query(name) => TokenLocation::Query(field::required("locations.query", name)?),
        Kind::Cookie(name) => TokenLocation::Cookie(field::required("locations.cookie", name)?),
    })
}
