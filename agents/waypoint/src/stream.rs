//! Byte streams: authorized as a connection, then copied between client and endpoint.
//!
//! Invariant: bytes reach an endpoint only while policy allows the client.

use std::{pin::pin, rc::Rc, sync::Arc, time::Instant};

use ambit_hbone::{ConnectHeaders, Counters, Forwarded, TunnelStream};
use ambit_model::bound::Backend;
use ambit_proxy::bytes::{ByteCount, COUNT_EVERY};
use ambit_resilience::Outcome;
use ambit_route::pick;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    time::{Instant as Moment, interval_at},
};

mod counting;
mod flow;

use counting::Counting;
pub use flow::{Flow, StreamError};

use crate::{
    context::Local,
    detect::{self, ServerName},
    peer::Peer,
    service::Service,
    streams,
    target::Target,
    upstream::{Chosen, Selection, Stream, Upstream},
};

/// Endpoints that are tried because the ones before could not be reached.
const CONNECT_TRIES_MAX: usize = 3;

/// Serves one stream until it ends.
pub async fn serve(
    local: Rc<Local>,
    peer: Rc<Peer>,
    target: Target,
    (tunnel, begun): (TunnelStream, Instant),
) {
    let Target { service, address: destination, pod } = target;
    let mut flow = Flow {
        peer,
        service,
        destination,
        pod,
        begun,
        upstream: None,
        endpoint: None,
        bytes: ByteCount::default(),
        counted: None,
    };
    let ended = run(&local, &mut flow, tunnel).await;
    flow.tell();
    let client = local.client(&flow.peer);
    flow.report(&local.telemetry, &client, ended.err().as_ref());
}

async fn run(local: &Rc<Local>, flow: &mut Flow, mut tunnel: TunnelStream) -> Result<(), StreamError> {
    let Some(name) = server_name(local, flow, &mut tunnel).await? else {
        return tunnel.shutdown().await.map_err(StreamError::Socket);
    };
    // The service may have changed during the wait for the first bytes.
    if let Some(service) = local.shared.services.load().get(&flow.service.bound.key) {
        flow.service = service.clone();
    }
    let connection = flow.peer.connection(flow.destination);
    let judged = name.clone();
    let judge = move |service: &Service| streams::judge(service, &connection, &judged);
    let mut admitted = local.streams.admit(&flow.service, judge).map_err(StreamError::Policy)?;
    let upstream = backend(&flow.service, flow, &name)?;
    flow.upstream = Some(upstream.clone());
    // A stream is a connection and a request at once.
    let overflowed = |overflow| {
        local.telemetry.overflowed(overflow);
        StreamError::Overflow(overflow)
    };
    let _connection = upstream.connections.acquire().map_err(overflowed)?;
    let _request = upstream.breaker.request().map_err(overflowed)?;
    let moved = async {
        let (stream, chosen) = reach(local, &upstream, flow).await?;
        let client = local.client(&flow.peer);
        flow.counted = Some(local.telemetry.opened(&flow.ends(&client)));
        let flow = &*flow;
        let mut copied = pin!(exchange(stream, tunnel, &flow.bytes.counters));
        let mut tells = interval_at(Moment::now() + COUNT_EVERY, COUNT_EVERY);
        let ended = loop {
            tokio::select! {
                biased;
                ended = copied.as_mut() => break ended,
                _ = tells.tick() => flow.tell(),
            }
        };
        drop(chosen);
        ended
    };
    tokio::select! {
        biased;
        verdict = admitted.denied() => Err(StreamError::PolicyChanged(verdict)),
        moved = moved => moved,
    }
}

