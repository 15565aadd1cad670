//! The agents' port as agents see it: TLS, tokens, streams, certificates, reports.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Mutex, time::SystemTime};

use ambit_identity::{Authority, ChannelConfig, PrivateKey, channel, client::IMPERSONATED_IDENTITY, request};
use ambit_index::PodIdentity;
use ambit_model::{NamespacedName, Spiffe};
use ambit_proto::{
    ca::{IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient},
    node::{NodeReport, PodReport, Stage, node_reports_client::NodeReportsClient},
};
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};

use super::*;
use crate::{
    ca::{Issuer, authenticate::TokenReviewer},
    names,
    testing::jwt,
};

const TEST_TIME_MAX: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Tokens have the form `<service account>/<pod>/<node>`, in the mesh's namespace.
struct Reviewer;

/// A token as a kubelet obtains it for a pod.
fn token(of: &str) -> String {
    let sub = format!("system:serviceaccount:ambit-system:{of}");
    jwt(&json!({"iss": "k8s", "sub": sub, "aud": [names::TOKEN_AUDIENCE], "exp": 10_000_000_000_u64}))
}

/// The caller of a token from [`token`].
fn bearer_of(bearer: &str) -> Option<&'static str> {
    let all = ["ztunnel/z1/n1", "ambit-node-agent/a1/n1", "default/a1/n1"];
    all.into_iter().find(|of| token(of) == bearer)
}

impl TokenReviewer for Reviewer {
    fn review(&self, token: String) -> BoxFuture<'_, Result<TokenReviewStatus, kube::Error>> {
        let parts: Vec<&str> = bearer_of(&token).into_iter().flat_map(|of| of.split('/')).collect();
        let status = match parts.as_slice() {
            [account, pod, node] => {
                let key = |name: &str| format!("authentication.kubernetes.io/{name}");
                let extra = [("pod-name", *pod), ("pod-uid", *pod), ("node-name", *node)];
                let extra = extra.map(|(name, value)| (key(name), vec![value.to_owned()]));
                TokenReviewStatus {
                    authenticated: Some(true),
                    audiences: Some(vec![names::TOKEN_AUDIENCE.into()]),
                    error: None,
                    user: Some(UserInfo {
                        username: Some(format!("system:serviceaccount:ambit-system:{account}")),
                        extra: Some(extra.into()),
                        ..UserInfo::default()
                    }),
                }
            }
            _ => TokenReviewStatus::default(),
        };
        Box::pin(std::future::ready(Ok(status)))
    }
}

struct Pods(Vec<PodIdentity>);

impl NodePods for Pods {
    fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
        self.0.iter().find(|pod| pod.name == *name).cloned()
    }

    fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity> {
        self.0.iter().find(|pod| &*pod.uid == uid).cloned()
    }

    fn runs_on(&self, node: &str, namespace: &str, account: &str) -> bool {
        let runs = |pod: &&PodIdentity| {
            (&*pod.node, &*pod.name.namespace, &*pod.service_account) == (node, namespace, account)
        };
        self.0.iter().any(|pod| runs(&pod))
    }

    fn redirected_on(&self, _: &str) -> Vec<PodIdentity> {
        Vec::new()
    }

    fn node_uid(&self, _: &str) -> Option<Arc<str>> {
        None
    }

    fn waypoint_of(&self, _: &NamespacedName) -> Option<NamespacedName> {
        None
    }

    fn waypoint_of_account(&self, _: &str, _: &str) -> Option<NamespacedName> {
        None
    }
}

fn pod(namespace: &str, name: &str, account: &str, node: &str) -> PodIdentity {
    PodIdentity {
        uid: name.into(),
        name: NamespacedName::new(namespace, name),
        service_account: account.into(),
        node: node.into(),
        terminated: false,
    }
}

struct World {
    address: SocketAddr,
    roots: PathBuf,
    feeds: Arc<Feeds>,
    events: mpsc::Receiver<ReportEvent>,
    issuer: watch::Sender<Option<Arc<Issuer>>>,
    stop: CancellationToken,
    served: JoinHandle<Result<(), DiscoveryError>>,
    metrics: DiscoveryMetrics,
}

