//! The operator as a client of the mesh: an issuer whose pods are enrolled is asked through a tunnel, as any client asks it.
//!
//! Invariant: the way is the one that a node's proxy takes for its pods: past no waypoint, to no peer but the one expected, and
//! in plaintext only to what takes no tunnel. The operator has its own identity, which policies can name.

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
    /// Nobody can certify the operator.
    #[error("the mesh has no authority yet")]
    NoAuthority,
    /// Its certificate cannot be made or used.
    #[error("the operator has no certificate: {0}")]
    Certificate(#[from] ambit_identity::Error),
    /// The peer is not who it must be, or speaks something else.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The connection was lost.
    #[error("{0}")]
    Connection(#[from] ambit_hbone::Error),
    /// The peer refused, for example by policy.
    #[error("{0}")]
    Refused(#[from] ConnectError),
}

/// Finds ways, and proves who asks.
#[derive(Clone, Debug)]
pub(crate) struct MeshClient {
    index: SharedIndex,
    issuer: IssuerWatch,
    /// The operator's own pod.
    pod: NamespacedName,
}

impl MeshClient {
    /// The client that `pod_name` of the operator is.
    pub(crate) fn new(index: SharedIndex, issuer: IssuerWatch, pod_name: &str) -> Self {
        Self { index, issuer, pod: NamespacedName::new(names::NAMESPACE, pod_name) }
    }

    /// In a mesh that has nothing in it.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        let (_, issuer) = tokio::sync::watch::channel(None);
        Self::new(
            SharedIndex::new(ambit_index::Index::new(ambit_index::Settings::default())),
            issuer,
            "operator",
        )
    }

    /// The ways to an address, the first to be tried first.
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

    /// The operator's certificate, made anew: keys are fetched seldom. Waits for the mesh's authority.
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

    /// The operator's pod as others know it; outside of a cluster, what it would be.
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

/// Opens a tunnel to `authority` on a connection to a peer that must have one of the identities; its driver goes to `drivers`.
///
/// # Errors
/// Why there is none; nothing of what is to be asked was sent.
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
