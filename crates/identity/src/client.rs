//! Certificates from the operator, or from any CA that speaks Istio's `CreateCertificate`.
//!
//! The private key stays here; the request names the identity, and the token says who asks.

use std::{collections::BTreeMap, time::Duration};

use ambit_model::Spiffe;
use ambit_proto::ca::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};
use prost_types::{Struct, Value, value::Kind};
use tonic::{Request, transport::Channel};

use crate::{SourceError, Token, manager::Source};

/// The lifetime asked for.
pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// In the request's metadata: for whom a node asks.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// Asks for certificates of the workloads of this node.
#[derive(Clone, Debug)]
pub struct CaClient {
    channel: Channel,
    token: Token,
    ttl: Duration,
}

impl CaClient {
    /// `ttl` is what is asked for ([`TTL`] by default); the CA may give less.
    pub fn new(channel: Channel, token: Token, ttl: Duration) -> Self {
        Self { channel, token, ttl }
    }
}

impl Source for CaClient {
    async fn issue(&self, identity: &Spiffe, csr: &str) -> Result<Vec<String>, SourceError> {
        let bearer = self.token.bearer().map_err(|e| SourceError::Local(e.to_string()))?;
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: Some(on_behalf_of(identity)),
        });
        request.metadata_mut().insert("authorization", bearer);
        let mut client = IstioCertificateServiceClient::new(self.channel.clone());
        let answer = client.create_certificate(request).await;
        answer
            .map(|a| a.into_inner().cert_chain)
            .map_err(|status| SourceError::Call { code: status.code(), message: status.message().to_owned() })
    }
}

fn on_behalf_of(identity: &Spiffe) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    Struct { fields: BTreeMap::from([(IMPERSONATED_IDENTITY.to_owned(), value)]) }
}
