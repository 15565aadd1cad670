//! Why a token is rejected; the client learns only whether to retry.

use tonic::Status;

use crate::names::TOKEN_AUDIENCE;

/// Why a token is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBelieved {
    /// There is no `authorization: Bearer` header.
    #[error("the request carries no bearer token")]
    Missing,
    /// Longer than [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX).
    #[error("the token is too long")]
    TooLong,
    /// Not a signed service account token with an expiry.
    #[error("the token is not a JWT of a service account")]
    Malformed,
    /// Its issuer has issued no accepted token, and its address has presented none.
    #[error("the token is of a foreign issuer")]
    Issuer,
    /// The address has too many rejected tokens, or too many under review.
    #[error("too many tokens were shown from this address")]
    TooMany,
    /// The address has too many connections.
    #[error("too many connections come from this address")]
    Crowded,
    /// The API server rejected it.
    #[error("the API server does not accept the token: {0}")]
    Refused(String),
    /// Issued for another audience.
    #[error("the token is not meant for audience {TOKEN_AUDIENCE}")]
    Audience,
    /// Not a service account.
    #[error("{0:?} is not a service account")]
    Account(String),
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// The API server cannot be reached.
    #[error("the token cannot be reviewed now: {0}")]
    Unavailable(String),
}

impl From<NotBelieved> for Status {
    fn from(reason: NotBelieved) -> Self {
        match reason {
            NotBelieved::Unavailable(_) => Self::unavailable("tokens cannot be reviewed now, try again"),
            NotBelieved::TooMany | NotBelieved::Crowded => {
                Self::resource_exhausted("too much comes from this address, slow down")
            }
            NotBelieved::Missing
            | NotBelieved::TooLong
            | NotBelieved::Malformed
            | NotBelieved::Issuer
            | NotBelieved::Refused(_)
            | NotBelieved::Audience
            | NotBelieved::Account(_)
            | NotBelieved::Expired => Self::unauthenticated("the token was not accepted"),
        }
    }
}

impl NotBelieved {
    /// Label value of the metric.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Issuer => "foreign_issuer",
            Self::TooMany => "too_many_tokens",
            Self::Crowded => "too_many_connections",
            Self::Refused(_) => "refused",
            Self::Audience => "audience",
            Self::Account(_) => "not_a_service_account",
            Self::Expired => "expired",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
