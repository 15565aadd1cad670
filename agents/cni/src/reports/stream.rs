//! Sends the reports to the operator over a gRPC stream.

use std::{convert::Infallible, time::Duration};

use ambit_identity::Token;
use ambit_proto::node::{NodeReport, node_reports_client::NodeReportsClient};
use ambit_runtime::Backoff;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, transport::Channel};

use super::Reporter;

/// First delay between streams.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest delay.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Reports in flight.
const REPORTS_MAX: usize = 1;
/// How long the operator may take to accept a stream.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Token(#[from] ambit_identity::Error),
    #[error("the operator ended the stream: {0}")]
    Closed(#[from] tonic::Status),
    #[error("the operator closed the stream")]
    Finished,
    #[error("the operator did not accept the stream in time")]
    Silent,
}

/// Reports until dropped.
pub(crate) async fn run(reporter: Reporter, channel: Channel, token: Token) -> Infallible {
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    loop {
        let ended = report(&reporter, &channel, &token, &mut backoff).await;
        let pause = backoff.pause();
        tracing::warn!(reason = %ended, retry_in = ?pause, "The report stream is down");
        tokio::time::sleep(pause).await;
    }
}

async fn report(reporter: &Reporter, channel: &Channel, token: &Token, backoff: &mut Backoff) -> Ended {
    match try_report(reporter, channel, token, backoff).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn try_report(
    reporter: &Reporter,
    channel: &Channel,
    token: &Token,
    backoff: &mut Backoff,
) -> Result<Infallible, Ended> {
    let (reports, outgoing) = mpsc::channel::<NodeReport>(REPORTS_MAX);
    // The operator may answer only after the first report, so it is sent before the call.
    send(&reports, reporter.snapshot()).await?;
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("authorization", token.bearer()?);
    let mut client = NodeReportsClient::new(channel.clone());
    let opened = tokio::time::timeout(OPEN_TIME_MAX, client.report(request)).await;
    let mut acks = opened.map_err(|_| Ended::Silent)??.into_inner();
    tracing::info!("The report stream is up");
    loop {
        tokio::select! {
            ack = acks.message() => match ack? {
                Some(_) => {
                    backoff.reset();
                    reporter.acknowledged();
                }
                None => return Err(Ended::Finished),
            },
            () = reporter.changed() => {
                if let Some(changes) = reporter.changes() {
                    send(&reports, changes).await?;
                }
            }
        }
    }
}

async fn send(reports: &mpsc::Sender<NodeReport>, report: NodeReport) -> Result<(), Ended> {
    reports.send(report).await.map_err(|_| Ended::Finished)
}
