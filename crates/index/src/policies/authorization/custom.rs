//! Policies with action CUSTOM (external authorization).
//!
//! Invariant: a policy with an unknown provider makes its targets refuse everything.

use std::sync::Arc;

use ambit_api::{
    conditions::{WAYPOINT_ACCEPTED, reason},
    policy::AuthorizationPolicySpec,
};
use ambit_model::{Policy, bound::CheckProvider};

use crate::policies::{Attachment, Holds, Judgement, Reach, Target};

/// A CUSTOM policy for waypoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// The requests that it selects, and its targets.
    pub attachment: Attachment<Arc<Policy>>,
    /// Name of the provider.
    pub provider: Arc<str>,
    /// Dry run: the provider is not queried.
    pub dry_run: bool,
}

impl Custom {
    /// The status condition; `provider` is the result of looking up the name.
    pub(crate) fn judge(
        &self,
        provider: Result<CheckProvider, String>,
        reach: impl Fn(&Target) -> Reach,
    ) -> Judgement {
        let says = |reason, message: &str| Judgement {
            condition: WAYPOINT_ACCEPTED,
            holds: Holds::False,
            reason,
            message: message.to_owned(),
        };
        if self.dry_run {
            return says(
                reason::UNSUPPORTED_VALUE,
                "dry run: no request is sent to the provider, and none is refused",
            );
        }
        match provider {
            Err(why) if self.attachment.content.is_ok() => {
                says(reason::INVALID, &format!("{why}: its targets refuse everything"))
            }
            Err(_) => self.attachment.judge(reach),
            Ok(provider) => {
                let mut judgement = self.attachment.judge(reach);
                if judgement.holds == Holds::True {
                    let to = &provider.to;
                    judgement.message = format!(
                        "{}; matching HTTP and gRPC requests are sent to provider {} (Service {}, port {}); TCP and TLS connections cannot be sent to a provider and are refused where its L4 fields match (list ports in its rules to exclude other ports)",
                        judgement.message, provider.name, to.service, to.port
                    );
                }
                judgement
            }
        }
    }
}

/// Conditions that its rules must not use, because the provider is queried before tokens are
/// verified.
pub(super) fn problem(spec: &AuthorizationPolicySpec) -> Option<String> {
    let name = spec.provider.as_ref().map(|provider| provider.name.as_str()).unwrap_or_default();
    if name.is_empty() {
        return Some("action CUSTOM needs provider.name".into());
    }
    let of_token = |key: &str| key.starts_with("request.auth.");
    let mut sources = spec.rules.iter().flat_map(|rule| &rule.from).map(|from| &from.source);
    let asks_principal = sources
        .any(|source| !(source.request_principals.is_empty() && source.not_request_principals.is_empty()));
    let mut conditions = spec.rules.iter().flat_map(|rule| &rule.when);
    let asks_token = asks_principal || conditions.any(|condition| of_token(&condition.key));
    asks_token.then(|| "requestPrincipals and request.auth.* cannot be used with action CUSTOM, because its provider is queried before tokens are verified".into())
}

/// The status of a CUSTOM policy for node proxies, which cannot query a provider and deny what
/// matches.
pub(super) fn at_nodes(denies: Judgement) -> Judgement {
    let message = format!(
        "ztunnel cannot query a provider and denies connections that match the policy; attach it to a waypoint with targetRefs ({})",
        denies.message
    );
    Judgement { holds: Holds::False, reason: reason::UNSUPPORTED_VALUE, message, ..denies }
}
