//! Requests that wait because all connections of their destination are in use.

use std::{sync::Arc, time::Duration};

use ambit_model::{
    AppProtocol, BoundService,
    bound::{CircuitBreaker, DestinationPolicy, DestinationSettings, RequestTimeouts},
};
use ambit_resilience::Resource;
use ambit_waypoint::{metrics::Limit, upstream::Upstream};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};

use super::{
    endpoint::Serve,
    fixture::{Mesh, PATIENCE, VIP, destination, key, out_at_once, routed, rule, to},
};

/// Requests that arrive at endpoints; each is answered when it is released.
struct Gate {
    arrived: mpsc::UnboundedReceiver<String>,
    go: Arc<Semaphore>,
    serve: Serve,
}

impl Gate {
    fn new(http2: bool) -> Self {
        let (arrives, arrived) = mpsc::unbounded_channel();
        let go = Arc::new(Semaphore::new(0));
        let gate = go.clone();
        let serve: Serve = Arc::new(move |tunnel| {
            let (arrives, gate) = (arrives.clone(), gate.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (arrives, gate) = (arrives.clone(), gate.clone());
                async move {
                    arrives.send(request.uri().path().to_owned()).unwrap();
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("done"))))
                }
            });
            tokio::spawn(async move {
                let io = TokioIo::new(tunnel);
                match http2 {
                    true => {
                        let server = conn::http2::Builder::new(TokioExecutor::new());
                        _ = server.serve_connection(io, service).await;
                    }
                    false => _ = conn::http1::Builder::new().serve_connection(io, service).await,
                }
            });
        });
        Self { arrived, go, serve }
    }

    async fn next(&mut self) -> String {
        timeout(PATIENCE, self.arrived.recv()).await.unwrap().unwrap()
    }
}

/// The service `cart` with a limit of one connection, and of this many waiting requests.
fn limited(protocol: AppProtocol, pending: u32, timeouts: RequestTimeouts) -> BoundService {
    let mut rule = rule(vec![to("cart", 1)]);
    rule.timeouts = timeouts;
    let mut bound = routed(vec![rule], &["cart"]);
    let breaker = CircuitBreaker {
        max_connections: Some(1),
        max_pending_requests: Some(pending),
        ..CircuitBreaker::default()
    };
    let policy = DestinationPolicy { breaker, ..DestinationPolicy::default() };
    bound.destinations.insert(destination("cart"), DestinationSettings { protocol, policy: policy.into() });
    bound
}

async fn mesh(gate: &Gate, endpoints: usize, bound: BoundService) -> Mesh {
    let mut mesh = Mesh::start();
    mesh.service("cart", VIP);
    for _ in 0..endpoints {
        mesh.endpoint("cart", gate.serve.clone()).await;
    }
    mesh.bind(bound).await;
    mesh
}

fn upstream(mesh: &Mesh) -> Arc<Upstream> {
    mesh.shared.services.load().get(&key("cart")).unwrap().destination(&destination("cart")).unwrap().clone()
}

