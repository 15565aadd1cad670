//! External authorization providers: from `Mesh.spec.extensionProviders` to the compiled form for
//! waypoints.
//!
//! Invariant: total and strict. A provider with any invalid field is not used; policies that name
//! it refuse requests, and their status shows the error.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ambit_api::{
    mesh::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, RequestBodyInCheck},
    parse_duration,
};
use ambit_model::{
    Destination, NamespacedName, StringMatch,
    bound::{CheckBody, CheckProtocol, CheckProvider, HttpCheck},
};

use crate::{policies::header_name, services::ServiceFacts};

#[cfg(test)]
mod tests;

/// Longest timeout of one check.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Largest part of a body that is sent to a provider.
const BODY_MAX_BYTES: u32 = 1 << 20;

/// Everything needed to look up providers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a> {
    pub(crate) providers: &'a [ExtensionProvider],
    pub(crate) services: &'a BTreeMap<NamespacedName, ServiceFacts>,
    pub(crate) cluster_domain: &'a str,
}

/// Fields common to both kinds of providers.
struct Common<'a> {
    service: &'a str,
    port: i32,
    timeout: &'a str,
    fail_open: bool,
    status_on_error: &'a str,
    body: Option<RequestBodyInCheck>,
}

impl Directory<'_> {
    /// The provider with this name.
    ///
    /// # Errors
    /// What is wrong with it, including its name.
    pub(crate) fn provider(&self, name: &str) -> Result<CheckProvider, String> {
        let found = self.named(name).map_err(|why| format!("provider {name:?} {why}"))?;
        let wrong = |why: String| format!("provider {name:?}: {why}");
        match (&found.envoy_ext_authz_grpc, &found.envoy_ext_authz_http) {
            (Some(grpc), None) => self.compile(name, of_grpc(grpc), CheckProtocol::Grpc).map_err(wrong),
            (None, Some(http)) => {
                let protocol = CheckProtocol::Http(Box::new(of_http(http).map_err(wrong)?));
                self.compile(name, common(http), protocol).map_err(wrong)
            }
            (Some(_), Some(_)) | (None, None) => {
                Err(wrong("give exactly one of envoyExtAuthzGrpc and envoyExtAuthzHttp".into()))
            }
        }
    }

    fn named(&self, name: &str) -> Result<&ExtensionProvider, &'static str> {
        let mut named = self.providers.iter().filter(|provider| provider.name == name);
        let found = named.next().ok_or("is not one of Mesh.spec.extensionProviders")?;
        match named.next() {
            None => Ok(found),
            Some(_) => Err("occurs twice in Mesh.spec.extensionProviders"),
        }
    }

    fn compile(
        &self,
        name: &str,
        common: Common<'_>,
        protocol: CheckProtocol,
    ) -> Result<CheckProvider, String> {
        let timeout = parse_duration(common.timeout).map_err(|error| format!("timeout: {error}"))?;
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            return Err(format!("timeout: {} is not between 1ms and 10m", common.timeout));
        }
        let status = common.status_on_error.parse().ok().filter(|status| (400..600).contains(status));
        let status_on_error = status.ok_or_else(|| {
            format!("statusOnError: {:?} is not a status from 400 to 599", common.status_on_error)
        })?;
        Ok(CheckProvider {
            name: name.into(),
            to: self.destination(common.service, common.port)?,
            timeout,
            fail_open: common.fail_open,
            status_on_error,
            body: common.body.map(body).transpose()?,
            protocol,
        })
    }

    fn destination(&self, service: &str, port: i32) -> Result<Destination, String> {
        let name = self.service(service).ok_or_else(|| {
            format!(
                "service: {service:?} is not <namespace>/<name> or a name such as <name>.<namespace>.svc.{}",
                self.cluster_domain
            )
        })?;
        let facts = self.services.get(&name).ok_or_else(|| format!("Service {name} does not exist"))?;
        let found = facts.ports.iter().find(|known| i32::from(known.port) == port);
        let found = found.ok_or_else(|| format!("Service {name} has no TCP port {port}"))?;
        Ok(Destination { service: facts.model.key(), port: found.port })
    }

    /// Parses `namespace/name`, `namespace/hostname` or a hostname, as Istio does.
    fn service(&self, text: &str) -> Option<NamespacedName> {
        let (namespace, host) = match text.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, text),
        };
        let suffix = format!(".svc.{}", self.cluster_domain);
        let host = host.strip_suffix(&suffix).or_else(|| host.strip_suffix(".svc")).unwrap_or(host);
        let (name, of_host) = match host.split_once('.') {
            Some((name, namespace)) => (name, Some(namespace)),
            None => (host, None),
        };
        let namespace = match (namespace, of_host) {
            (Some(one), Some(other)) if one != other => return None,
            (Some(namespace), _) | (None, Some(namespace)) => namespace,
            (None, None) => return None,
        };
        let is_label = |text: &str| !text.is_empty() && !text.contains(['.', '/']);
        (is_label(name) && is_label(namespace)).then(|| NamespacedName::new(namespace, name))
    }
}

