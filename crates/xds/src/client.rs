//! The xDS client: keeps one stream open as long as it is polled, and passes what arrives to a
//! [`Handler`].
//!
//! Invariant: applied resources stay applied while there is no stream; a new stream requests only
//! what changed since.

mod config;
mod counted;
mod handler;
mod proxy;
mod queries;
mod session;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use ambit_proto::discovery::DeltaDiscoveryRequest;
use ambit_runtime::Backoff;
use session::ClientSession;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

pub use config::{Config, Node};
pub use counted::{Counters, run_counted};
pub use handler::{Handler, Rejection, Resource, Subscriber};
pub use proxy::Proxy;
pub use queries::{Answer, Queries, QuerySender, queries};

use crate::{METHOD, wire};

/// First delay after a stream ended; doubled for each further one.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest delay.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// How long connecting and authorization may take.
pub(crate) const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the server may leave an acknowledgement unread.
pub(crate) const ACK_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest accepted response. This mesh's server stays far below; istiod sends the initial state as
/// one message.
pub(crate) const RESPONSE_BYTES_MAX: usize = 200 << 20;
/// Queued requests.
const REQUESTS_MAX: usize = 16;

/// State of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a stream is open.
    pub connected: bool,
    /// Whether every type has been received completely and acknowledged at least once.
    pub synced: bool,
    /// Number of streams that ended.
    pub disconnects: u64,
    /// Number of responses not accepted, in part or whole.
    pub nacks: u64,
    /// Error of the last stream.
    pub last_error: Option<String>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("token file {path} cannot be used ({source}): is the token volume mounted?")]
    Token { path: PathBuf, source: std::io::Error },
    #[error("the server cannot be reached: {0}")]
    Connect(tonic::codegen::StdError),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("the server ended the stream: {0}")]
    Closed(tonic::Status),
    #[error("the server closed the stream")]
    Finished,
}

/// Runs until dropped: opens one stream after another with `connect`, and publishes its state in
/// `status`.
pub async fn run<C, F, H>(config: Config, connect: C, handler: H, status: watch::Sender<Status>) -> Infallible
where
    C: FnMut() -> F,
    F: Future<Output = Result<Channel, tonic::codegen::StdError>>,
    H: Handler,
{
    let (_nobody_asks, queries) = queries("");
    run_with_queries(config, connect, Subscriber { handler, queries }, status).await
}

/// Like [`run`], and also sends on-demand queries.
pub(crate) async fn run_with_queries<C, F, H>(
    config: Config,
    mut connect: C,
    Subscriber { mut handler, mut queries }: Subscriber<H>,
    status: watch::Sender<Status>,
) -> Infallible
where
    C: FnMut() -> F,
    F: Future<Output = Result<Channel, tonic::codegen::StdError>>,
    H: Handler,
{
    let mut session = ClientSession::new(&config);
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    loop {
        let mut link = Link {
            session: &mut session,
            handler: &mut handler,
            queries: &mut queries,
            status: &status,
            backoff: &mut backoff,
        };
        let ended = match link.open(&config, connect()).await {
            Ok((requests, responses)) => link.exchange(requests, responses).await,
            Err(ended) => ended,
        };
        queries.stream_lost();
        let pause = backoff.pause();
        tracing::warn!(reason = %Chain(&ended), retry_in = ?pause, "Discovery stream is down");
        status.send_modify(|status| {
            status.connected = false;
            status.disconnects += 1;
            status.last_error = Some(Chain(&ended).to_string());
        });
        sleep(pause).await;
    }
}

struct Link<'a, H> {
    session: &'a mut ClientSession,
    handler: &'a mut H,
    queries: &'a mut Queries,
    status: &'a watch::Sender<Status>,
    backoff: &'a mut Backoff,
}

type Halves = (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<wire::Response>);

impl<H: Handler> Link<'_, H> {
    async fn open(
        &mut self,
        config: &Config,
        channel: impl Future<Output = Result<Channel, tonic::codegen::StdError>>,
    ) -> Result<Halves, Ended> {
        let token = match &config.token_path {
            Some(path) => Some(bearer(path).await?),
            None => None,
        };
        let opening = async {
            let mut grpc = tonic::client::Grpc::new(channel.await.map_err(Ended::Connect)?)
                .max_decoding_message_size(RESPONSE_BYTES_MAX);
            grpc.ready().await.map_err(|error| Ended::Connect(error.into()))?;
            let initial = self.session.open();
            let (requests, outgoing) = mpsc::channel(REQUESTS_MAX.max(initial.len()));
            for request in initial {
                // Cannot fail: the channel is large enough, and only we send.
                let _ = requests.try_send(request);
            }
            let mut request = Request::new(ReceiverStream::new(outgoing));
            if let Ok(cluster) = config.cluster_id.parse() {
                request.metadata_mut().insert("clusterid", cluster);
            }
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", token);
            }
            let codec = tonic_prost::ProstCodec::<DeltaDiscoveryRequest, wire::Response>::default();
            let method = PathAndQuery::from_static(METHOD);
            let response = grpc.streaming(request, method, codec).await.map_err(Ended::Closed)?;
            Ok((requests, response.into_inner()))
        };
        timeout(OPEN_TIME_MAX, opening).await.map_err(|_| Ended::Silent(OPEN_TIME_MAX))?
    }

    async fn exchange(
        &mut self,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        mut responses: Streaming<wire::Response>,
    ) -> Ended {
        self.status.send_modify(|status| status.connected = true);
        tracing::info!("Discovery stream is up");
        loop {
            let response = tokio::select! {
                biased;
                response = responses.message() => response,
                // Never waits for the server to read, because it may be waiting for us.
                Ok(permit) = requests.reserve(), if self.queries.is_due() => {
                    permit.send(self.queries.request());
                    continue;
                }
                () = self.queries.come() => continue,
            };
            let response = match response {
                Ok(Some(response)) => response,
                Ok(None) => return Ended::Finished,
                Err(status) => return Ended::Closed(status),
            };
            let queries = &mut *self.queries;
            let answer =
                self.session.receive(response, self.handler, |name, said| queries.answer(name, said));
            let refused = answer.error_detail.is_some();
            match timeout(ACK_TIME_MAX, requests.send(answer)).await {
                Ok(Ok(())) => {}
                // The next message carries the server's status.
                Ok(Err(_)) => continue,
                Err(_) => return Ended::Silent(ACK_TIME_MAX),
            }
            self.backoff.reset();
            let synced = self.session.is_synced();
            self.status.send_if_modified(|status| {
                status.nacks += u64::from(refused);
                let changed = refused || status.synced != synced;
                status.synced = synced;
                changed
            });
        }
    }
}

async fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, Ended> {
    let unusable = |source| Ended::Token { path: path.to_owned(), source };
    let token = tokio::fs::read_to_string(path).await.map_err(unusable)?;
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| unusable(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a token")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Formats an error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
