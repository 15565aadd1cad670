//! The port for agents: configuration, certificates and reports on one TLS listener.
//!
//! Invariant: nothing is served before trust is established, and the port's certificate is replaced
//! before it expires.

mod admit;
mod certificate;
mod feeds;
mod metrics;

use std::{sync::Arc, time::Duration};

use ambit_identity::Clock;
use ambit_proto::{
    ca::istio_certificate_service_server::IstioCertificateServiceServer,
    node::node_reports_server::NodeReportsServer,
};
use ambit_xds::{DiscoveryServer, Stats};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub(crate) use admit::Admission;
pub use feeds::Feeds;

use crate::{
    ca::{Authenticator, CaMetrics, CallerMetrics, CertificateService, IssuerWatch, NodePods},
    reports::{ReportEvent, ReportService},
};

/// Interval between PINGs to an agent.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The longest wait for a PING response.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent calls per connection; an agent has a handful.
const CALLS_PER_CONNECTION_MAX: u32 = 128;
/// How long calls may take after shutdown started.
pub(crate) const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(10);

/// Dependencies of the server.
#[derive(Clone)]
pub(crate) struct Discovery {
    /// Resources for agents.
    pub feeds: Arc<Feeds>,
    /// Authentication of agents.
    pub authenticator: Arc<Authenticator>,
    /// Lookup of pods.
    pub pods: Arc<dyn NodePods>,
    /// The current issuer.
    pub issuer: IssuerWatch,
    /// Receiver of agents' reports.
    pub reports: mpsc::Sender<ReportEvent>,
    /// The system clock.
    pub clock: Clock,
    /// Metrics of the server.
    pub metrics: DiscoveryMetrics,
}

/// Metrics of the agents' port.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiscoveryMetrics {
    /// Metrics of xDS streams.
    pub xds: Arc<Stats>,
    /// Metrics of the CA.
    pub ca: CaMetrics,
    /// Metrics of rejected callers.
    pub callers: CallerMetrics,
}

impl DiscoveryMetrics {
    /// Registers all metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.ca.register(registry);
        self.callers.register(registry);
        registry.register_collector(Box::new(metrics::XdsCollector(self.xds.clone())));
    }
}

/// Why the server ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    /// There is no certificate for the port.
    #[error("the agents' port has no certificate: {0}")]
    Certificate(#[from] ambit_identity::Error),
    /// The listener failed.
    #[error("the agents' port cannot be served: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until `stop` is cancelled, and then at most [`SHUTDOWN_TIME_MAX`]. First waits for an
/// issuer.
///
/// # Errors
/// When the port cannot be served.
pub(crate) async fn serve(
    listener: TcpListener,
    parts: Discovery,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    let mut issuer = parts.issuer.clone();
    let first = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        found = issuer.wait_for(Option::is_some) => match found {
            Ok(found) => found.clone(),
            // The task that establishes trust has ended; nothing can be served.
            Err(_) => return Ok(()),
        },
    };
    let Some(first) = first else { return Ok(()) };
    let (acceptor, renew_at) = certificate::first(&first, &parts.clock)?;
    let renewal = certificate::keep_fresh(acceptor.clone(), issuer, parts.clock.clone(), renew_at);
    let (tell, stopping) = watch::channel(false);
    let server = router(parts, &stopping).serve_with_incoming_shutdown(acceptor.incoming(listener), async {
        stop.cancelled().await;
        tell.send_replace(true);
    });
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIME_MAX).await;
    };
    tokio::select! {
        served = server => served.map_err(DiscoveryError::from),
        () = renewal => Ok(()),
        () = overdue => {
            tracing::warn!(waited = ?SHUTDOWN_TIME_MAX, "Calls in flight are aborted");
            Ok(())
        }
    }
}

/// The gRPC services, independent of the transport.
fn router(parts: Discovery, stopping: &watch::Receiver<bool>) -> tonic::transport::server::Router {
    let Discovery { feeds, authenticator, pods, issuer, reports, clock, metrics } = parts;
    let admission =
        Admission { authenticator: authenticator.clone(), feeds, pods: pods.clone(), clock: clock.clone() };
    let xds = DiscoveryServer::new(Arc::new(admission), metrics.xds, stopping.clone());
    let certificates = CertificateService {
        authenticator: authenticator.clone(),
        pods: pods.clone(),
        issuer,
        clock,
        metrics: metrics.ca,
        limit: std::sync::Mutex::default(),
    };
    let reports = ReportService { authenticator, pods, events: reports, stop: stopping.clone() };
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .add_service(xds)
        .add_service(IstioCertificateServiceServer::new(certificates))
        .add_service(NodeReportsServer::new(reports))
}

#[cfg(test)]
mod tests;
