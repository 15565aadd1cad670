//! The gRPC channel from an agent to the operator.
//!
//! The root bundle is read for each connection, so that rotated roots take effect without a
//! restart. Without a readable bundle no connection is made.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{Error, certificate::parse_pem, tls};

/// The DNS name in the operator's certificate: that of its Service.
pub const OPERATOR_NAME: &str = "ambit-operator.ambit-system.svc";
/// Interval between HTTP/2 PINGs, also while no call is active.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The longest wait for a PING response.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for TCP and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest root bundle that is read, in bytes: several hundred roots.
const ROOTS_MAX_BYTES: usize = 1 << 20;

/// Address of the operator and how to verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// An address, because a static binary cannot resolve names.
    pub address: SocketAddr,
    /// The DNS name that the operator's certificate must contain.
    pub server_name: String,
    /// The PEM file of trusted roots.
    pub roots_path: PathBuf,
}

/// A channel that connects at first use and reconnects after each loss. Calls fail while there is
/// no connection.
///
/// # Errors
/// If the server name is not a DNS name.
pub fn connect(config: ChannelConfig) -> Result<Channel, Error> {
    let name = ServerName::try_from(config.server_name.clone()).map_err(|e| Error::Tls(e.to_string()))?;
    // The scheme is http because the connector, not tonic, does TLS.
    let endpoint = Endpoint::from_shared(format!("http://{}:{}", config.server_name, config.address.port()))
        .map_err(|e| Error::Tls(e.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_uri| {
        let (config, name) = (config.clone(), name.clone());
        async move {
            let dialed = timeout(CONNECT_TIMEOUT, dial(&config, name)).await;
            dialed.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        }
    })))
}

async fn dial(config: &ChannelConfig, name: ServerName<'static>) -> io::Result<TlsStream<TcpStream>> {
    let client = client_config(config).await.map_err(io::Error::other)?;
    let socket = TcpStream::connect(config.address).await?;
    socket.set_nodelay(true)?;
    TlsConnector::from(client).connect(name, socket).await
}

async fn client_config(config: &ChannelConfig) -> Result<std::sync::Arc<rustls::ClientConfig>, Error> {
    let path = || config.roots_path.clone();
    let text = tokio::fs::read_to_string(&config.roots_path)
        .await
        .map_err(|source| Error::File { path: path(), source })?;
    if text.len() > ROOTS_MAX_BYTES {
        return Err(Error::File { path: path(), source: io::ErrorKind::FileTooLarge.into() });
    }
    tls::plain_client(tls::root_store(&parse_pem("the root bundle", &text)?)?)
}
