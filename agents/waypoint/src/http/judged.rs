//! Evaluates authorization policies for a request.
//!
//! Invariant: the request that is evaluated is the one that is forwarded: afterwards only filters of the route change its
//! path or host.

use ambit_model::{
    Connection, Policy, Verdict,
    authorization::{Headers, Request, Token},
};
use ambit_route::RequestHead;
use http::{HeaderMap, HeaderName, request::Parts};

use crate::service::Service;

/// The header fields of a request, as policies look them up.
struct Fields<'a>(&'a HeaderMap);

impl Headers for Fields<'_> {
    fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            self.0.get_all(name).iter().for_each(|value| visit(value.as_bytes()));
        }
    }
}

/// A request as policies see it.
fn view<'a>(
    (parts, fields): (&'a Parts, &'a Fields<'a>),
    connection: &Connection,
    token: Option<&'a Token>,
) -> Request<'a> {
    let head = RequestHead::from(parts);
    Request {
        host: head.authority().unwrap_or_default(),
        method: parts.method.as_str(),
        path: head.path(),
        headers: fields,
        token,
        remote_ip: connection.source_ip,
        sni: None,
    }
}

/// Whether a request matches a policy, before its token is validated.
pub(super) fn meets(policy: &Policy, connection: &Connection, parts: &Parts) -> bool {
    policy.matches_request(connection, &view((parts, &Fields(&parts.headers)), connection, None))
}

/// Proof that authorization policies allowed a request. Only [`judge`] makes one, and a plan needs one, so that no request is
/// forwarded that was not evaluated.
#[derive(Debug)]
pub(super) struct Judged(());

/// Evaluates a request, and logs audits and the verdicts of policies in dry run.
pub(super) fn judge(
    service: &Service,
    connection: &Connection,
    parts: &Parts,
    token: Option<&Token>,
) -> Result<Judged, Verdict> {
    if service.policies.is_empty() {
        return Ok(Judged(()));
    }
    let fields = Fields(&parts.headers);
    let request = view((parts, &fields), connection, token);
    let service_key = &service.bound.key;
    if let Some(verdict) = service.policies.rehearse_request(connection, &request) {
        tracing::info!(service = %service_key, %verdict, "Policies in dry run would decide");
    }
    for policy in service.policies.audited_by(connection, Some(&request)) {
        tracing::info!(
            service = %service_key,
            %policy,
            source.ip = %connection.source_ip,
            method = request.method,
            path = request.path,
            "Audited"
        );
    }
    let verdict = service.policies.judge(connection, &request);
    if verdict.is_allowed() { Ok(Judged(())) } else { Err(verdict) }
}
