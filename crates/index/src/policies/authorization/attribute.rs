//! Keys of `when` conditions.
//!
//! Invariant: an unknown key is an error, never a condition that always or never matches.

use ambit_model::authorization::Attribute;

use crate::policies::header_name;

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConditionKey {
    SourceIp,
    SourceNamespace,
    SourcePrincipal,
    SourceServiceAccount,
    SourceTrustDomain,
    DestinationIp,
    DestinationPort,
    RemoteIp,
    RequestPrincipal,
    Attribute(Attribute),
}

impl ConditionKey {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "source.ip" => Self::SourceIp,
            "source.namespace" => Self::SourceNamespace,
            "source.principal" => Self::SourcePrincipal,
            "source.serviceAccount" => Self::SourceServiceAccount,
            "source.trustDomain" => Self::SourceTrustDomain,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "remote.ip" => Self::RemoteIp,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.presenter" => Self::Attribute(Attribute::Presenter),
            "request.auth.audiences" => Self::Attribute(Attribute::Audiences),
            "connection.sni" => Self::Attribute(Attribute::Sni),
            other => Self::Attribute(named(other)?),
        })
    }
}

fn named(text: &str) -> Result<Attribute, String> {
    let one_header = |names| match brackets(names)?.as_slice() {
        [name] => header(name),
        _ => Err("it names more than one header".into()),
    };
    if let Some(names) = text.strip_prefix("request.headers") {
        return one_header(names);
    }
    if let Some(names) = text.strip_prefix("request.experimental.inline.headers") {
        return match one_header(names)? {
            Attribute::Header(name) => Ok(Attribute::HeaderMembers(name)),
            Attribute::HeaderMembers(_)
            | Attribute::Authority
            | Attribute::Presenter
            | Attribute::Audiences
            | Attribute::Claim(_)
            | Attribute::Sni => Err("the header has a single value, not a list: use request.headers".into()),
        };
    }
    match text.strip_prefix("request.auth.claims") {
        Some(names) => Ok(Attribute::Claim(brackets(names)?.into_iter().map(Into::into).collect())),
        None => Err("it is not a known attribute here".into()),
    }
}

/// Pseudo-headers do not exist in HTTP/1.1: they map to another attribute or are rejected.
fn header(name: &str) -> Result<Attribute, String> {
    let is_any = |others: &[&str]| others.iter().any(|other| name.eq_ignore_ascii_case(other));
    if is_any(&["host", ":authority"]) {
        return Ok(Attribute::Authority);
    }
    if is_any(&[":method", ":path"]) {
        return Err("use methods and paths of an operation instead".into());
    }
    header_name(name).map(Attribute::Header).ok_or_else(|| "it is not a valid header name".into())
}

/// Parses `[a][b]`: at least one name, none empty. A name may contain anything except brackets.
fn brackets(text: &str) -> Result<Vec<&str>, String> {
    let wrong = || "write names in brackets: [name], or [name][name] for nested claims".to_owned();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or_else(wrong)?;
    let names: Vec<&str> = inner.split("][").collect();
    if names.iter().any(|name| name.is_empty() || name.contains(['[', ']'])) {
        return Err(wrong());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_an_attribute_or_an_error() {
        let claim = |path: &[&str]| {
            Ok(ConditionKey::Attribute(Attribute::Claim(path.iter().map(|name| (*name).into()).collect())))
        };
        let header = |name: &str| Ok(ConditionKey::Attribute(Attribute::Header(name.into())));
        let table = [
            ("remote.ip", Ok(ConditionKey::RemoteIp)),
            ("request.auth.principal", Ok(ConditionKey::RequestPrincipal)),
            ("request.auth.audiences", Ok(ConditionKey::Attribute(Attribute::Audiences))),
            ("source.serviceAccount", Ok(ConditionKey::SourceServiceAccount)),
            ("source.trustDomain", Ok(ConditionKey::SourceTrustDomain)),
            ("request.headers[:authority]", Ok(ConditionKey::Attribute(Attribute::Authority))),
            ("request.headers[Host]", Ok(ConditionKey::Attribute(Attribute::Authority))),
            (
                "request.experimental.inline.headers[X-Groups]",
                Ok(ConditionKey::Attribute(Attribute::HeaderMembers("x-groups".into()))),
            ),
            ("connection.sni", Ok(ConditionKey::Attribute(Attribute::Sni))),
            ("request.headers[X-User]", header("x-user")),
            ("request.auth.claims[iss]", claim(&["iss"])),
            ("request.auth.claims[realm][roles]", claim(&["realm", "roles"])),
            ("request.auth.claims[https://a.example/roles]", claim(&["https://a.example/roles"])),
        ];
        for (text, expected) in table {
            assert_eq!(ConditionKey::parse(text), expected, "{text}");
        }
        for bad in [
            "",
            "request.headers",
            "request.headers[]",
            "request.headers[a",
            "request.headers[a][b]",
            "request.headers[a b]",
            "request.headers[:path]",
            "request.headers[:method]",
            "request.experimental.inline.headers[Host]",
            "request.experimental.inline.headers",
            "request.auth.claims",
            "request.auth.claims[a][]",
            "request.auth.claims[a]b]",
            "request.auth.claims[[a]]",
            "request.auth.issuer",
            "experimental.envoy.filters.a[b]",
        ] {
            ConditionKey::parse(bad).expect_err(bad);
        }
    }
}