async fn world(name: &str) -> World {
    let authority = Authority::self_signed("cluster.local", DAY * 30, SystemTime::now()).unwrap();
    let roots = std::env::temp_dir().join(format!("ambit-discovery-{}-{name}.pem", std::process::id()));
    std::fs::write(&roots, authority.root_bundle()).unwrap();
    let (issuer, watched) = watch::channel(None);
    issuer.send_replace(Some(Arc::new(Issuer {
        authority: Arc::new(authority),
        trust_domain: "cluster.local".into(),
        certificate_ttl: DAY,
    })));
    let clock: Clock = Arc::new(SystemTime::now);
    let (reports, events) = mpsc::channel(16);
    let pods = Pods(vec![
        pod("ambit-system", "z1", "ztunnel", "n1"),
        pod("ambit-system", "a1", "ambit-node-agent", "n1"),
        pod("shop", "cart", "cart", "n1"),
        pod("shop", "pay", "pay", "n2"),
    ]);
    let parts = Discovery {
        feeds: Arc::default(),
        authenticator: Arc::new(Authenticator::new(Reviewer, clock.clone(), CallerMetrics::default())),
        pods: Arc::new(pods),
        issuer: watched,
        reports,
        clock,
        metrics: DiscoveryMetrics::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, feeds, metrics) = (CancellationToken::new(), parts.feeds.clone(), parts.metrics.clone());
    let served = tokio::spawn(serve(listener, parts, stop.clone()));
    World { address, roots, feeds, events, issuer, stop, served, metrics }
}

impl World {
    fn channel(&self) -> Channel {
        let server_name = ambit_identity::OPERATOR_NAME.to_owned();
        channel::connect(ChannelConfig { address: self.address, server_name, roots_path: self.roots.clone() })
            .unwrap()
    }

    async fn certify(&self, token: &str, identity: &str) -> Result<Vec<String>, Status> {
        let spiffe: Spiffe = identity.parse().unwrap();
        let csr = request::csr(&PrivateKey::generate().unwrap(), &spiffe).unwrap();
        let value =
            prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(identity.to_owned())) };
        let fields = [(IMPERSONATED_IDENTITY.to_owned(), value)].into();
        let metadata = Some(prost_types::Struct { fields });
        let wish = IstioCertificateRequest { csr, validity_duration: 3600, metadata };
        let mut client = IstioCertificateServiceClient::new(self.channel());
        Ok(client.create_certificate(bearing(wish, token)).await?.into_inner().cert_chain)
    }

    /// The resources that a client with this token holds once it is synced.
    async fn read(&self, token: &str, types: Vec<&'static str>) -> Result<Vec<String>, String> {
        let path = self.roots.with_extension(token.replace('/', "-"));
        std::fs::write(&path, self::token(token)).unwrap();
        let config = ambit_xds::Config {
            node: ambit_xds::Node::default(),
            types,
            token_path: Some(path),
            cluster_id: "Kubernetes".into(),
        };
        let channel = self.channel();
        let held = Held::default();
        let (status, mut watched) = watch::channel(ambit_xds::Status::default());
        let connect = move || std::future::ready(Ok(channel.clone()));
        let run = tokio::spawn(ambit_xds::run(config, connect, held.clone(), status));
        let ended = watched.wait_for(|status| status.synced || status.last_error.is_some());
        let ended = timeout(TEST_TIME_MAX, ended).await.unwrap().unwrap().clone();
        run.abort();
        match ended.last_error {
            Some(error) => Err(error),
            None => Ok(held.0.lock().unwrap().clone()),
        }
    }
}

#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<String>>>);

impl ambit_xds::Handler for Held {
    fn apply(
        &mut self,
        _: &str,
        resources: Vec<ambit_xds::Resource>,
        _: Vec<String>,
    ) -> Vec<ambit_xds::Rejection> {
        self.0.lock().unwrap().extend(resources.into_iter().map(|resource| resource.name));
        Vec::new()
    }
}

fn bearing<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", self::token(token)).parse().unwrap());
    request
}

