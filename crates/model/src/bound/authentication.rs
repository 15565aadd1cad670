//! Token issuers, compiled from RequestAuthentication.

use std::sync::Arc;

/// One issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProvider {
    /// Required value of `iss`; empty accepts any.
    pub issuer: Arc<str>,
    /// One of these must be in `aud`; empty accepts any.
    pub audiences: Vec<Arc<str>>,
    /// The key set (RFC 7517) as JSON. `None`: it could not be fetched, so no token of the issuer
    /// is valid.
    pub jwks: Option<Arc<str>>,
    /// Where tokens are looked for, in order. Empty: the `authorization` header (`Bearer `), then
    /// the query parameter `access_token`.
    pub locations: Vec<TokenLocation>,
    /// Whether the token is forwarded to the service.
    pub forward: bool,
    /// Header that carries the payload to the service, encoded as base64url.
    pub payload_header: Option<Arc<str>>,
    /// Claims copied to headers.
    pub claim_headers: Vec<ClaimHeader>,
    /// Further claims whose text is a space-delimited list.
    pub space_delimited: Vec<Arc<str>>,
}

/// Where to find a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLocation {
    /// A header, and the prefix of its value.
    Header {
        /// Header name in lower case.
        name: Arc<str>,
        /// Removed before the token is parsed; a value without this prefix contains no token.
        prefix: Arc<str>,
    },
    /// Name of a query parameter.
    Query(Arc<str>),
    /// Name of a cookie.
    Cookie(Arc<str>),
}

/// A claim copied to a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Header name in lower case.
    pub header: Arc<str>,
    /// Claim name; names of nested claims are joined by dots.
    pub claim: Arc<str>,
}