/// The server name, if a route or a policy depends on it. `None` if the process drains before the client has sent one:
/// it can connect elsewhere.
async fn server_name(
    local: &Local,
    flow: &Flow,
    tunnel: &mut TunnelStream,
) -> Result<Option<ServerName>, StreamError> {
    let port = flow.service.port(flow.destination.port()).filter(|_| flow.pod.is_none());
    let is_routed = port.is_some_and(|port| !port.routes(&flow.peer.identity.namespace).named.is_empty());
    if !is_routed && !flow.service.asks_server_name {
        return Ok(Some(ServerName::Unknown));
    }
    tokio::select! {
        biased;
        name = detect::look(tunnel, is_routed) => name.map(Some).map_err(StreamError::Socket),
        () = local.stage.draining(), if is_routed => Ok(None),
    }
}

fn backend(service: &Service, flow: &Flow, name: &ServerName) -> Result<Arc<Upstream>, StreamError> {
    if let Some(upstream) = flow.pod.as_ref().and_then(|pod| pod.upstream.as_ref()) {
        return Ok(upstream.clone());
    }
    let nowhere = || StreamError::InvalidBackend("it has no backend with a weight".into());
    let port = service.port(flow.destination.port()).ok_or_else(nowhere)?;
    let routes = port.routes(&flow.peer.identity.namespace).stream_of(name);
    let Some(split) = routes.filter(|_| flow.pod.is_none()) else {
        return port.own.clone().ok_or_else(nowhere);
    };
    let chosen = pick(&split.backends, rand::random()).ok_or_else(nowhere)?;
    if let Some(Backend::Invalid(reason)) = split.backends.get(chosen).map(|backend| &backend.backend) {
        return Err(StreamError::InvalidBackend(reason.clone()));
    }
    split.ways.get(chosen).cloned().flatten().ok_or_else(nowhere)
}

/// Opens a stream to an endpoint, and to others if the first cannot be reached.
async fn reach(
    local: &Rc<Local>,
    upstream: &Upstream,
    flow: &mut Flow,
) -> Result<(Stream, Chosen), StreamError> {
    let pod = flow.pod.as_ref().map(|pod| pod.uid.clone());
    let client = || local.client(&flow.peer).workload;
    let client = upstream.is_node_local().then(client).flatten();
    let node = client.as_ref().map(|client| &*client.node);
    let selection = Selection { head: None, client: flow.peer.client.ip(), node, pod: pod.as_ref() };
    let host = Some(flow.service.hostname().to_owned()).filter(|host| !host.is_empty());
    let forwarded = Some(Forwarded { client: Some(flow.peer.client), host });
    let headers = ConnectHeaders { forwarded, ..ConnectHeaders::default() };
    let mut tried = Vec::new();
    loop {
        let chosen = upstream.choose(selection, &tried, rand::random());
        let chosen = chosen.ok_or(StreamError::NoHealthyEndpoint)?;
        flow.endpoint = Some(chosen.endpoint.clone());
        let opened = local.upstreams.open(&chosen.endpoint, &headers).await;
        let outcome = if opened.is_ok() { Outcome::Good } else { Outcome::Lost };
        local.telemetry.ejected(chosen.under_way.record(outcome, Instant::now()));
        tried.push(chosen.endpoint.workload.uid.clone());
        match opened {
            Ok(stream) => return Ok((stream, chosen)),
            Err(failure) if tried.len() >= CONNECT_TRIES_MAX => return Err(failure.into()),
            Err(failure) => tracing::debug!(%failure, "Endpoint failed, trying another"),
        }
    }
}

async fn exchange(stream: Stream, mut tunnel: TunnelStream, counters: &Counters) -> Result<(), StreamError> {
    match stream {
        // Counted from the endpoint's side: bytes sent to it, and received from it.
        Stream::Tunnel(endpoint) => {
            ambit_hbone::copy(endpoint, tunnel, counters).await?;
            Ok(())
        }
        Stream::Plain(endpoint) => {
            let mut endpoint = Counting { stream: endpoint, counters };
            let copied = copy_bidirectional(&mut tunnel, &mut endpoint).await;
            copied.map(|_moved| ()).map_err(|error| {
                crate::sockets::reset(endpoint.stream);
                StreamError::Socket(error)
            })
        }
    }
}
