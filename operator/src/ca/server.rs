//! `CreateCertificate`: authenticate, limit, authorize, sign.

use std::sync::{Arc, Mutex, PoisonError};

use ambit_identity::{Clock, client::IMPERSONATED_IDENTITY, csr};
use ambit_proto::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::IstioCertificateService,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use prost_types::value::Kind;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Authenticator, Caller, IssuerWatch, NodePods,
    authorize::{CertificateRequest, Grant, Refusal, authorize},
    ledger::{Ledger, Outliving},
    rate::{BURST_MAX, REQUESTS_PER_SECOND, RateLimit},
};

/// Metrics of the CA.
#[derive(Clone, Debug, Default)]
pub(crate) struct CaMetrics {
    requests: Family<Outcome, Counter>,
    issued: Arc<Ledger>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

impl CaMetrics {
    /// Registers `ambit_certificate_requests_total{result}`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Certificate requests by result: issued, or why not";
        registry.register("ambit_certificate_requests", help, self.requests.clone());
    }

    /// Registers `ambit_certificates_outliving_pods`.
    pub(crate) fn register_outliving(&self, registry: &mut Registry, pods: Arc<dyn NodePods>, clock: Clock) {
        let ledger = self.issued.clone();
        registry.register_collector(Box::new(Outliving { ledger, pods, clock }));
    }

    fn count(&self, result: &'static str) {
        self.requests.get_or_create(&Outcome { result }).inc();
    }
}

/// The gRPC service.
pub(crate) struct CertificateService {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) pods: Arc<dyn NodePods>,
    pub(crate) issuer: IssuerWatch,
    pub(crate) clock: Clock,
    pub(crate) metrics: CaMetrics,
    pub(crate) limit: Mutex<Limit>,
}

/// Rate limits per caller.
#[derive(Debug)]
pub(crate) struct Limit(RateLimit<Arc<str>>);

impl Default for Limit {
    fn default() -> Self {
        Self(RateLimit::new(f64::from(BURST_MAX), f64::from(REQUESTS_PER_SECOND)))
    }
}

/// Why a request got no certificate.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("too many requests")]
    TooMany,
    #[error("trust is not established")]
    NoIssuer,
    #[error("the certificate request is not acceptable: {0}")]
    Request(ambit_identity::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("signing failed: {0}")]
    Signing(ambit_identity::Error),
}

impl Unanswered {
    fn label(&self) -> &'static str {
        match self {
            Self::TooMany => "rate_limited",
            Self::NoIssuer => "no_issuer",
            Self::Request(_) => "bad_request",
            Self::Refused(refusal) => refusal.label(),
            Self::Signing(_) => "signing_failed",
        }
    }

    /// The status that the client gets.
    fn status(&self) -> Status {
        match self {
            Self::TooMany => Status::resource_exhausted("too many certificate requests, slow down"),
            Self::NoIssuer => Status::unavailable("the mesh has no CA yet, try again"),
            Self::Request(_) | Self::Refused(_) => Status::permission_denied("the request is not authorized"),
            Self::Signing(_) => Status::internal("the certificate could not be signed"),
        }
    }
}

impl CertificateService {
    fn issue(
        &self,
        caller: &Caller,
        request: &IstioCertificateRequest,
    ) -> Result<(Grant, Vec<String>), Unanswered> {
        let pod = caller.pod.as_ref().ok_or(Refusal::Unbound)?;
        if !self.limit.lock().unwrap_or_else(PoisonError::into_inner).0.take(&pod.uid, Instant::now()) {
            return Err(Unanswered::TooMany);
        }
        let issuer = self.issuer.borrow().clone().ok_or(Unanswered::NoIssuer)?;
        let facts = csr::inspect(&request.csr).map_err(Unanswered::Request)?;
        let certificate_request = CertificateRequest {
            caller,
            impersonated: impersonated(request)?,
            names: &facts.uris,
            ttl_seconds: request.validity_duration,
        };
        let grant =
            authorize(&certificate_request, &issuer.trust_domain, issuer.certificate_ttl, &*self.pods)?;
        let signed = issuer.authority.sign(&request.csr, &grant.identity, grant.ttl, (self.clock)());
        Ok((grant, signed.map_err(Unanswered::Signing)?))
    }
}

/// The requested identity; a value that is present but not a string is malformed, not absent.
fn impersonated(request: &IstioCertificateRequest) -> Result<Option<&str>, Refusal> {
    let fields = request.metadata.as_ref().map(|metadata| &metadata.fields);
    match fields.and_then(|fields| fields.get(IMPERSONATED_IDENTITY)).map(|value| &value.kind) {
        None => Ok(None),
        Some(Some(Kind::StringValue(text))) => Ok(Some(text)),
        Some(_) => Err(Refusal::Malformed),
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller =
            self.authenticator.caller(request.metadata(), request.extensions()).await.inspect_err(|_| {
                self.metrics.count("unauthenticated");
            })?;
        match self.issue(&caller, request.get_ref()) {
            Ok((grant, cert_chain)) => {
                self.metrics.count("issued");
                let now = (self.clock)();
                self.metrics.issued.record(grant.node, grant.identity.clone(), now + grant.ttl, now);
                tracing::info!(%caller, identity = %grant.identity, ttl = ?grant.ttl, "Certificate issued");
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(unanswered) => {
                self.metrics.count(unanswered.label());
                tracing::warn!(%caller, reason = %unanswered, "Certificate refused");
                Err(unanswered.status())
            }
        }
    }
}
