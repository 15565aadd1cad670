//! Translation of RequestAuthentication to token issuers.
//!
//! Invariant: an issuer whose keys are unknown or cannot be parsed makes no token valid. A rule
//! whose issuers cannot be determined makes its targets refuse everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ambit_api::{
    conditions::{ZTUNNEL_ACCEPTED, reason},
    parse_duration,
    policy::{JwtRule, RequestAuthenticationSpec},
};
use ambit_model::{
    NamespacedName,
    bound::{ClaimHeader, JwtProvider, TokenLocation},
};

use super::{
    Attachment, Holds, Judgement, PolicyFacts, Reach, Target, fields::selector, header_name, unknown,
};
use crate::object::name_of;

/// A RequestAuthentication, with its attachment if it has one.
pub(crate) type RequestFacts = PolicyFacts<Option<Attachment<Providers>>>;

/// Timeout for fetching a key set, as in Istio, unless the rule sets one.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest timeout that a rule may set.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// A key set that policies reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedKeySet {
    /// Namespaces of these policies.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Timeout of the fetch: the longest of all referencing policies.
    pub timeout: Duration,
}

/// Key sets by URI: a validated set as returned by [`key_set`], or the error.
pub type KeySets = BTreeMap<Arc<str>, Result<Arc<str>, String>>;

/// The issuers of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Providers(Vec<Provider>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Provider {
    /// The issuer, without its keys.
    rule: JwtProvider,
    keys: Keys,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Keys {
    /// Keys in the policy itself.
    Inline(Arc<str>),
    /// Keys to fetch from a URI, with the timeout.
    At(Arc<str>, Duration),
    /// No usable keys, with the reason.
    Refused(String),
}

impl Providers {
    /// URIs of the key sets, with the timeout of each.
    pub fn uris(&self) -> impl Iterator<Item = (&Arc<str>, Duration)> {
        self.0.iter().filter_map(|provider| match &provider.keys {
            Keys::At(uri, timeout) => Some((uri, *timeout)),
            Keys::Inline(_) | Keys::Refused(_) => None,
        })
    }

    /// The issuers for waypoints, with the fetched keys.
    pub fn compile(&self, fetched: &KeySets) -> Vec<JwtProvider> {
        let keys = |provider: &Provider| provider.keys.known(fetched).ok();
        self.0.iter().map(|provider| JwtProvider { jwks: keys(provider), ..provider.rule.clone() }).collect()
    }

    /// Issuers without usable keys, with the reason.
    fn faults(&self, fetched: &KeySets) -> Vec<String> {
        let fault = |provider: &Provider| {
            let why = provider.keys.known(fetched).err()?;
            Some(format!("no token of {:?} is valid: {why}", provider.rule.issuer))
        };
        self.0.iter().filter_map(fault).collect()
    }
}

impl Keys {
    fn known(&self, fetched: &KeySets) -> Result<Arc<str>, String> {
        match self {
            Self::Inline(keys) => Ok(keys.clone()),
            Self::Refused(why) => Err(why.clone()),
            Self::At(uri, _) => match fetched.get(uri) {
                Some(Ok(keys)) => Ok(keys.clone()),
                Some(Err(why)) => Err(format!("{uri}: {why}")),
                None => Err(format!("{uri} has not been fetched yet")),
            },
        }
    }
}

impl Attachment<Providers> {
    /// The status condition: [`Attachment::judge`], but never True while an issuer has no usable
    /// keys.
    pub fn judge_with_keys(&self, fetched: &KeySets, reach: impl Fn(&Target) -> Reach) -> Judgement {
        let judgement = self.judge(reach);
        let faults = self.content.as_ref().map(|providers| providers.faults(fetched)).unwrap_or_default();
        if faults.is_empty() {
            return judgement;
        }
        let message = format!("{}; {}", faults.join("; "), judgement.message);
        Judgement { holds: Holds::False, reason: reason::INVALID, message, ..judgement }
    }
}

/// Parses an object.
pub(crate) fn read(object: &ambit_api::RequestAuthentication, roots: &BTreeSet<Arc<str>>) -> RequestFacts {
    let name = name_of(&object.metadata);
    let content = attachment(&name, &object.spec, roots);
    let unattached = || Judgement {
        condition: ZTUNNEL_ACCEPTED,
        holds: Holds::False,
        reason: reason::UNSUPPORTED_VALUE,
        message: "ztunnel sees no requests: without targetRefs the policy is not enforced".into(),
    };
    PolicyFacts {
        name,
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        selector: selector(object.spec.selector.as_ref()),
        judgements: if content.is_none() { vec![unattached()] } else { Vec::new() },
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        generation: object.metadata.generation,
        conditions: object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
        content,
    }
}

