//! The claims of a token.
//!
//! Invariant: number and depth of claims are limited before anything is built from them. A claim of
//! the wrong type is an error where it is decisive (`exp`, `nbf`, `iss`, `aud`), and counts as
//! absent otherwise.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ambit_model::authorization::Token;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{
    Refusal,
    limits::{CLAIMS_MAX, CLOCK_SKEW_MAX, DEPTH_MAX},
};

/// Claims that contain a space-separated list (RFC 8693 §4.2; RequestAuthentication treats both
/// so).
const SPACE_SEPARATED: [&str; 2] = ["scope", "permission"];

/// The claims of a token.
#[derive(Debug)]
pub(crate) struct Claims {
    all: Map<String, Value>,
    issuer: Arc<str>,
    audiences: Vec<Arc<str>>,
    /// Seconds since 1970.
    expires: Option<f64>,
    /// Seconds since 1970.
    not_before: Option<f64>,
}

impl Claims {
    /// Parses the encoded payload of a token.
    pub(crate) fn parse(payload: &str) -> Result<Self, Refusal> {
        let Ok(Value::Object(all)) = serde_json::from_slice(&decode(payload)?) else {
            return Err(Refusal::Malformed);
        };
        let mut left = CLAIMS_MAX;
        all.values().try_for_each(|value| bounded(value, DEPTH_MAX, &mut left))?;
        let issuer = all.get("iss").and_then(Value::as_str).unwrap_or_default().into();
        let audiences = match all.get("aud") {
            None => Vec::new(),
            Some(Value::Array(values)) if !values.iter().all(Value::is_string) => {
                return Err(Refusal::Malformed);
            }
            Some(value) => texts(value).ok_or(Refusal::Malformed)?,
        };
        let time = |name: &str| match all.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Refusal::Malformed),
        };
        let (expires, not_before) = (time("exp")?, time("nbf")?);
        Ok(Self { issuer, audiences, expires, not_before, all })
    }

    /// Whether this is the issuer; an empty name accepts any.
    pub(crate) fn is_issued_by(&self, issuer: &str) -> bool {
        issuer.is_empty() || *self.issuer == *issuer
    }

    /// Whether one of the audiences matches. As in Envoy, the scheme and a trailing slash are
    /// ignored.
    pub(crate) fn is_for_any(&self, audiences: &[Arc<str>]) -> bool {
        let is_meant = |own: &Arc<str>| audiences.iter().any(|audience| bare(audience) == bare(own));
        self.audiences.iter().any(is_meant)
    }

    /// Whether it never expires.
    pub(crate) fn is_endless(&self) -> bool {
        self.expires.is_none()
    }

    pub(crate) fn check_time(&self, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let skew = CLOCK_SKEW_MAX.as_secs_f64();
        if self.expires.is_some_and(|expires| now >= expires + skew) {
            return Err(Refusal::Expired);
        }
        if self.not_before.is_some_and(|not_before| now + skew < not_before) {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }

    /// A claim as text, for a header; `None` for objects and lists.
    pub(crate) fn text(&self, claim: &str) -> Option<String> {
        // A name may contain dots itself (`https://example.com/role`).
        let nested = || {
            let mut names = claim.split('.');
            let outer = self.all.get(names.next()?)?;
            names.try_fold(outer, |value, name| value.as_object()?.get(name))
        };
        match self.all.get(claim).or_else(nested)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The token for policy evaluation. Call it only on claims whose signature was verified.
    /// `space_delimited` are further claims that contain a list.
    pub(crate) fn token(&self, space_delimited: &[Arc<str>]) -> Token {
        let text = |name: &str| self.all.get(name).and_then(Value::as_str).map(Arc::from);
        let mut claims = BTreeMap::new();
        collect(&self.all, &mut Vec::new(), &mut claims);
        for name in SPACE_SEPARATED.into_iter().chain(space_delimited.iter().map(|name| &**name)) {
            if let Some(values) = self.all.get(name).and_then(Value::as_str) {
                claims.insert(vec![name.into()], values.split_ascii_whitespace().map(Arc::from).collect());
            }
        }
        Token {
            issuer: self.issuer.clone(),
            subject: text("sub").unwrap_or_default(),
            presenters: self.all.get("azp").and_then(texts).unwrap_or_default(),
            audiences: self.audiences.clone(),
            claims,
        }
    }
}

/// Decodes one part of a token.
pub(crate) fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}

fn bounded(value: &Value, depth_left: usize, left: &mut usize) -> Result<(), Refusal> {
    *left = left.checked_sub(1).ok_or(Refusal::TooManyClaims)?;
    let deeper = depth_left.checked_sub(1);
    let mut each = |value: &Value| bounded(value, deeper.ok_or(Refusal::TooManyClaims)?, left);
    match value {
        Value::Array(values) => values.iter().try_for_each(&mut each),
        Value::Object(values) => values.values().try_for_each(&mut each),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// An audience without `http://` or `https://`, and without one trailing slash.
fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// A text, or the texts of a list; only those can be compared (AuthorizationPolicy).
fn texts(value: &Value) -> Option<Vec<Arc<str>>> {
    match value {
        Value::String(text) => Some(vec![text.as_str().into()]),
        Value::Array(values) => {
            Some(values.iter().filter_map(|value| value.as_str().map(Arc::from)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Claims that can be compared, by path. The depth is limited by [`DEPTH_MAX`].
fn collect(
    object: &Map<String, Value>,
    path: &mut Vec<Arc<str>>,
    claims: &mut BTreeMap<Vec<Arc<str>>, Vec<Arc<str>>>,
) {
    for (name, value) in object {
        path.push(name.as_str().into());
        if let Value::Object(nested) = value {
            collect(nested, path, claims);
        } else if let Some(values) = texts(value) {
            claims.insert(path.clone(), values);
        }
        path.pop();
    }
}
