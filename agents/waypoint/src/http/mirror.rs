//! Mirrors: copies of requests to other services, whose responses are discarded.
//!
//! Invariant: a copy never delays, fails or changes the original request. Copies that are not delivered are counted; no
//! endpoint is blamed for a body that the client cut off.

use std::{rc::Rc, sync::Arc, time::Duration};

use ambit_resilience::Outcome;
use http::{Request, request::Parts};
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::{headers, plan::version};
use crate::{
    body::{BytesSeen, ClientBody, Cut, Ended, RequestBody, is_unsized},
    context::Local,
    upstream::{HttpVersion, Selection, Upstream},
};

/// How long a copy may take after its body has ended, including its response.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends a copy to each destination, while the body flows.
pub(super) fn send(
    local: &Rc<Local>,
    mirrors: &[&Arc<Upstream>],
    parts: &Parts,
    (body, seen): (&ClientBody, &BytesSeen),
) {
    for upstream in mirrors {
        let (parts, (body, ended)) = (parts.clone(), seen.copy(body));
        let (local, upstream) = (local.clone(), Arc::clone(upstream));
        // Not waited for when the process ends: the response is discarded anyway.
        tokio::task::spawn_local(async move {
            let late = async {
                if let Some(ended) = &ended {
                    ended.wait().await;
                    // An endpoint that does not read the body would not notice either.
                    if let Some(cut @ (Cut::Behind | Cut::Broken)) = ended.cut() {
                        return cut.to_string();
                    }
                }
                sleep(MIRROR_TIMEOUT).await;
                "it took too long".to_owned()
            };
            let reason = tokio::select! {
                biased;
                delivered = deliver(&local, &upstream, (parts, body), ended.as_ref()) => delivered.err(),
                late = late => Some(late),
            };
            if let Some(reason) = reason {
                local.telemetry.copy_failed();
                tracing::debug!(destination = %upstream.destination.service, reason, "A copy was not delivered");
            }
        });
    }
}

async fn deliver(
    local: &Rc<Local>,
    upstream: &Upstream,
    (mut parts, body): (Parts, RequestBody),
    ended: Option<&Ended>,
) -> Result<(), String> {
    let _permit = upstream.breaker.request().map_err(|overflow| overflow.to_string())?;
    let client = std::net::Ipv4Addr::UNSPECIFIED.into();
    let selection = Selection { head: None, client, node: None, pod: None };
    let chosen = upstream.choose(selection, &[], rand::random()).ok_or("no endpoint")?;
    let version = version(upstream.protocol(), &parts);
    headers::stays(&mut parts.headers);
    match version {
        HttpVersion::Http1 => headers::for_http1(&mut parts, is_unsized(&body)),
        HttpVersion::Http2 => headers::for_http2(&mut parts),
    }
    let leased = local.upstreams.lease((upstream, &chosen.endpoint), version, &mut false).await;
    let mut lease = leased.map_err(|failure| failure.to_string())?;
    let now = std::time::Instant::now;
    match lease.send(Request::from_parts(parts, body)).await {
        Ok(response) => {
            let is_bad = response.status().is_server_error();
            let outcome = if is_bad { Outcome::Bad } else { Outcome::Good };
            local.telemetry.ejected(chosen.under_way.record(outcome, now()));
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                frame.map_err(|error| error.to_string())?;
            }
            lease.give_back();
            Ok(())
        }
        Err(unanswered) => match ended.and_then(Ended::cut) {
            // Its body was incomplete: not the endpoint's fault.
            Some(cut) => Err(cut.to_string()),
            None => {
                local.telemetry.ejected(chosen.under_way.record(Outcome::Lost, now()));
                Err(unanswered.error.to_string())
            }
        },
    }
}
