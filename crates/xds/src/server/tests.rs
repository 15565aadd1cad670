//! Client and server against each other, in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::watch, task::AbortHandle, time::timeout};
use tonic::{
    Extensions,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{Config, Handler, Node, Rejection, Resource, Subscriber, client};

const POLICY: &str = "policy";
const ADDRESS: &str = "address";
const PIPE_BYTES: usize = 64 << 10;
const TEST_TIME_MAX: Duration = Duration::from_secs(20);

struct Admit(Vec<Feed>);

impl Authorizer for Admit {
    async fn admit(&self, metadata: &MetadataMap, _: &Extensions) -> Result<Scope, Status> {
        match metadata.get("authorization").and_then(|value| value.to_str().ok()) {
            Some("Bearer good") => Ok(Scope { client: "test".into(), feeds: self.0.clone(), until: None }),
            _ => Err(Status::unauthenticated("no")),
        }
    }
}

/// A server that [`World::dial`] connects to, and that can be cut off.
struct World {
    policies: Feed,
    addresses: Feed,
    stats: Arc<Stats>,
    stop: watch::Sender<bool>,
    service: DiscoveryServer<Admit>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    dials: Arc<AtomicUsize>,
    token: std::path::PathBuf,
}

#[derive(Clone, Default)]
struct Held(Arc<Mutex<HeldState>>);

#[derive(Default)]
struct HeldState {
    names: BTreeMap<String, Bytes>,
    log: Vec<String>,
}

impl Handler for Held {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        let mut held = self.0.lock().unwrap();
        for name in removed {
            held.names.remove(&name);
            held.log.push(format!("{type_url} -{name}"));
        }
        let mut rejections = Vec::new();
        for Resource { name, bytes, .. } in resources {
            held.log.push(format!("{type_url} +{name}"));
            if name == "bad" {
                rejections.push(Rejection { name, reason: "no".into() });
            } else {
                held.names.insert(name, bytes);
            }
        }
        rejections
    }
}

impl Held {
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }

    async fn until(&self, what: impl Fn(&HeldState) -> bool) {
        let poll = async {
            while !what(&self.0.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(TEST_TIME_MAX, poll).await.expect("the client hears it");
    }
}

fn world(token_name: &str, token: &str) -> World {
    let alias = |body: &[u8]| vec![String::from_utf8_lossy(body).into_owned()];
    let (policies, addresses) = (Feed::new(POLICY), Feed::with_aliases(ADDRESS, alias));
    let stats = Arc::new(Stats::default());
    let (stop, stopping) = watch::channel(false);
    let admit = Admit(vec![policies.clone(), addresses.clone()]);
    let service = DiscoveryServer::new(Arc::new(admit), stats.clone(), stopping);
    let path = std::env::temp_dir().join(format!("ambit-xds-{}-{token_name}", std::process::id()));
    std::fs::write(&path, token).unwrap();
    World {
        policies,
        addresses,
        stats,
        stop,
        service,
        connections: Arc::default(),
        dials: Arc::default(),
        token: path,
    }
}

impl World {
    fn dial(&self) -> Channel {
        self.dials.fetch_add(1, Ordering::SeqCst);
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let incoming = futures::stream::iter([Ok::<DuplexStream, std::io::Error>(far)]);
        let incoming = futures::StreamExt::chain(incoming, futures::stream::pending());
        let server = tonic::transport::Server::builder().add_service(self.service.clone());
        let task = tokio::spawn(async move {
            let _ = server.serve_with_incoming(incoming).await;
        });
        self.connections.lock().unwrap().push(task.abort_handle());
        let mut near = Some(TokioIo::new(near));
        Endpoint::from_static("http://test").connect_with_connector_lazy(tower::service_fn(move |_| {
            let near = near.take().ok_or_else(|| std::io::Error::other("one connection per dial"));
            std::future::ready(near)
        }))
    }

    fn client(self: &Arc<Self>, held: &Held) -> (watch::Receiver<client::Status>, AbortHandle) {
        let (_nobody_asks, queries) = client::queries(ADDRESS);
        self.asking_client(held, queries)
    }

    fn asking_client(
        self: &Arc<Self>,
        held: &Held,
        queries: client::Queries,
    ) -> (watch::Receiver<client::Status>, AbortHandle) {
        let config = Config {
            node: Node { id: "n".into(), metadata: BTreeMap::new() },
            types: vec![POLICY, ADDRESS],
            token_path: Some(self.token.clone()),
            cluster_id: "Kubernetes".into(),
        };
        let status = watch::Sender::new(client::Status::default());
        let (watched, world, held) = (status.subscribe(), self.clone(), held.clone());
        let connect = move || std::future::ready(Ok(world.dial()));
        let ends = Subscriber { handler: held, queries };
        let task =
            tokio::spawn(
                async move { match client::run_with_queries(config, connect, ends, status).await {} },
            );
        (watched, task.abort_handle())
    }
}

fn set(name: &str, body: &'static [u8]) -> Change {
    Change::Set { name: name.into(), body: Bytes::from_static(body) }
}

#[tokio::test]
async fn a_client_syncs_hears_changes_in_order_and_refuses_what_is_bad() {
    let world = Arc::new(world("sync", "good\n"));
    let held = Held::default();
    let (mut status, _) = world.client(&held);
    status.wait_for(|status| status.connected).await.unwrap();
    assert!(!status.borrow().synced, "the feeds are not complete yet");
    assert!(world.policies.replace([("p".into(), Bytes::new())]).is_empty());
    assert!(world.addresses.replace([("a".into(), Bytes::new())]).is_empty());
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
    assert_eq!(held.log(), ["policy +p", "address +a"]);

    assert!(world.policies.publish([set("q", b""), set("bad", b"")]).is_empty());
    assert!(world.addresses.publish([set("b", b"q")]).is_empty());
    held.until(|held| held.names.contains_key("b")).await;
    assert_eq!(held.log(), ["policy +q", "policy +bad", "address +b"]);
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.nacks == 1)).await.unwrap().unwrap();
    let counted = async {
        while world.stats.nacks.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIME_MAX, counted).await.unwrap();
}

