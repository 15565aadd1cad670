//! Accepting connections and starting their tasks.
//!
//! Invariant: sockets are closed but never shut down, because other processes hold duplicates of
//! them.

use std::{io, pin::pin, rc::Rc};

use ambit_proxy::stage::Stage;
use ambit_runtime::accept;
use ambit_zds::Kind;
use tokio::net::{TcpListener, TcpStream};

use crate::{access_log::Direction, context::Context, error::Error, inbound, outbound, passthrough, sockets};

/// Accepts until the pod's stage changes.
pub(super) async fn run(context: Rc<Context>, kind: Kind, listener: TcpListener) {
    {
        let mut draining = pin!(context.stage.draining());
        loop {
            let (stream, client) = tokio::select! {
                biased;
                () = &mut draining => break,
                accepted = accept::next(&context.pod.uid, || listener.accept()) => accepted,
            };
            begin(&context, kind, stream, client);
        }
    }
    if context.stage.now() == Stage::Draining
        && let Err(error) = take_queued(&context, kind, listener)
    {
        tracing::warn!(pod.uid = %context.pod.uid, %error, "Queued connections are lost");
    }
}

/// Accepts the connections in the kernel's queue before the sockets of a leaving pod are closed,
/// because no other process will.
fn take_queued(context: &Rc<Context>, kind: Kind, listener: TcpListener) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                stream.set_nonblocking(true)?;
                begin(context, kind, TcpStream::from_std(stream)?, client);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn begin(context: &Rc<Context>, kind: Kind, stream: TcpStream, client: std::net::SocketAddr) {
    let client = sockets::canonical(client);
    let place = match context.pod.admit(kind) {
        Ok(place) => place,
        Err(error) => return refuse(context, kind, stream, client, &error),
    };
    let served = context.clone();
    context.tasks.spawn(async move {
        match kind {
            Kind::Outbound => outbound::serve(served, stream, client).await,
            Kind::InboundPlaintext => passthrough::serve(served, stream, client).await,
            Kind::Hbone => inbound::serve(served, stream, client).await,
        }
        drop(place);
    });
}

fn refuse(context: &Context, kind: Kind, stream: TcpStream, client: std::net::SocketAddr, error: &Error) {
    let direction = match kind {
        Kind::Outbound => Direction::Outbound,
        Kind::InboundPlaintext | Kind::Hbone => Direction::Inbound,
    };
    let destination = sockets::original_destination(&stream).ok();
    context.local.flows.refuse(direction, client, destination, error);
    sockets::reset(stream);
}
