//! TLS to servers outside of the mesh, such as the one that publishes an issuer's keys.
//!
//! Invariant: the server's certificate contains the dialed name and leads to a public root; the
//! mesh's own roots are not trusted here.

use std::{io, sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Error, tls};

/// The longest wait for a handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// A TLS client for public servers.
#[derive(Clone)]
pub struct WebClient(Arc<rustls::ClientConfig>);

impl WebClient {
    /// A client with ALPN for HTTP/1.1.
    ///
    /// # Errors
    /// When TLS cannot be configured, which is a bug.
    pub fn new() -> Result<Self, Error> {
        tls::web_client().map(Self)
    }

    /// Runs a handshake on an open connection.
    ///
    /// # Errors
    /// When the server cannot prove that it is `name`, or the handshake takes too long.
    pub async fn connect<IO>(&self, name: &str, stream: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let handshake = TlsConnector::from(self.0.clone()).connect(name, stream);
        timeout(HANDSHAKE_TIME_MAX, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustls::ServerConfig;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::Authority;

    #[tokio::test]
    async fn a_server_that_only_the_mesh_vouches_for_is_refused() {
        let day = Duration::from_secs(86_400);
        let authority = Authority::self_signed("cluster.local", day * 40, SystemTime::now()).unwrap();
        let certificate = authority.server_certificate("issuer.example", day, SystemTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = ServerConfig::clone(&tls::plain_server(&certificate.credentials).unwrap());
        config.alpn_protocols.clear();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_err()
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let refused = WebClient::new().unwrap().connect("issuer.example", stream).await.unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
        assert!(served.await.unwrap());
    }
}
