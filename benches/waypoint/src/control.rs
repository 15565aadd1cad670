//! A control plane in this process: discovery and certificates, as the operator serves them.
//!
//! Invariant: it uses the operator's own crates, so that proxies are configured as in a cluster. It
//! accepts every token, because only the benchmark can reach it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_identity::{
    Authority, CaClient, ChannelConfig, OPERATOR_NAME, PrivateKey, Source as _, Svid, Token, channel,
    request, server::Acceptor,
};
use ambit_model::Spiffe;
use ambit_proto::{
    ADDRESS, AUTHORIZATION, BOUND_SERVICE,
    ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
    },
};
use ambit_wds::Packed;
use ambit_xds::{Authorizer, Change, DiscoveryServer, Feed, Scope, Stats};
use anyhow::{Context as _, Result, anyhow};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap, transport::Server};

/// Certificate lifetime.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a proxy needs to connect to the control plane.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Address of the control plane.
    pub(crate) address: SocketAddr,
    /// File with the roots.
    pub(crate) roots: PathBuf,
    /// File with a token.
    pub(crate) token: PathBuf,
}

/// The control plane.
pub(crate) struct Control {
    authority: Arc<Authority>,
    addresses: Feed,
    services: Feed,
    credentials: Credentials,
}

impl Control {
    /// Listens on `address` and starts serving; files are written to `folder`.
    pub(crate) async fn start(address: SocketAddr, folder: PathBuf) -> Result<Self> {
        let authority = Arc::new(Authority::self_signed("cluster.local", TTL, SystemTime::now())?);
        let certificate = authority.server_certificate(OPERATOR_NAME, TTL, SystemTime::now())?;
        let credentials =
            Credentials { address, roots: folder.join("root-cert.pem"), token: folder.join("token") };
        std::fs::write(&credentials.roots, authority.root_bundle())?;
        std::fs::write(&credentials.token, "of-the-benchmark")?;
        let (addresses, services) = (Feed::new(ADDRESS), Feed::new(BOUND_SERVICE));
        let policies = Feed::new(AUTHORIZATION);
        policies.mark_synced();
        let feeds = vec![policies, addresses.clone(), services.clone()];
        let stop = watch::channel(false);
        let discovery = DiscoveryServer::new(Arc::new(Everybody(feeds)), Arc::new(Stats::default()), stop.1);
        let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
        let incoming = Acceptor::new(&certificate)?.incoming(listener);
        let router = Server::builder()
            .add_service(discovery)
            .add_service(IstioCertificateServiceServer::new(Signer(authority.clone())));
        tokio::spawn(async move {
            // Streams end when this is dropped.
            let _stop = stop.0;
            router.serve_with_incoming(incoming).await
        });
        Ok(Self { authority, addresses, services, credentials })
    }

    /// Credentials for connecting to it.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Publishes the complete state; other resources are removed.
    pub(crate) fn publish(&self, addresses: Vec<Packed>, services: Vec<Packed>) -> Result<()> {
        for (feed, state) in [(&self.addresses, addresses), (&self.services, services)] {
            let refused = feed.replace(state.into_iter().map(|packed| (packed.name, packed.body)));
            if let Some(refused) = refused.into_iter().next() {
                return Err(refused.into());
            }
        }
        Ok(())
    }

    /// Replaces one service.
    pub(crate) fn update(&self, service: Packed) -> Result<()> {
        let refused = self.services.publish([Change::Set { name: service.name, body: service.body }]);
        refused.into_iter().next().map_or(Ok(()), |refused| Err(refused.into()))
    }

    /// A certificate for use in this process.
    pub(crate) fn svid(&self, identity: &Spiffe) -> Result<Arc<Svid>> {
        let key = PrivateKey::generate()?;
        let chain = self.sign(&request::csr(&key, identity)?, identity)?;
        Ok(Arc::new(Svid::new(&key, &chain, identity, SystemTime::now())?))
    }

    /// Certifies the key of a request; the last element contains the roots.
    pub(crate) fn sign(&self, csr: &str, identity: &Spiffe) -> Result<Vec<String>> {
        Ok(self.authority.sign(csr, identity, TTL, SystemTime::now())?)
    }
}

/// Requests a certificate for a program of the benchmark, as agents do.
pub(crate) async fn certified(credentials: &Credentials, identity: &Spiffe) -> Result<Arc<Svid>> {
    let channel = channel::connect(ChannelConfig {
        address: credentials.address,
        server_name: OPERATOR_NAME.into(),
        roots_path: credentials.roots.clone(),
    })?;
    let client = CaClient::new(channel, Token::new(&credentials.token), TTL);
    let key = PrivateKey::generate()?;
    let chain = client.issue(identity, &request::csr(&key, identity)?).await;
    let chain = chain.map_err(|error| anyhow!("no certificate for {identity}: {error}"))?;
    Ok(Arc::new(Svid::new(&key, &chain, identity, SystemTime::now())?))
}

/// Lets every client read everything.
#[derive(Debug)]
struct Everybody(Vec<Feed>);

impl Authorizer for Everybody {
    async fn admit(&self, _: &MetadataMap, _: &Extensions) -> Result<Scope, Status> {
        Ok(Scope { client: "benchmark".into(), feeds: self.0.clone(), until: None })
    }
}

/// Certifies every request.
struct Signer(Arc<Authority>);

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let csr = request.into_inner().csr;
        let refused = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let facts = ambit_identity::csr::inspect(&csr).map_err(|error| refused(&error))?;
        let identity = facts.uris.first().and_then(|uri| uri.parse::<Spiffe>().ok());
        let identity = identity.ok_or_else(|| Status::invalid_argument("the request names nobody"))?;
        let signed = self.0.sign(&csr, &identity, TTL, SystemTime::now()).map_err(|error| refused(&error))?;
        Ok(Response::new(IstioCertificateResponse { cert_chain: signed }))
    }
}
