//! The xDS server: one gRPC method that streams [`Feed`]s.
//!
//! Invariant: a stream holds only positions in the feeds and one response, however slow its client
//! is. The [`Authorizer`] decides once per stream what the client may read, before anything is
//! sent.

mod authorizer;
mod feed;
mod session;
mod stream;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use ambit_proto::discovery::DeltaDiscoveryRequest;
use futures::{future::BoxFuture, stream::BoxStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
};

pub use authorizer::{Authorizer, Scope};
pub use feed::{Aliases, Change, Feed, TooLarge};
pub(crate) use session::QUERIES_MAX;
pub use stream::Stats;

use crate::{GRPC_MESSAGE_BYTES_MAX, METHOD, wire};

/// The gRPC service, for `tonic::transport::Server::add_service`.
#[derive(Debug)]
pub struct DiscoveryServer<A> {
    shared: Arc<stream::Shared<A>>,
}

impl<A> Clone for DiscoveryServer<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A: Authorizer> DiscoveryServer<A> {
    /// Serves until `stop` holds true. Then every stream ends with UNAVAILABLE, so that clients
    /// connect elsewhere.
    pub fn new(authorizer: Arc<A>, stats: Arc<Stats>, stop: tokio::sync::watch::Receiver<bool>) -> Self {
        Self { shared: Arc::new(stream::Shared { authorizer, stats, stop }) }
    }
}

impl<A> NamedService for DiscoveryServer<A> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<A: Authorizer> Service<http::Request<Body>> for DiscoveryServer<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("only delta discovery is served").into_http());
            }
            let codec = tonic_prost::ProstCodec::<wire::Response, DeltaDiscoveryRequest>::default();
            let mut grpc = Grpc::new(codec)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(Method(shared), request).await)
        })
    }
}

struct Method<A>(Arc<stream::Shared<A>>);

impl<A: Authorizer> StreamingService<DeltaDiscoveryRequest> for Method<A> {
    type Response = wire::Response;
    type ResponseStream = BoxStream<'static, Result<wire::Response, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { stream::open(shared, request).await.map(Response::new) })
    }
}

#[cfg(test)]
mod tests;
