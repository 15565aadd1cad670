//! Tunnels in memory, for tests.

use ambit_hbone::{
    ConnectHeaders, SendConnect, TunnelStream, handshake, serve,
    settings::{CLIENT, SERVER},
};
use tokio::{io::duplex, sync::mpsc};

/// Both ends of one tunnel; the connection lives as long as the sender.
pub(crate) async fn tunnels() -> (SendConnect, TunnelStream, TunnelStream) {
    let (near, far) = duplex(64 << 10);
    let (ask, mut asked) = mpsc::unbounded_channel();
    tokio::spawn(serve(far, SERVER, std::future::pending(), move |_, responder| {
        _ = ask.send(responder);
    }));
    let (send, driver) = handshake(near, CLIENT).await.unwrap();
    tokio::spawn(driver);
    let (authority, headers) = ("10.0.0.1:80".parse().unwrap(), ConnectHeaders::default());
    let accepting = async { asked.recv().await.unwrap().accept(None).unwrap() };
    let (near, far) = tokio::join!(send.connect(&authority, &headers), accepting);
    (send, near.unwrap().into_stream(), far.into_stream())
}
