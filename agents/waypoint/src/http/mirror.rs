//! Copies of requests to other services; their answers are thrown away.
//!
//! Invariant: a copy never delays, fails or changes the request it is made of. Requests whose body is too large to hold
//! are not copied.

use std::{rc::Rc, sync::Arc, time::Duration};

use ambit_resilience::Outcome;
use http::{Request, request::Parts};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{RequestBody, headers, request_body::Held};
use crate::{
    context::Local,
    upstream::{Asker, Spoken, Upstream},
};

/// How long a copy may take, its answer included.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends a copy to each destination, once all of the body has come.
pub(super) fn send(local: &Rc<Local>, mirrors: &[&Arc<Upstream>], parts: &Parts, body: &Held) {
    for upstream in mirrors {
        let (parts, body) = (parts.clone(), body.copied());
        let (local, upstream) = (local.clone(), Arc::clone(upstream));
        // Not waited for when the process ends: nobody asked for an answer.
        tokio::task::spawn_local(async move {
            let Some(body) = body.await else { return };
            match timeout(MIRROR_TIMEOUT, deliver(&local, &upstream, (parts, body))).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    tracing::debug!(destination = %upstream.destination.service, reason, "A copy was not delivered");
                }
                Err(_elapsed) => {
                    tracing::debug!(destination = %upstream.destination.service, "A copy took too long");
                }
            }
        });
    }
}

async fn deliver(
    local: &Rc<Local>,
    upstream: &Upstream,
    (mut parts, body): (Parts, RequestBody),
) -> Result<(), String> {
    let _permit = upstream.breaker.request().map_err(|overflow| overflow.to_string())?;
    let asker = Asker { head: None, address: std::net::Ipv4Addr::UNSPECIFIED.into(), pod: None };
    let chosen = upstream.choose(asker, &[], rand::random()).ok_or("no endpoint")?;
    let spoken = match upstream.protocol() {
        ambit_model::AppProtocol::Http2 => Spoken::Http2,
        ambit_model::AppProtocol::Detect
        | ambit_model::AppProtocol::Http
        | ambit_model::AppProtocol::Tcp
        | ambit_model::AppProtocol::Tls => Spoken::Http1,
    };
    match spoken {
        Spoken::Http1 => headers::for_http1(&mut parts, None),
        Spoken::Http2 => headers::for_http2(&mut parts),
    }
    let leased = local.upstreams.lease(local, (upstream, &chosen.target), spoken, &mut false).await;
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
        Err(unanswered) => {
            local.telemetry.ejected(chosen.under_way.record(Outcome::Lost, now()));
            Err(unanswered.error.to_string())
        }
    }
}
