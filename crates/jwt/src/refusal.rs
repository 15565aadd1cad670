//! Why a request is refused.
//!
//! Invariant: no reason carries a part of the token, so each may be logged and shown.

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than one token.
    #[error("the request carries different tokens, so nobody can tell whom it speaks for; send one")]
    SeveralTokens,
    /// Longer than [`crate::TOKEN_BYTES_MAX`].
    #[error("the token is longer than {} bytes", crate::TOKEN_BYTES_MAX)]
    TooLong,
    /// Not three parts of base64url with JSON inside.
    #[error("the token is not a signed JSON Web Token (RFC 7519)")]
    Malformed,
    /// Claims nested too deep, or too many.
    #[error(
        "the token holds more than {} claims, or nests them deeper than {}",
        crate::claims::CLAIMS_MAX,
        crate::claims::DEPTH_MAX
    )]
    TooManyClaims,
    /// No signature, a shared secret, or an algorithm nobody here knows.
    #[error("the token's algorithm is not one of RS256/384/512, PS256/384/512, ES256/384 or EdDSA")]
    Algorithm,
    /// An extension that the token says must be understood.
    #[error("the token demands an extension (crit, RFC 7515 §4.1.11), and none is supported")]
    Critical,
    /// Of nobody who may vouch here.
    #[error("the token's issuer may not vouch for this service, or not in this place of the request")]
    UnknownIssuer,
    /// The issuer's keys could not be fetched or read.
    #[error("no key of the token's issuer is known; look at the conditions of its RequestAuthentication")]
    NoKeys,
    /// No key has the token's `kid` and fits its algorithm.
    #[error("the token's issuer has no key of its id and algorithm")]
    UnknownKey,
    /// Not signed by the key it names.
    #[error("the token's signature does not hold")]
    Signature,
    /// Over.
    #[error("the token has expired")]
    Expired,
    /// Not yet begun.
    #[error("the token does not hold yet")]
    NotYetValid,
    /// For somebody else.
    #[error("the token is not for this audience")]
    WrongAudience,
}