#[tokio::test]
async fn after_a_lost_connection_only_the_difference_is_sent() {
    let world = Arc::new(world("lost", "good"));
    let held = Held::default();
    world.policies.mark_synced();
    let state = ["same", "changes", "goes"].map(|name| (name.into(), Bytes::from_static(b"1")));
    assert!(world.addresses.replace(state).is_empty());
    let (mut status, _) = world.client(&held);
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
    held.log();
    for connection in world.connections.lock().unwrap().drain(..) {
        connection.abort();
    }
    // Changes while no client is connected; the server may also have been restarted meanwhile.
    let change = [Change::Remove { name: "goes".into() }, set("changes", b"2"), set("new", b"1")];
    assert!(world.addresses.publish(change).is_empty());
    held.until(|held| held.names.contains_key("new") && !held.names.contains_key("goes")).await;
    let mut log = held.log();
    log.sort();
    assert_eq!(log, ["address +changes", "address +new", "address -goes"]);
    assert!(status.borrow().synced);
}

#[tokio::test]
async fn shutting_down_ends_streams_so_that_clients_go_elsewhere() {
    let world = Arc::new(world("stop", "good"));
    world.policies.mark_synced();
    world.addresses.mark_synced();
    let (mut status, _) = world.client(&Held::default());
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
    world.stop.send_replace(true);
    timeout(TEST_TIME_MAX, status.wait_for(|status| !status.connected)).await.unwrap().unwrap();
    let reason = status.borrow().last_error.clone().unwrap_or_default();
    assert!(reason.contains("shutting down"), "{reason}");
}

