//! Connections that switch to another protocol (WebSocket): from then on bytes are copied both ways.
//!
//! Invariant: a switched connection is re-evaluated on policy changes as a byte stream is, and counts as an open request
//! until it ends.

use ambit_model::authorization::Token;
use http::{Response, StatusCode, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::{
    exchange::Exchange,
    extended_connect,
    external::stands,
    judged::judge,
    response_body::{Held, ResponseBody},
};
use crate::service::Service;

/// The client's side of a connection that may switch. If it does not, it is shut down in order: a mere drop would cut off
/// the response.
#[derive(Debug, Default)]
pub(super) struct Client {
    switch: Option<OnUpgrade>,
    /// The client used extended CONNECT, so that every 2xx status means that the connection has switched.
    pub(super) is_extended: bool,
}

impl Client {
    /// Takes it out of a request.
    pub(super) fn of(parts: &mut Parts) -> Self {
        let switch = parts.extensions.remove::<OnUpgrade>();
        Self { switch, is_extended: extended_connect::is_one(parts) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(client) = self.switch.take() else { return };
        tokio::task::spawn_local(async move {
            // Ready once the connection is over; an error means that it ended by itself.
            if let Ok(client) = client.await {
                // The peer may have disconnected.
                let _ = TokioIo::new(client).shutdown().await;
            }
        });
    }
}

/// A request that asks to switch protocols, as policy allowed it.
pub(super) type SwitchingRequest = Box<(Parts, Option<Token>)>;

/// Switches both sides, and copies bytes between them.
pub(super) fn switch(
    mut response: Response<Incoming>,
    (mut client, request): (Client, Option<SwitchingRequest>),
    (held, mut exchange): (Held, Box<Exchange>),
) -> Response<ResponseBody> {
    let progress = exchange.session.progress.clone();
    let is_extended = client.is_extended;
    let endpoint = response.extensions_mut().remove::<OnUpgrade>();
    let (Some(request), Some(endpoint), Some(client)) = (request, endpoint, client.switch.take()) else {
        // The endpoint switched unasked.
        exchange.flags.push("UPE");
        let mut refused = Response::new(ResponseBody::own(bytes::Bytes::new(), progress, exchange));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return refused;
    };
    let session = exchange.session.clone();
    let local = session.local.clone();
    let service = session.service();
    local.clone().tasks.spawn(async move {
        let connection = session.connection.clone();
        let again = move |service: &Service| {
            stands(service, &connection, &request.0)?;
            judge(service, &connection, &request.0, request.1.as_ref()).map(drop)
        };
        let Ok(mut admitted) = local.streams.admit(&service, again) else { return };
        let switched = async {
            let (client, endpoint) = tokio::try_join!(client, endpoint)?;
            let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
            // If either end fails, the other ends too.
            let copied = copy_bidirectional(&mut client, &mut endpoint).await;
            Ok::<_, hyper::Error>(copied.ok())
        };
        tokio::select! {
            verdict = admitted.denied() => {
                tracing::info!(service = %service.bound.key, %verdict, "Upgraded connection closed: policy changed");
            }
            ended = switched => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "A protocol upgrade failed");
                }
            }
        }
        drop(held);
    });
    let (parts, _no_body) = response.into_parts();
    let mut answer = Response::new(ResponseBody::own(bytes::Bytes::new(), progress, exchange));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    if is_extended {
        extended_connect::answer(&mut answer);
    }
    answer
}
