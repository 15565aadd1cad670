//! JSON Web Tokens (RFC 7519), verified as RequestAuthentication specifies.
//!
//! Invariant: a request without token is accepted without a principal. A request with a token is
//! accepted only if that token was signed by a key of its issuer (never by a shared secret), is for
//! this service and is valid now. With several tokens, all of them must be valid. Whatever is
//! ambiguous is rejected.

mod claims;
mod edit;
mod keys;
mod limits;
mod locate;
mod refusal;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use ambit_model::{authorization::Token, bound::JwtProvider};
use ambit_route::{RequestHead, filter::is_free};
use http::{HeaderName, HeaderValue};

use self::{
    claims::Claims,
    keys::{KeySet, Signed},
    locate::{Location, Presented},
};
pub use self::{
    edit::Edit,
    keys::{UnusableKeys, check_keys},
    limits::{CLOCK_SKEW_MAX, TOKEN_BYTES_MAX},
    refusal::Refusal,
};

/// `www-authenticate` header of a 401 response (RFC 6750 §3.1).
pub const CHALLENGE: &str = r#"Bearer error="invalid_token""#;

/// Verifies the tokens of one service.
#[derive(Debug)]
pub struct Validator {
    providers: Vec<Provider>,
    /// Headers that only a verified token may set.
    reserved: Vec<HeaderName>,
}

#[derive(Debug)]
struct Provider {
    issuer: Arc<str>,
    audiences: Vec<Arc<str>>,
    keys: Result<KeySet, UnusableKeys>,
    locations: Vec<Location>,
    forward: bool,
    payload_header: Option<HeaderName>,
    /// Header, and the claim that is copied into it.
    claim_headers: Vec<(HeaderName, Arc<str>)>,
    space_delimited: Vec<Arc<str>>,
}

/// An accepted request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The verified token; with several, that of the first provider. `None`: the request has no
    /// token and therefore no principal.
    pub token: Option<Token>,
    /// The token has no `exp`: it is valid as long as its key is.
    pub is_endless: bool,
    /// Changes to apply, in order, before policies are evaluated.
    pub edits: Vec<Edit>,
}

impl Validator {
    /// Parses the keys. Never fails: if a provider's keys cannot be parsed, all its tokens are
    /// rejected.
    pub fn new(providers: &[JwtProvider]) -> Self {
        let providers: Vec<_> = providers.iter().map(Provider::new).collect();
        let filled = providers.iter().flat_map(|provider| {
            provider.payload_header.iter().chain(provider.claim_headers.iter().map(|(name, _)| name))
        });
        let mut reserved: Vec<_> = filled.cloned().collect();
        reserved.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        reserved.dedup();
        Self { providers, reserved }
    }

    /// Verifies the tokens of a request. On rejection, answer 401 with [`CHALLENGE`].
    ///
    /// # Errors
    /// Why the request must be rejected.
    pub fn check(&self, head: &RequestHead<'_>, now: SystemTime) -> Result<Accepted, Refusal> {
        let mut accepted = Accepted::default();
        if !self.reserved.is_empty() {
            let forged =
                head.headers.keys().filter(|name| self.reserved.iter().any(|own| reads_as(name, own)));
            accepted.edits.extend(forged.cloned().map(Edit::RemoveHeader));
        }
        let locations = self.providers.iter().map(|provider| provider.locations.as_slice());
        // In reverse, so that the headers of the first provider win, which is the token that
        // policies see.
        for presented in locate::present(locations, head)?.iter().rev() {
            let signed = Signed::parse(presented.token)?;
            let claims = Claims::parse(signed.payload)?;
            let provider = self.vouch(presented, &signed, &claims, now)?;
            provider.edit(presented, &signed, &claims, &mut accepted.edits);
            accepted.is_endless |= claims.is_endless();
            accepted.token = Some(claims.token(&provider.space_delimited));
        }
        Ok(accepted)
    }

    /// Providers whose tokens are all rejected, with the reason.
    pub fn unusable(&self) -> impl Iterator<Item = (&Arc<str>, &UnusableKeys)> {
        self.providers.iter().filter_map(|provider| Some((&provider.issuer, provider.keys.as_ref().err()?)))
    }

    /// The first provider of the token's issuer that accepts it; its locations must include where
    /// the token was found.
    fn vouch(
        &self,
        presented: &Presented<'_>,
        signed: &Signed<'_>,
        claims: &Claims,
        now: SystemTime,
    ) -> Result<&Provider, Refusal> {
        let mut refusal = Refusal::UnknownIssuer;
        for place in &presented.providers {
            let Some(provider) = self.providers.get(*place).filter(|p| claims.is_issued_by(&p.issuer)) else {
                continue;
            };
            match provider.judge(signed, claims, now) {
                Ok(()) => return Ok(provider),
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }
}

/// Whether an application may read one header as the other: CGI and its successors (RFC 3875
/// 4.1.18) write `-` as `_`.
fn reads_as(one: &HeaderName, other: &HeaderName) -> bool {
    let spelled = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    one.len() == other.len() && one.iter().map(spelled).eq(other.iter().map(spelled))
}

impl Provider {
    fn new(source: &JwtProvider) -> Self {
        // The operator rejects other names; one of ours must not alter the message framing.
        let name = |text: &Arc<str>| HeaderName::from_bytes(text.as_bytes()).ok().filter(is_free);
        Self {
            issuer: source.issuer.clone(),
            audiences: source.audiences.clone(),
            keys: KeySet::parse(source.jwks.as_deref()),
            locations: Location::compile(&source.locations),
            forward: source.forward,
            payload_header: source.payload_header.as_ref().and_then(name),
            claim_headers: source
                .claim_headers
                .iter()
                .filter_map(|wanted| Some((name(&wanted.header)?, wanted.claim.clone())))
                .collect(),
            space_delimited: source.space_delimited.clone(),
        }
    }

    fn judge(&self, signed: &Signed<'_>, claims: &Claims, now: SystemTime) -> Result<(), Refusal> {
        let keys = self.keys.as_ref().map_err(|_| Refusal::NoKeys)?;
        keys.verify(signed)?;
        claims.check_time(now)?;
        if !self.audiences.is_empty() && !claims.is_for_any(&self.audiences) {
            return Err(Refusal::WrongAudience);
        }
        Ok(())
    }

    fn edit(&self, presented: &Presented<'_>, signed: &Signed<'_>, claims: &Claims, edits: &mut Vec<Edit>) {
        if !self.forward {
            edits.extend(presented.found.iter().map(|location| location.removal()));
        }
        if let (Some(name), Ok(value)) = (&self.payload_header, HeaderValue::from_str(signed.payload)) {
            edits.push(Edit::SetHeader(name.clone(), value));
        }
        for (name, claim) in &self.claim_headers {
            let value = claims.text(claim).and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok());
            edits.extend(value.map(|value| Edit::SetHeader(name.clone(), value)));
        }
    }
}