#[tokio::test]
async fn closing_a_feed_ends_its_streams() {
    let world = Arc::new(world("close", "good"));
    world.policies.mark_synced();
    world.addresses.mark_synced();
    let (mut status, _) = world.client(&Held::default());
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
    world.addresses.close();
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.disconnects > 0)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_token_is_read_again_for_every_stream() {
    let world = Arc::new(world("token", "stale"));
    world.policies.mark_synced();
    world.addresses.mark_synced();
    let (mut status, _) = world.client(&Held::default());
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.disconnects > 0)).await.unwrap().unwrap();
    assert!(world.stats.refused.load(Ordering::Relaxed) > 0);
    std::fs::write(&world.token, "good").unwrap();
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_the_limit() {
    let dials = Arc::new(Mutex::new(Vec::new()));
    let seen = dials.clone();
    let connect = move || {
        seen.lock().unwrap().push(tokio::time::Instant::now());
        std::future::ready(Err("refused".into()))
    };
    let config = Config {
        node: Node::default(),
        types: vec![POLICY],
        token_path: None,
        cluster_id: "Kubernetes".into(),
    };
    let (status, _watched) = watch::channel(client::Status::default());
    let run = client::run(config, connect, Held::default(), status);
    assert!(timeout(Duration::from_secs(120), run).await.is_err());
    let dials = dials.lock().unwrap();
    let pauses: Vec<Duration> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() > 15, "{pauses:?}");
    let (mut step, slack) = (client::BACKOFF_MIN, Duration::from_millis(2));
    for pause in pauses {
        assert!(pause >= step / 2 && pause <= step + slack, "{pause:?} of {step:?}");
        step = (step * 2).min(client::BACKOFF_MAX);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_delays_nobody() {
    let world = Arc::new(world("slow", "good"));
    world.policies.mark_synced();
    let body = Bytes::from(vec![1u8; 256 << 10]);
    let state = (0..64).map(|n| (n.to_string().into(), body.clone()));
    assert!(world.addresses.replace(state).is_empty());

    let (_requests, outgoing) = tokio::sync::mpsc::channel(4);
    let ask = |type_url: &str| DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() };
    _requests.send(ask(POLICY)).await.unwrap();
    _requests.send(ask(ADDRESS)).await.unwrap();
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(outgoing));
    request.metadata_mut().insert("authorization", "Bearer good".parse().unwrap());
    let mut grpc = tonic::client::Grpc::new(world.dial());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<DeltaDiscoveryRequest, wire::Response>::default();
    let method = http::uri::PathAndQuery::from_static(METHOD);
    let stuck = grpc.streaming(request, method, codec).await.unwrap();

    let held = Held::default();
    let (mut status, _) = world.client(&held);
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
    for n in 0..20u8 {
        let change = Change::Set { name: "hot".into(), body: Bytes::from(vec![n]) };
        assert!(world.addresses.publish([change]).is_empty());
        held.until(|held| held.names.get("hot").is_some_and(|body| body[..] == [n])).await;
    }
    assert_eq!(world.stats.streams.load(Ordering::Relaxed), 2);
    assert!(
        world.stats.responses.load(Ordering::Relaxed) < 100,
        "the stuck stream does not pile up responses"
    );
    drop(stuck);
}

#[tokio::test]
async fn a_question_is_answered_after_what_was_published_before_it_and_put_again_on_a_new_stream() {
    let world = Arc::new(world("asked", "good"));
    let held = Held::default();
    let (query_sender, queries) = client::queries(ADDRESS);
    let (mut status, _) = world.asking_client(&held, queries);
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.connected)).await.unwrap().unwrap();
    // Before the feeds are complete there is no answer, and the client does not assume one.
    assert_eq!(query_sender.ask("/1".into(), Duration::from_millis(20)).await, None);
    world.policies.mark_synced();
    world.addresses.mark_synced();
    timeout(TEST_TIME_MAX, status.wait_for(|status| status.synced)).await.unwrap().unwrap();
    assert_eq!(query_sender.ask("/1".into(), TEST_TIME_MAX).await, Some(client::Answer::Unknown));
    assert!(world.addresses.publish([set("a", b"/1")]).is_empty());
    assert_eq!(query_sender.ask("/1".into(), TEST_TIME_MAX).await, Some(client::Answer::Known));
    assert!(held.0.lock().unwrap().names.contains_key("a"), "it is there when the answer is");
    let asked = {
        let query_sender = query_sender.clone();
        tokio::spawn(async move { query_sender.ask("/1".into(), TEST_TIME_MAX).await })
    };
    for connection in world.connections.lock().unwrap().drain(..) {
        connection.abort();
    }
    assert_eq!(asked.await.unwrap(), Some(client::Answer::Known));
}
