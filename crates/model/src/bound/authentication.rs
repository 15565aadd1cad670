//! Who may vouch for a request: RequestAuthentication, compiled.

use std::sync::Arc;

/// One issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProvider {
    /// `iss` must be equal; empty takes any.
    pub issuer: Arc<str>,
    /// One of them must be in `aud`; empty takes any.
    pub audiences: Vec<Arc<str>>,
    /// The key set (RFC 7517), as JSON. None: it could not be fetched, so no token of the issuer is valid.
    pub jwks: Option<Arc<str>>,
    /// Where tokens are looked for, in order; empty is the `authorization` header (`Bearer `), then the query
    /// parameter `access_token`.
    pub locations: Vec<TokenLocation>,
    /// Whether the token goes on to the service.
    pub forward: bool,
    /// Header that carries the payload, base64url, to the service.
    pub payload_header: Option<Arc<str>>,
    /// Claims copied to headers.
    pub claim_headers: Vec<ClaimHeader>,
    /// Claims whose text is a list with spaces between, beside those that always are.
    pub space_delimited: Vec<Arc<str>>,
}

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLocation {
    /// A header, and what stands before the token in it.
    Header {
        /// Lower case.
        name: Arc<str>,
        /// Removed before the token is read; a value without it holds no token.
        prefix: Arc<str>,
    },
    /// A query parameter.
    Query(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}

/// A claim copied to a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Header, lower case.
    pub header: Arc<str>,
    /// Claim; nested ones are joined by dots.
    pub claim: Arc<str>,
}