async fn until(mesh: &Mesh, resource: Resource, count: u32) {
    let upstream = upstream(mesh);
    let wait = async {
        while upstream.breaker.used(resource) != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

/// Sends a request in a tunnel of its own, so that all workers take part.
async fn ask(mesh: &Mesh, path: &str) -> JoinHandle<u16> {
    let mut client = mesh.http1().await;
    let request = Request::get(path).header("host", "cart").body(Full::default()).unwrap();
    tokio::spawn(async move {
        let response = client.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        super::fixture::text(response).await;
        status
    })
}

async fn status(asked: JoinHandle<u16>) -> u16 {
    timeout(PATIENCE, asked).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_request_waits_for_the_only_connection_and_one_too_many_is_refused() {
    for (protocol, endpoints) in [(AppProtocol::Http, 1), (AppProtocol::Http, 3), (AppProtocol::Http2, 3)] {
        let mut gate = Gate::new(protocol == AppProtocol::Http2);
        // HTTP/2 requests to one endpoint share its connection. With several endpoints some wait.
        let mesh = mesh(&gate, endpoints, limited(protocol, 2, RequestTimeouts::default())).await;
        let mut asked = vec![ask(&mesh, "/first").await];
        assert_eq!(gate.next().await, "/first");
        if protocol == AppProtocol::Http {
            asked.push(ask(&mesh, "/second").await);
            asked.push(ask(&mesh, "/third").await);
            until(&mesh, Resource::Pending, 2).await;
            assert_eq!(status(ask(&mesh, "/fourth").await).await, 503);
            let overflows = &mesh.shared.sinks.metrics.overflows;
            assert_eq!(overflows.get_or_create(&Limit { resource: "pending_requests" }).get(), 1);
        } else {
            for _ in 0..2 {
                asked.push(ask(&mesh, "/more").await);
            }
        }
        gate.go.add_permits(3);
        for asked in asked {
            assert_eq!(status(asked).await, 200);
        }
        let upstream = upstream(&mesh);
        assert_eq!([Resource::Pending, Resource::Request].map(|of| upstream.breaker.used(of)), [0, 0]);
        assert_eq!(upstream.breaker.used(Resource::Connection), 1, "{protocol:?} {endpoints}");
    }
}

#[tokio::test]
async fn many_workers_and_endpoints_pass_one_connection_on_until_all_were_served() {
    for protocol in [AppProtocol::Http, AppProtocol::Http2] {
        let gate = Gate::new(protocol == AppProtocol::Http2);
        let mesh = mesh(&gate, 3, limited(protocol, 100, RequestTimeouts::default())).await;
        gate.go.add_permits(60);
        let mut asked = Vec::new();
        for _ in 0..60 {
            asked.push(ask(&mesh, "/").await);
        }
        for asked in asked {
            assert_eq!(status(asked).await, 200);
        }
        assert_eq!(upstream(&mesh).breaker.used(Resource::Pending), 0);
        assert!(upstream(&mesh).breaker.used(Resource::Connection) <= 1);
    }
}

#[tokio::test]
async fn who_waits_is_late_when_its_time_is_up_and_the_endpoint_is_not_blamed() {
    let mut gate = Gate::new(false);
    let timeouts = RequestTimeouts { request: Some(Duration::from_millis(100)), backend: None };
    let mut bound = limited(AppProtocol::Http, 1, timeouts);
    let settings = bound.destinations.get_mut(&destination("cart")).unwrap();
    Arc::make_mut(&mut settings.policy).outliers = Some(out_at_once());
    let mesh = mesh(&gate, 1, bound.clone()).await;
    let held = upstream(&mesh).connections.acquire().unwrap();
    assert_eq!(status(ask(&mesh, "/late").await).await, 504);
    drop(held);
    // If the endpoint had been blamed, it would be ejected and the response 503.
    let asked = ask(&mesh, "/early").await;
    gate.go.add_permits(1);
    assert_eq!((status(asked).await, gate.next().await.as_str()), (200, "/early"));
    assert_eq!(mesh.shared.sinks.metrics.ejections.get(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_wait_any_more() {
    let mut gate = Gate::new(false);
    let mesh = mesh(&gate, 1, limited(AppProtocol::Http, 1, RequestTimeouts::default())).await;
    let first = ask(&mesh, "/first").await;
    assert_eq!(gate.next().await, "/first");
    let mut client = mesh.http2().await;
    let request = Request::get("http://cart/second").body(Full::default()).unwrap();
    let second = tokio::spawn(async move { _ = client.send_request(request).await });
    until(&mesh, Resource::Pending, 1).await;
    second.abort();
    until(&mesh, Resource::Pending, 0).await;
    let third = ask(&mesh, "/third").await;
    gate.go.add_permits(2);
    assert_eq!((status(first).await, status(third).await), (200, 200));
    assert_eq!(gate.next().await, "/third");
}