fn of_grpc(grpc: &ExtAuthzGrpc) -> Common<'_> {
    Common {
        service: &grpc.service,
        port: grpc.port,
        timeout: &grpc.timeout,
        fail_open: grpc.fail_open,
        status_on_error: &grpc.status_on_error,
        body: grpc.include_request_body_in_check,
    }
}

fn common(http: &ExtAuthzHttp) -> Common<'_> {
    Common {
        service: &http.service,
        port: http.port,
        timeout: &http.timeout,
        fail_open: http.fail_open,
        status_on_error: &http.status_on_error,
        body: http.include_request_body_in_check,
    }
}

fn of_http(http: &ExtAuthzHttp) -> Result<HttpCheck, String> {
    let prefix = http.path_prefix.as_str();
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
    if !(prefix.is_empty() || prefix.starts_with('/')) || !prefix.bytes().all(is_plain) {
        return Err(format!("pathPrefix: {prefix:?} is not a valid path prefix"));
    }
    let header = |(name, value): (&String, &String)| {
        let name = header_name(name)
            .ok_or_else(|| format!("includeAdditionalHeadersInCheck: {name:?} is not a valid header name"))?;
        let is_value = value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
        match is_value {
            true => Ok((name, Arc::from(value.as_str()))),
            false => Err(format!(
                "includeAdditionalHeadersInCheck: the value of {name} is not a valid header value"
            )),
        }
    };
    Ok(HttpCheck {
        path_prefix: prefix.into(),
        request_headers: patterns("includeRequestHeadersInCheck", &http.include_request_headers_in_check)?,
        additional_headers: http
            .include_additional_headers_in_check
            .iter()
            .map(header)
            .collect::<Result<_, String>>()?,
        upstream_on_allow: patterns("headersToUpstreamOnAllow", &http.headers_to_upstream_on_allow)?,
        downstream_on_deny: patterns("headersToDownstreamOnDeny", &http.headers_to_downstream_on_deny)?,
        downstream_on_allow: patterns("headersToDownstreamOnAllow", &http.headers_to_downstream_on_allow)?,
    })
}

/// Parses exact values, `prefix*`, `*suffix` and `*`.
fn patterns(field: &str, texts: &[String]) -> Result<Vec<StringMatch>, String> {
    let pattern = |text: &String| {
        let unreadable = || format!("{field}: {text:?} is not a valid header name, prefix* or *suffix");
        let named = |name: &str| header_name(name).filter(|name| !name.contains('*')).ok_or_else(unreadable);
        Ok(match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => StringMatch::Presence,
            (Some(suffix), _) => StringMatch::Suffix(named(suffix)?),
            (None, Some(prefix)) => StringMatch::Prefix(named(prefix)?),
            (None, None) => StringMatch::Exact(named(text)?),
        })
    };
    texts.iter().map(pattern).collect()
}

fn body(body: RequestBodyInCheck) -> Result<CheckBody, String> {
    let most = u32::try_from(body.max_request_bytes).ok().filter(|most| (1..=BODY_MAX_BYTES).contains(most));
    let max_bytes = most.ok_or_else(|| {
        format!("includeRequestBodyInCheck.maxRequestBytes is not between 1 and {BODY_MAX_BYTES}")
    })?;
    Ok(CheckBody { max_bytes, allow_partial: body.allow_partial_message, pack_as_bytes: body.pack_as_bytes })
}
