//! One CONNECT: everything that can fail before the response, then copying.
//!
//! Invariant: 200 is sent only after policy admitted the peer and the connection to the application
//! was established.

use std::{rc::Rc, sync::Arc, time::Instant};

use ambit_hbone::{ConnectRequest, Responder, Tunnel};
use ambit_model::{Connection, NamespacedName, NetworkAddress, Workload};
use ambit_proxy::tunnel::refuse;
use http::StatusCode;
use tokio::net::TcpStream;

use super::{
    peer::Peer,
    target::{Refused, Target, target},
};
use crate::{
    access_log::{Direction, End, Record},
    connections::Admitted,
    context::Context,
    error::Error,
    flow::Flow,
    metrics::{self, Labels, Reporter, ResponseFlags, Security},
    passthrough::only_service,
    sockets,
};

/// Serves one tunnel until it ends.
pub(super) async fn serve(
    context: Rc<Context>,
    peer: Rc<Peer>,
    request: ConnectRequest,
    responder: Responder,
) {
    let begun = Instant::now();
    let workload = match context.workload().await {
        Ok(workload) => workload,
        Err(error) => {
            context.local.flows.refuse(Direction::Inbound, peer.client, Some(peer.local), &error);
            return refuse(responder, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let target = target(&request.authority, peer.local, &workload, &context.local.shared.store.load());
    let named = target.as_ref().ok().and_then(|target| target.service.clone());
    let flow = open(&context, &peer, &workload, (&request, named), begun);
    let prepared = match target {
        Ok(target) => prepare(&context, &peer, &workload, &target).await,
        Err(refused) => Err(refused),
    };
    let result = match prepared {
        Ok((admitted, app)) => match responder.accept(Some(&context.baggage(&workload))) {
            Ok(tunnel) => exchange(&context, admitted, (tunnel, app), &flow).await,
            Err(error) => {
                sockets::reset(app);
                Err(Error::Respond(error))
            }
        },
        Err(Refused { status, error }) => {
            refuse(responder, status);
            Err(error)
        }
    };
    flow.finish(result);
}

/// Evaluates policy, then connects to the application.
async fn prepare(
    context: &Context,
    peer: &Peer,
    workload: &Arc<Workload>,
    target: &Target,
) -> Result<(Admitted, TcpStream), Refused> {
    let refused = |status, error| Refused { status, error };
    let connection = Connection {
        source: Some(peer.identity.clone()),
        source_ip: peer.client.ip(),
        destination_ip: target.address.ip(),
        destination_port: target.address.port(),
    };
    let local = &context.local;
    let mut admitted = local
        .connections
        .admit(&local.shared.store.load(), workload, connection)
        .map_err(|verdict| refused(StatusCode::UNAUTHORIZED, Error::Policy(verdict)))?;
    let source = (peer.client.ip() != target.address.ip()).then(|| peer.client.ip());
    let app = tokio::select! {
        biased;
        cut = context.stage.cut() => return Err(refused(StatusCode::SERVICE_UNAVAILABLE, cut.into())),
        verdict = admitted.denied() => {
            return Err(refused(StatusCode::UNAUTHORIZED, Error::PolicyChanged(verdict)));
        }
        connected = sockets::connect_app(&context.pod.netns, source, target.address) => {
            connected.map_err(|error| refused(StatusCode::SERVICE_UNAVAILABLE, error))?
        }
    };
    Ok((admitted, app))
}

async fn exchange(
    context: &Context,
    mut admitted: Admitted,
    (tunnel, mut app): (Tunnel, TcpStream),
    flow: &Flow,
) -> Result<(), Error> {
    let result = tokio::select! {
        biased;
        cut = context.stage.cut() => Err(cut.into()),
        verdict = admitted.denied() => Err(Error::PolicyChanged(verdict)),
        copied = ambit_hbone::copy(tunnel, &mut app, flow.counters()) => copied.map(drop).map_err(Error::from),
    };
    if result.is_err() {
        sockets::reset(app);
    }
    result
}

fn open(
    context: &Context,
    peer: &Peer,
    workload: &Workload,
    (request, named): (&ConnectRequest, Option<NamespacedName>),
    begun: Instant,
) -> Flow {
    let address = NetworkAddress { network: workload.network.clone(), address: peer.client.ip() };
    let snapshot = context.local.shared.store.load();
    let by_address = snapshot.workload_by_address(&address);
    // An address may have been reassigned, so it must match the certificate.
    let source = by_address.filter(|source| source.identity() == peer.identity);
    let identity = || Some(peer.identity.clone());
    let service = named.or_else(|| asked_service(request, workload));
    let labels = Labels {
        reporter: Reporter::Destination,
        source: metrics::End::new(source.map(AsRef::as_ref), identity()),
        destination: metrics::End::new(Some(workload), Some(workload.identity())),
        service,
        flags: ResponseFlags::None,
        security: Security::MutualTls,
    };
    let far = source.map_or_else(
        || End {
            addr: Some(peer.client),
            namespace: Some(peer.identity.namespace.clone()),
            identity: identity(),
            ..End::default()
        },
        |source| End::of(source, peer.client, identity()),
    );
    let near = End::of(workload, peer.local, Some(workload.identity()));
    let mut record = Record::between(Direction::Inbound, far, near);
    record.hbone_addr = Some(request.authority.to_string().into());
    record.service = labels.service.as_ref().map(|service| service.name.clone());
    context.local.flows.open(labels, record, begun)
}

/// The service that the client's headers name, if the workload serves it; otherwise the only one it
/// serves.
fn asked_service(request: &ConnectRequest, workload: &Workload) -> Option<NamespacedName> {
    let hint = request.headers.forwarded.as_ref().and_then(|forwarded| forwarded.host.as_deref());
    match hint {
        Some(host) => workload.services.keys().find(|key| &*key.name == host).cloned(),
        None => only_service(workload),
    }
}
