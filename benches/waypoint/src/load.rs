//! The load generator: as many requests as possible, or at a fixed rate.
//!
//! Invariant: connections are established before measuring, and every response is read completely
//! and must be a 200.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_hbone::{ConnectHeaders, SendConnect, handshake, settings};
use ambit_identity::Svid;
use ambit_model::Spiffe;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, StatusCode,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::sleep_until,
};

use crate::backend::authority;

/// The client's HTTP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

/// How many requests run concurrently.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    /// Tunnels per connection; 1 without tunnels.
    pub(crate) tunnels: usize,
    /// Streams per tunnel; 1 with HTTP/1.1.
    pub(crate) streams: usize,
}

/// Where requests are sent.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The client's certificate and the server's identity; `None` without a tunnel.
    pub(crate) tunnel: Option<(Arc<Svid>, Spiffe)>,
    pub(crate) http: Http,
}

/// A connection or stream that sends one request at a time.
#[derive(Debug)]
pub(crate) enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// The result of a measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    pub(crate) took: Duration,
    /// Latencies in microseconds, sorted.
    latencies: Vec<u32>,
}

impl Measured {
    /// The latency in microseconds that this share of requests stayed below.
    pub(crate) fn quantile(&self, share: f64) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into some hundred thousand latencies"
        )]
        let index = (share * self.latencies.len().saturating_sub(1) as f64) as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Connects the senders of a shape.
pub(crate) async fn connect(target: &Target, shape: Shape) -> Result<Vec<Sender>> {
    let mut senders = Vec::new();
    for _ in 0..shape.connections {
        let socket = TcpStream::connect(target.address).await.with_context(|| target.address.to_string())?;
        socket.set_nodelay(true)?;
        match &target.tunnel {
            None => senders.extend(speak(socket, target.http, shape.streams).await?),
            Some((svid, peer)) => {
                let (stream, _) = ambit_identity::connect(svid, std::slice::from_ref(peer), socket).await?;
                let (tunnels, driver) = handshake(stream, settings::CLIENT).await?;
                tokio::spawn(driver);
                for _ in 0..shape.tunnels {
                    senders.extend(through(&tunnels, target.http, shape.streams).await?);
                }
            }
        }
    }
    Ok(senders)
}

async fn through(tunnels: &SendConnect, http: Http, streams: usize) -> Result<Vec<Sender>> {
    let tunnel = tunnels.connect(&authority(), &ConnectHeaders::default()).await?;
    speak(tunnel.into_stream(), http, streams).await
}

async fn speak<IO>(stream: IO, http: Http, streams: usize) -> Result<Vec<Sender>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Ok(match http {
        Http::One => {
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            vec![Sender::One(sender)]
        }
        Http::Two => {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            (0..streams).map(|_| Sender::Two(sender.clone())).collect()
        }
    })
}

impl Sender {
    /// Sends one request; returns the status after reading the complete response.
    pub(crate) async fn ask(&mut self, path: &str) -> Result<StatusCode> {
        let answer = match self {
            Self::One(sender) => {
                sender.ready().await?;
                let request = Request::get(path).header("host", "cart").header("user-agent", "benchmark/1.0");
                sender.send_request(request.body(Empty::new())?).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                let request =
                    Request::get(format!("http://cart{path}")).header("user-agent", "benchmark/1.0");
                sender.send_request(request.body(Empty::new())?).await?
            }
        };
        let status = answer.status();
        answer.into_body().collect().await?;
        Ok(status)
    }
}

/// Sends as many requests as possible for this duration.
pub(crate) async fn closed_loop(senders: Vec<Sender>, path: &str, lasts: Duration) -> Result<Measured> {
    let begun = Instant::now();
    let until = begun + lasts;
    run(senders, path, move |_place, _places, _round, now: Instant| (now < until).then_some(now)).await
}

/// Sends requests at this rate, each at its time unless the previous one is late.
pub(crate) async fn fixed_rate(
    senders: Vec<Sender>,
    path: &str,
    per_second: u32,
    lasts: Duration,
) -> Result<Measured> {
    let begun = Instant::now();
    let until = begun + lasts;
    let due = move |place: u32, places: u32, round: u32, _now: Instant| {
        let number = u64::from(round) * u64::from(places) + u64::from(place);
        let at = begun + Duration::from_nanos(number * 1_000_000_000 / u64::from(per_second));
        (at < until).then_some(at)
    };
    run(senders, path, due).await
}

/// `due` returns when a sender's next request is due.
async fn run<F>(senders: Vec<Sender>, path: &str, due: F) -> Result<Measured>
where
    F: Fn(u32, u32, u32, Instant) -> Option<Instant> + Copy + Send + 'static,
{
    let places = u32::try_from(senders.len())?;
    let path: Arc<str> = path.into();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (place, mut sender) in (0..).zip(senders) {
        let path = path.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for round in 0.. {
                let now = Instant::now();
                let Some(at) = due(place, places, round, now) else { break };
                // Late because of the previous response: the wait counts. Late because of coarse
                // timers: it does not.
                let start = if at > now {
                    sleep_until(at.into()).await;
                    Instant::now()
                } else {
                    at
                };
                let status = sender.ask(&path).await?;
                ensure!(status == StatusCode::OK, "{path} was answered {status}");
                latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        latencies.extend(ended??);
    }
    latencies.sort_unstable();
    Ok(Measured { requests: latencies.len() as u64, took: begun.elapsed(), latencies })
}
