//! Inbound plaintext: evaluate policy without an identity, connect to the application, copy.
//!
//! Invariant: no byte reaches the application before policy admitted a client without identity.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use ambit_model::{Connection, NetworkAddress, Workload};
use tokio::net::TcpStream;

use crate::{
    access_log::{Direction, End, Record},
    connections::Admitted,
    context::Context,
    copy,
    error::Error,
    flow::Flow,
    metrics::{self, Labels, Reporter, ResponseFlags, Security},
    sockets,
};

/// Serves one plaintext connection to the pod until it ends.
pub(crate) async fn serve(context: Rc<Context>, mut stream: TcpStream, client: SocketAddr) {
    let begun = Instant::now();
    sockets::tune(&stream);
    let (workload, destination) = match ends(&context, &stream).await {
        Ok(ends) => ends,
        Err((destination, error)) => {
            context.local.flows.refuse(Direction::Inbound, client, destination, &error);
            return sockets::reset(stream);
        }
    };
    let flow = open(&context, &workload, [client, destination], begun);
    let connection = Connection {
        source: None,
        source_ip: client.ip(),
        destination_ip: destination.ip(),
        destination_port: destination.port(),
    };
    let local = &context.local;
    let admitted = local.connections.admit(&local.shared.store.load(), &workload, connection);
    let result = match admitted {
        Ok(admitted) => exchange(&context, &mut stream, [client, destination], (admitted, &flow)).await,
        Err(verdict) => Err(Error::Policy(verdict)),
    };
    if result.is_err() {
        sockets::reset(stream);
    }
    flow.finish(result);
}

async fn exchange(
    context: &Context,
    stream: &mut TcpStream,
    [client, destination]: [SocketAddr; 2],
    (mut admitted, flow): (Admitted, &Flow),
) -> Result<(), Error> {
    let copied = async {
        let source = (client.ip() != destination.ip()).then(|| client.ip());
        let mut app = sockets::connect_app(&context.pod.netns, source, destination).await?;
        // The application's side is the pod's.
        let copied = copy::copy(&mut app, stream, flow.counters()).await;
        if copied.is_err() {
            sockets::reset(app);
        }
        copied
    };
    tokio::select! {
        biased;
        cut = context.stage.cut() => Err(cut.into()),
        verdict = admitted.denied() => Err(Error::PolicyChanged(verdict)),
        copied = copied => copied,
    }
}

async fn ends(
    context: &Context,
    stream: &TcpStream,
) -> Result<(Arc<Workload>, SocketAddr), (Option<SocketAddr>, Error)> {
    let destination = sockets::original_destination(stream).map_err(|error| (None, error))?;
    if destination.ip().is_loopback() || sockets::is_own_port(destination.port()) {
        return Err((Some(destination), Error::SelfCall(destination)));
    }
    let workload = context.workload().await.map_err(|error| (Some(destination), error))?;
    Ok((workload, destination))
}

fn open(
    context: &Context,
    workload: &Workload,
    [client, destination]: [SocketAddr; 2],
    begun: Instant,
) -> Flow {
    // Guessed from the address, which is sufficient for a label; policies do not use it.
    let address = NetworkAddress { network: workload.network.clone(), address: client.ip() };
    let snapshot = context.local.shared.store.load();
    let source = snapshot.workload_by_address(&address);
    let labels = Labels {
        reporter: Reporter::Destination,
        source: metrics::End::new(source.map(AsRef::as_ref), None),
        destination: metrics::End::new(Some(workload), None),
        service: only_service(workload),
        flags: ResponseFlags::None,
        security: Security::Unknown,
    };
    let far = source
        .map_or_else(|| End { addr: Some(client), ..End::default() }, |source| End::of(source, client, None));
    let mut record = Record::between(Direction::Inbound, far, End::of(workload, destination, None));
    record.service = labels.service.as_ref().map(|service| service.name.clone());
    context.local.flows.open(labels, record, begun)
}

/// The service of a workload that serves exactly one, used when the client does not name one.
pub(crate) fn only_service(workload: &Workload) -> Option<ambit_model::NamespacedName> {
    let mut services = workload.services.keys();
    let first = services.next()?;
    services.next().is_none().then(|| first.clone())
}