/// The issuers of a policy with its targets; `None` without target references.
pub fn attachment(
    name: &NamespacedName,
    spec: &RequestAuthenticationSpec,
    roots: &BTreeSet<Arc<str>>,
) -> Option<Attachment<Providers>> {
    let references = spec.target_ref.iter().chain(&spec.target_refs);
    Attachment::read(references, name, roots, || {
        if spec.selector.is_some() {
            return Err("spec.selector and target references exclude each other".into());
        }
        let unknown = unknown::of_request_authentication(spec);
        if !unknown.is_empty() {
            return Err(unknown.join(", "));
        }
        let rules = spec.jwt_rules.iter().enumerate();
        rules.map(|(at, rule)| provider(at, rule)).collect::<Result<_, _>>().map(Providers)
    })
}

/// Validates a key set (RFC 7517) for waypoints.
///
/// # Errors
/// Why none of its keys is usable, for the status.
pub fn key_set(text: &str) -> Result<Arc<str>, String> {
    ambit_jwt::check_keys(text).map(|()| text.into()).map_err(|error| error.to_string())
}

fn provider(at: usize, rule: &JwtRule) -> Result<Provider, String> {
    let at = |field: &str| format!("spec.jwtRules[{at}].{field}");
    // Istio accepts any issuer if the keys come from a URI; keys without any issuer name belong to
    // nobody.
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        return Err(format!("{} is empty, and there is no jwksUri", at("issuer")));
    }
    let timeout = timeout(&rule.timeout)
        .ok_or_else(|| format!("{} {:?} is not a duration such as 5s", at("timeout"), rule.timeout))?;
    let header = |field: &str, name: &str| {
        header_name(name).ok_or_else(|| format!("{} {name:?} is not a valid header name", at(field)))
    };
    let filled = |field: &str, name: &str| match name {
        "" => Err(format!("{} contains an empty name", at(field))),
        name => Ok(Arc::<str>::from(name)),
    };
    let claims = rule.space_delimited_claims.iter().map(|name| filled("spaceDelimitedClaims", name));
    let mut locations = Vec::new();
    for from in &rule.from_headers {
        let name = header("fromHeaders", &from.name)?;
        locations.push(TokenLocation::Header { name, prefix: from.prefix.as_str().into() });
    }
    for name in &rule.from_params {
        locations.push(TokenLocation::Query(filled("fromParams", name)?));
    }
    for name in &rule.from_cookies {
        locations.push(TokenLocation::Cookie(filled("fromCookies", name)?));
    }
    let mut claim_headers = Vec::new();
    for output in &rule.output_claim_to_headers {
        let claim = filled("outputClaimToHeaders", &output.claim)?;
        claim_headers.push(ClaimHeader { header: header("outputClaimToHeaders", &output.header)?, claim });
    }
    let payload_header = match rule.output_payload_to_header.as_str() {
        "" => None,
        name => Some(header("outputPayloadToHeader", name)?),
    };
    let provider = JwtProvider {
        issuer: rule.issuer.as_str().into(),
        audiences: rule.audiences.iter().map(|audience| audience.as_str().into()).collect(),
        jwks: None,
        locations,
        forward: rule.forward_original_token,
        payload_header,
        claim_headers,
        space_delimited: claims.collect::<Result<_, _>>()?,
    };
    Ok(Provider { rule: provider, keys: keys(rule, timeout) })
}

/// Parses a duration: fractional seconds as in protobuf, or the format of the Gateway API.
fn timeout(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return Some(TIMEOUT);
    }
    let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let timeout = seconds.or_else(|| parse_duration(text).ok());
    timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout.min(TIMEOUT_MAX))
}

fn keys(rule: &JwtRule, timeout: Duration) -> Keys {
    let refused = |why: &str| Keys::Refused(why.to_owned());
    match (rule.jwks.as_str(), rule.jwks_uri.as_str()) {
        ("", "") => refused("it has neither jwks nor jwksUri"),
        ("", uri) if is_fetchable(uri) => Keys::At(uri.into(), timeout),
        ("", _) => refused("jwksUri is not an http or https URL"),
        (jwks, "") => key_set(jwks).map_or_else(Keys::Refused, Keys::Inline),
        (_, _) => refused("it has both jwks and jwksUri"),
    }
}

fn is_fetchable(uri: &str) -> bool {
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
    let is_clean = uri.bytes().all(|byte| byte.is_ascii_graphic());
    is_clean && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':']))
}

#[cfg(test)]
mod tests;
