//! From a listening socket to tasks.
//!
//! Invariant: sockets are never shut down, because other processes hold duplicates of them: this end is only closed.

use std::{io, pin::pin, rc::Rc, time::Duration};

use ambit_zds::Kind;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    access_log::Direction, context::Context, error::Error, inbound, outbound, passthrough, sockets,
    stage::Stage,
};

/// Pause after `accept` failed, so that running out of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the pod's stage says otherwise.
pub(super) async fn run(context: Rc<Context>, kind: Kind, listener: TcpListener) {
    {
        let mut leaving = pin!(context.stage.leaving());
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut leaving => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => begin(&context, kind, stream, client),
                Err(error) => {
                    tracing::warn!(pod.uid = %context.pod.uid, %error, "A connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    if context.stage.now() == Stage::Leaving
        && let Err(error) = take_queued(&context, kind, listener)
    {
        tracing::warn!(pod.uid = %context.pod.uid, %error, "Queued connections are lost");
    }
}

/// Takes what the kernel has accepted and nobody else will: the pod leaves, and its sockets are closed after this.
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
    context.spawn(async move {
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
