//! Outbound connections of the pod: route, connect, copy.
//!
//! Invariant: fails closed. If the destination is unknown, not permitted or not reachable, the
//! pod's connection is reset. Plaintext is sent only on a route for which [`ambit_store::Lookup`]
//! returns plaintext. The proxy never serves its own connections, to prevent loops.

mod dial;
mod tunnel;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use ambit_model::Workload;
use ambit_store::{LookupResult, Route};
use tokio::net::TcpStream;

use crate::{
    access_log::{Direction, End, Record},
    context::Context,
    copy,
    error::Error,
    flow::Flow,
    metrics::{self, Labels, Reporter, ResponseFlags, Security},
    sockets,
};

use dial::{Reached, Upstream, reach};

/// Serves one connection of the pod until it ends.
pub(crate) async fn serve(context: Rc<Context>, mut stream: TcpStream, client: SocketAddr) {
    let begun = Instant::now();
    sockets::tune(&stream);
    let (source, destination) = match ends(&context, &stream).await {
        Ok(ends) => ends,
        Err((destination, error)) => {
            context.local.flows.refuse(Direction::Outbound, client, destination, &error);
            return sockets::reset(stream);
        }
    };
    let stage = context.stage.clone();
    let reached = async {
        let reached = reach(&context, &source, client, destination).await;
        (open(&context, &source, &reached, [client, destination], begun), reached.outcome)
    };
    let (flow, upstream) = tokio::select! {
        biased;
        cut = stage.cut() => {
            context.local.flows.refuse(Direction::Outbound, client, Some(destination), &cut.into());
            return sockets::reset(stream);
        }
        reached = reached => reached,
    };
    let result = match upstream {
        Ok(upstream) => tokio::select! {
            biased;
            cut = stage.cut() => Err(cut.into()),
            copied = exchange(&mut stream, upstream, &flow) => copied,
        },
        Err(error) => Err(error),
    };
    if result.is_err() {
        sockets::reset(stream);
    }
    flow.finish(result);
}

async fn exchange(stream: &mut TcpStream, upstream: Upstream, flow: &Flow) -> Result<(), Error> {
    match upstream {
        Upstream::Tunnel(tunnel) => {
            ambit_hbone::copy(tunnel, stream, flow.counters()).await?;
            Ok(())
        }
        Upstream::Plain(mut far) => {
            let copied = copy::copy(stream, &mut far, flow.counters()).await;
            if copied.is_err() {
                sockets::reset(far);
            }
            copied
        }
    }
}

/// Determines the client and the destination.
async fn ends(
    context: &Context,
    stream: &TcpStream,
) -> Result<(Arc<Workload>, SocketAddr), (Option<SocketAddr>, Error)> {
    let destination = sockets::original_destination(stream).map_err(|error| (None, error))?;
    // Redirected connections never have a loopback destination, so the client connected to the
    // listener itself.
    let dials_listener = destination.ip().is_loopback() || destination.ip().is_unspecified();
    if dials_listener || ambit_netns::is_proxys_own(stream) {
        return Err((Some(destination), Error::SelfCall(destination)));
    }
    let source = context.workload().await.map_err(|error| (Some(destination), error))?;
    Ok((source, destination))
}

/// Starts accounting for a connection whose route is known.
fn open(
    context: &Context,
    source: &Workload,
    Reached { route, looked, .. }: &Reached,
    [client, destination]: [SocketAddr; 2],
    begun: Instant,
) -> Flow {
    let (address, authority) = match route {
        Route::Hbone { address, authority, .. } => (*address, Some(*authority)),
        Route::Tcp { address, .. } => (*address, None),
        Route::Unknown(_) | Route::Refused(_) => (destination, None),
    };
    let proven = |workload: &Workload| authority.map(|_| workload.identity());
    let upstream = route.upstream();
    let labels = Labels {
        reporter: Reporter::Source,
        source: metrics::End::new(Some(source), proven(source)),
        destination: metrics::End::new(upstream.map(AsRef::as_ref), upstream.and_then(|w| proven(w))),
        service: route.service().map(|service| service.key()),
        flags: ResponseFlags::None,
        security: authority.map_or(Security::Unknown, |_| Security::MutualTls),
    };
    let far = upstream.map_or_else(
        || End { addr: Some(address), ..End::default() },
        |workload| End::of(workload, address, proven(workload)),
    );
    let mut record = Record::between(Direction::Outbound, End::of(source, client, proven(source)), far);
    record.hbone_addr = authority.map(|authority| authority.to_string().into());
    record.lookup = looked.map(LookupResult::as_str);
    record.service = route.service().map(|service| service.hostname.clone());
    context.local.flows.open(labels, record, begun)
}
