//! Why a token is rejected.
//!
//! Invariant: no reason contains any part of the token, so each may be logged and shown.

use crate::limits::{CLAIMS_MAX, DEPTH_MAX, TOKEN_BYTES_MAX};

/// Why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Different tokens in one request.
    #[error("the request carries different tokens; send only one")]
    SeveralTokens,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {} bytes", TOKEN_BYTES_MAX)]
    TooLong,
    /// Not three base64url parts with JSON inside.
    #[error("the token is not a signed JSON Web Token (RFC 7519)")]
    Malformed,
    /// Claims exceed the limit of number or depth.
    #[error("the token holds more than {} claims, or nests them deeper than {}", CLAIMS_MAX, DEPTH_MAX)]
    TooManyClaims,
    /// No signature, a shared secret, or an unknown algorithm.
    #[error("the token's algorithm is not one of RS256/384/512, PS256/384/512, ES256/384 or EdDSA")]
    Algorithm,
    /// The token requires an extension (`crit`).
    #[error("the token demands an extension (crit, RFC 7515 §4.1.11), and none is supported")]
    Critical,
    /// No provider for its issuer, or not in this location.
    #[error("the token's issuer is not accepted for this service, or not in this part of the request")]
    UnknownIssuer,
    /// The issuer's keys could not be fetched or parsed.
    #[error("no key of the token's issuer is known; see the conditions of its RequestAuthentication")]
    NoKeys,
    /// No key matches the token's `kid` and algorithm.
    #[error("the token's issuer has no key of its id and algorithm")]
    UnknownKey,
    /// The signature is invalid.
    #[error("the token's signature is invalid")]
    Signature,
    /// `exp` is in the past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `aud` does not match.
    #[error("the token is not for this audience")]
    WrongAudience,
}