#[tokio::test]
async fn a_ztunnel_gets_certificates_of_pods_of_its_node_and_learns_nothing_else() {
    let world = world("ca").await;
    let chain = world.certify("ztunnel/z1/n1", "spiffe://cluster.local/ns/shop/sa/cart").await.unwrap();
    assert_eq!(chain.len(), 2, "leaf and root");
    let roots = std::fs::read_to_string(&world.roots).unwrap();
    assert_eq!(chain.last(), Some(&roots));
    for (token, identity, code) in [
        ("ztunnel/z1/n1", "spiffe://cluster.local/ns/shop/sa/pay", Code::PermissionDenied),
        ("ztunnel/z1/n1", "spiffe://other/ns/shop/sa/cart", Code::PermissionDenied),
        ("ambit-node-agent/a1/n1", "spiffe://cluster.local/ns/shop/sa/cart", Code::PermissionDenied),
        ("nonsense", "spiffe://cluster.local/ns/shop/sa/cart", Code::Unauthenticated),
    ] {
        let status = world.certify(token, identity).await.unwrap_err();
        assert_eq!(status.code(), code, "{token} {identity}");
        let opaque = ["the request is not authorized", "the token was not accepted"];
        assert!(opaque.contains(&status.message()), "{status}");
    }
    let mut registry = Registry::default();
    world.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let counts: HashMap<_, _> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    for (result, count) in [("issued", "1"), ("not_on_node", "1"), ("foreign_trust_domain", "1")] {
        let line = format!("ambit_certificate_requests_total{{result=\"{result}\"}}");
        assert_eq!(counts.get(line.as_str()), Some(&count), "{text}");
    }
}

#[tokio::test]
async fn each_agent_reads_its_own_types_over_tls() {
    let world = world("xds").await;
    let body = bytes::Bytes::new;
    assert!(world.feeds.authorization.replace([("ns/p".into(), body())]).is_empty());
    assert!(world.feeds.address.replace([("uid".into(), body())]).is_empty());
    assert!(world.feeds.enrollment("n1").replace([("node".into(), body())]).is_empty());
    assert!(world.feeds.enrollment("n2").replace([("pod/x".into(), body())]).is_empty());
    let (addresses, enrollment) =
        (vec![ambit_proto::ADDRESS, ambit_proto::AUTHORIZATION], ambit_proto::ENROLLMENT);
    assert_eq!(world.read("ztunnel/z1/n1", addresses.clone()).await.unwrap(), ["ns/p", "uid"]);
    assert_eq!(world.read("ambit-node-agent/a1/n1", vec![enrollment]).await.unwrap(), ["node"]);
    for (token, types) in [
        ("ztunnel/z1/n1", vec![enrollment]),
        ("ambit-node-agent/a1/n1", addresses),
        ("default/a1/n1", vec![enrollment]),
        ("nonsense", vec![enrollment]),
    ] {
        assert!(world.read(token, types).await.is_err(), "{token}");
    }
}

#[tokio::test]
async fn reports_become_events_and_are_acknowledged_and_shutdown_ends_the_stream() {
    let mut world = world("reports").await;
    let (send, reports) = mpsc::channel(4);
    let stream = bearing(tokio_stream::wrappers::ReceiverStream::new(reports), "ambit-node-agent/a1/n1");
    let mut client = NodeReportsClient::new(world.channel());
    let mut acks = client.report(stream).await.unwrap().into_inner();
    let is = |uid: &str| PodReport { uid: uid.into(), stage: Stage::Enrolled.into(), ..PodReport::default() };
    let pods = vec![is("cart"), is("pay")];
    send.send(NodeReport { snapshot: true, proxy_connected: true, pods, ..NodeReport::default() })
        .await
        .unwrap();
    timeout(TEST_TIME_MAX, acks.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(world.events.recv().await, Some(ReportEvent::NodeServes { node: "n1".into() }));
    let cart = pod("shop", "cart", "cart", "n1");
    assert_eq!(world.events.recv().await, Some(ReportEvent::PodEnrolled { pod: cart }));
    assert!(world.events.try_recv().is_err(), "pay runs on another node");

    let (_other, reports) = mpsc::channel::<NodeReport>(1);
    let stream = bearing(tokio_stream::wrappers::ReceiverStream::new(reports), "ztunnel/z1/n1");
    assert_eq!(client.report(stream).await.unwrap_err().code(), Code::PermissionDenied);

    world.stop.cancel();
    let ended = timeout(TEST_TIME_MAX, acks.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    timeout(TEST_TIME_MAX, world.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_new_ca_gives_the_port_a_new_certificate() {
    let world = world("rotate").await;
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    world.certify("ztunnel/z1/n1", cart).await.unwrap();
    let next = Authority::self_signed("cluster.local", DAY * 30, SystemTime::now()).unwrap();
    std::fs::write(&world.roots, next.root_bundle()).unwrap();
    let (trust_domain, certificate_ttl) = ("cluster.local".into(), DAY);
    world.issuer.send_replace(Some(Arc::new(Issuer {
        authority: Arc::new(next),
        trust_domain,
        certificate_ttl,
    })));
    let trusted = async {
        while world.certify("ztunnel/z1/n1", cart).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIME_MAX, trusted).await.unwrap();
}
