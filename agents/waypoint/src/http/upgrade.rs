//! Connections that switch to another protocol (WebSocket): bytes both ways from then on.
//!
//! Invariant: a switched connection is watched by policy as a byte stream is, and counts as under way until it ends.

use ambit_model::authorization::Token;
use http::{Response, StatusCode, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{
    exchange::Exchange,
    judged::judge,
    response_body::{Held, ResponseBody},
};
use crate::service::Service;

/// A client that wants to switch, and its request as it was judged.
pub(super) struct Pending {
    client: OnUpgrade,
    judged: Box<(Parts, Option<Token>)>,
}

/// The client's side, taken out of its request.
pub(super) fn wish(parts: &mut Parts, judged: Option<Box<(Parts, Option<Token>)>>) -> Option<Pending> {
    Some(Pending { client: parts.extensions.remove::<OnUpgrade>()?, judged: judged? })
}

/// Switches both sides, and moves bytes between them.
pub(super) fn switch(
    mut response: Response<Incoming>,
    pending: Option<Pending>,
    (held, mut exchange): (Held, Exchange),
) -> Response<ResponseBody> {
    let progress = exchange.session.progress.clone();
    let endpoint = response.extensions_mut().remove::<OnUpgrade>();
    let (Some(Pending { client, judged }), Some(endpoint)) = (pending, endpoint) else {
        // Nobody asked for it.
        exchange.flags.push("UPE");
        let mut refused = Response::new(ResponseBody::own(bytes::Bytes::new(), progress, exchange));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return refused;
    };
    let session = exchange.session.clone();
    let local = session.local.clone();
    let service = session.service();
    local.clone().spawn(async move {
        let connection = session.connection.clone();
        let again = move |service: &Service| judge(service, &connection, &judged.0, judged.1.as_ref());
        let Ok(mut admitted) = local.streams.admit(&service, again) else { return };
        let switched = async {
            let (client, endpoint) = tokio::try_join!(client, endpoint)?;
            let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
            // Either end may break off; that is the end of the other too.
            let copied = copy_bidirectional(&mut client, &mut endpoint).await;
            Ok::<_, hyper::Error>(copied.ok())
        };
        tokio::select! {
            verdict = admitted.denied() => {
                tracing::info!(service = %service.bound.key, %verdict, "Switched connection is cut: policy changed");
            }
            ended = switched => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "A connection did not switch");
                }
            }
        }
        drop(held);
    });
    let (parts, _no_body) = response.into_parts();
    let mut answer = Response::new(ResponseBody::own(bytes::Bytes::new(), progress, exchange));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    answer
}
