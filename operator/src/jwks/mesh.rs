//! The operator as a client of the mesh: an issuer with enrolled pods is reached through a tunnel,
//! as by any other client.
//!
//! Invariant: the route is the same as that of a node proxy for its pods: no waypoint is bypassed,
//! the peer's identity is verified, and plaintext is used only for destinations that accept no
//! tunnel. The operator has an identity of its own, which policies can name.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use ambit_hbone::{Authority, ConnectError, ConnectHeaders, TunnelStream, settings};
use ambit_identity::{HandshakeError, PrivateKey, Svid, request::csr};
use ambit_model::{NamespacedName, Spiffe, Workload};
use ambit_store::{AddressUpdate, OutboundRequest, Route, Store, alternatives, resolve};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};

use crate::{ca::IssuerWatch, names, state::SharedIndex};

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// No authority can sign the operator's certificate.
    #[error("the mesh has no authority yet")]
    NoAuthority,
    /// The operator's certificate cannot be created or used.
    #[error("the operator has no certificate: {0}")]
    Certificate(#[from] ambit_identity::Error),
    /// The peer has an unexpected identity, or the handshake failed.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The connection was lost.
    #[error("{0}")]
    Connection(#[from] ambit_hbone::Error),
    /// The peer refused, for example by policy.
    #[error("{0}")]
    Refused(#[from] ConnectError),
}

/// Routes and authenticates the operator's connections.
#[derive(Clone, Debug)]
pub(crate) struct MeshClient {
    index: SharedIndex,
    issuer: IssuerWatch,
    /// The operator's own pod.
    pod: NamespacedName,
}

impl MeshClient {
    /// The client for the operator's pod `pod_name`.
    pub(crate) fn new(index: SharedIndex, issuer: IssuerWatch, pod_name: &str) -> Self {
        Self { index, issuer, pod: NamespacedName::new(names::NAMESPACE, pod_name) }
    }

    /// In an empty mesh.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        let (_, issuer) = tokio::sync::watch::channel(None);
        Self::new(
            SharedIndex::new(ambit_index::Index::new(ambit_index::Settings::default())),
            issuer,
            "operator",
        )
    }

    /// The routes to an address, in the order to try them.
    pub(crate) fn ways(&self, destination: SocketAddr) -> Vec<Route> {
        let (workloads, services) = self.index.read().leading_to(destination.ip());
        let workloads = workloads.iter().map(|w| AddressUpdate::Workload(Workload::clone(w)));
        let services = services.iter().map(|s| AddressUpdate::Service(s.as_ref().clone()));
        let store = Store::new();
        store.apply_addresses(workloads.chain(services).collect(), &[]);
        let (source, snapshot, pick) = (self.source(), store.load(), rand::random());
        let request = OutboundRequest { source: &source, destination };
        let first = resolve(&snapshot, request, pick);
        std::iter::once(first).chain(alternatives(&snapshot, request, pick)).collect()
    }

    /// A new certificate for the operator, because keys are fetched rarely. Waits for the mesh's
    /// authority.
    ///
    /// # Errors
    /// When there will be no authority any more, or it cannot sign.
    pub(crate) async fn certificate(&self) -> Result<Svid, TunnelError> {
        let mut issuer = self.issuer.clone();
        let issuer = issuer.wait_for(Option::is_some).await.map_err(|_| TunnelError::NoAuthority)?.clone();
        let issuer = issuer.ok_or(TunnelError::NoAuthority)?;
        let source = self.source();
        let identity = Spiffe {
            trust_domain: issuer.trust_domain.clone(),
            namespace: source.namespace.clone(),
            service_account: source.service_account.clone(),
        };
        let (key, now) = (PrivateKey::generate()?, SystemTime::now());
        let request = csr(&key, &identity)?;
        let chain = issuer.authority.sign(&request, &identity, issuer.certificate_ttl, now)?;
        Ok(Svid::new(&key, &chain, &identity, now)?)
    }

    /// The operator's pod in the model; outside of a cluster, a substitute.
    fn source(&self) -> Arc<Workload> {
        let index = self.index.read();
        index.workload_of(&self.pod).cloned().unwrap_or_else(|| {
            Arc::new(Workload {
                namespace: names::NAMESPACE.into(),
                service_account: names::OPERATOR.into(),
                ..Workload::default()
            })
        })
    }
}

/// Opens a tunnel to `authority` on a connection to a peer that must have one of the identities;
/// its driver is added to `drivers`.
///
/// # Errors
/// Why there is none; nothing of the request was sent.
pub(crate) async fn open<S>(
    stream: S,
    svid: &Svid,
    expected: &[Spiffe],
    authority: SocketAddr,
    drivers: &mut JoinSet<()>,
) -> Result<TunnelStream, TunnelError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (secured, _peer) = ambit_identity::connect(svid, expected, stream).await?;
    let (send, driver) = ambit_hbone::handshake(secured, settings::CLIENT).await?;
    drivers.spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "The tunnel to an issuer was lost");
        }
    });
    let tunnel = send.connect(&Authority::from(authority), &ConnectHeaders::default()).await?;
    Ok(tunnel.into_stream())
}

#[cfg(test)]
mod tests;
