//! Certificates from the operator, or from any CA that implements Istio's `CreateCertificate`.
//!
//! The private key stays in this process. The request names the identity; the token authenticates
//! the requester.

use std::{collections::BTreeMap, time::Duration};

use ambit_model::Spiffe;
use ambit_proto::ca::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};
use prost_types::{Struct, Value, value::Kind};
use tonic::{Request, transport::Channel};

use crate::{SourceError, Token, manager::Source};

/// The requested certificate lifetime.
pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Request metadata key: the identity a node agent requests a certificate for.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// Requests certificates for the workloads of this node.
#[derive(Clone, Debug)]
pub struct CaClient {
    channel: Channel,
    token: Token,
    ttl: Duration,
}

impl CaClient {
    /// `ttl` is the requested lifetime ([`TTL`] by default); the CA may shorten it.
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
