//! A waypoint in this process, endpoints on loopback addresses of their own, and a client.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use ambit_hbone::{ConnectError, ConnectHeaders, SendConnect, TunnelStream, handshake, settings::CLIENT};
use ambit_identity::{ClientStream, Manager, testing::FakeCa};
use ambit_model::{
    Action, Addressed, AppProtocol, BoundPort, BoundService, Destination, GatewayAddress, NamespacedName,
    NetworkAddress, Policy, PortMapping, Rule, Scope, Service, ServicePort, Spiffe, TunnelProtocol, Workload,
    bound::{
        Backend, DestinationSettings, HttpMatch, HttpRule, HttpTable, OutlierDetection, Routes,
        WeightedBackend,
    },
};
use ambit_store::{AddressUpdate, BoundEntry};
use ambit_waypoint::{context::Shared, dataplane::DataPlane, services::Services, telemetry::Sinks};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};

use super::endpoint::{self, Serve};

/// Longer than any operation takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The port of every service.
pub(crate) const PORT: u16 = 80;
/// The address of the service under test.
pub(crate) const VIP: &str = "10.0.0.1:80";

pub(crate) struct Mesh {
    ca: FakeCa,
    pub shared: Arc<Shared>,
    pub plane: Option<DataPlane>,
    address: SocketAddr,
    /// Whether the operator leaves queries unanswered.
    pub silent: Arc<AtomicBool>,
    /// Tests in one process must not share an address, because tunnels always use the same port.
    net: [u8; 2],
    next: u8,
}

pub(crate) fn identity(namespace: &str, account: &str) -> Spiffe {
    format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().unwrap()
}

pub(crate) fn key(name: &str) -> NamespacedName {
    NamespacedName::new("shop", format!("{name}.shop.svc.cluster.local"))
}

pub(crate) fn destination(name: &str) -> Destination {
    Destination { service: key(name), port: PORT }
}

pub(crate) fn to(name: &str, weight: u32) -> WeightedBackend {
    WeightedBackend { weight, backend: Backend::Service(destination(name)), filters: Vec::new() }
}

/// A policy that denies everything.
pub(crate) fn deny_all(name: &str) -> Arc<Policy> {
    Arc::new(Policy {
        key: NamespacedName::new("shop", name),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule::default()],
        dry_run: false,
    })
}

/// One failure ejects an endpoint for the duration of a test.
pub(crate) fn out_at_once() -> OutlierDetection {
    OutlierDetection {
        consecutive_failures: Some(1),
        success_rate: None,
        interval: PATIENCE,
        base_ejection: PATIENCE,
        max_ejection: PATIENCE,
        max_ejected_percent: 100,
    }
}

/// A rule that matches everything.
pub(crate) fn rule(backends: Vec<WeightedBackend>) -> HttpRule {
    HttpRule { name: "HTTPRoute/shop/cart/0".into(), backends, ..HttpRule::default() }
}

pub(crate) fn table(rules: Vec<HttpRule>) -> Routes {
    let matches = (0..rules.len()).map(|index| (HttpMatch::default(), index)).collect();
    Routes { http: Some(Arc::new(HttpTable { matches, rules })), ..Routes::default() }
}

/// The service `cart` without routes.
pub(crate) fn bound(protocol: AppProtocol) -> BoundService {
    BoundService {
        key: key("cart"),
        addressed: Addressed::Service,
        ports: vec![BoundPort {
            port: PORT,
            protocol,
            routes: Routes::default(),
            consumers: BTreeMap::new(),
        }],
        destinations: BTreeMap::new(),
        requests: Arc::default(),
        authentication: Vec::new(),
        authorization: Vec::new(),
        checks: Vec::new(),
        unenforceable: Vec::new(),
    }
}

/// A pod without a service, with a service account of its own.
pub(crate) fn pod(name: &str, ip: IpAddr, tunnel_protocol: TunnelProtocol) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![ip],
        tunnel_protocol,
        trust_domain: "cluster.local".into(),
        service_account: name.into(),
        capacity: 1,
        ..Workload::default()
    }
}

/// The service `cart` with these rules, and services with these names as destinations.
pub(crate) fn routed(rules: Vec<HttpRule>, names: &[&str]) -> BoundService {
    let mut bound = bound(AppProtocol::Http);
    bound.ports[0].routes = table(rules);
    bound.destinations =
        names.iter().map(|name| (destination(name), DestinationSettings::default())).collect();
    bound
}

impl Mesh {
    /// A waypoint without services.
    pub(crate) fn start() -> Self {
        Self::with_sinks(Sinks::default())
    }

    /// The same with the test's own sinks.
    pub(crate) fn with_sinks(sinks: Sinks) -> Self {
        let ca = FakeCa::new("cluster.local").unwrap();
        let (identities, manage) = Manager::new(ca.clone(), Arc::new(SystemTime::now));
        tokio::spawn(manage);
        let (query_sender, queries) = ambit_store::queries();
        let silent = Arc::new(AtomicBool::new(false));
        let is_silent = silent.clone();
        // The operator knows no more than the store.
        tokio::spawn(queries.answered_by(move |_| {
            (!is_silent.load(Ordering::Relaxed)).then_some(ambit_xds::Answer::Unknown)
        }));
        let shared = Arc::new(Shared {
            store: Arc::default(),
            query_sender,
            services: Services::default(),
            identities,
            identity: identity("shop", "waypoint"),
            pod: NamespacedName::new("shop", "waypoint-1"),
            sinks,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let plane = DataPlane::start(&shared, listener, NonZeroUsize::new(2).unwrap()).unwrap();
        let followed = shared.clone();
        tokio::spawn(async move { followed.services.follow(&followed.store, &followed.pod).await });
        let net = [rand::random_range(1..255), rand::random_range(1..255)];
        Self { ca, shared, plane: Some(plane), address, silent, net, next: 1 }
    }

    /// A waypoint with the service `cart`, served by one endpoint.
    pub(crate) async fn with_cart(bound: BoundService, serve: Serve) -> Self {
        let mut mesh = Self::start();
        mesh.service("cart", VIP);
        mesh.endpoint("cart", serve).await;
        mesh.bind(bound).await;
        mesh
    }

    pub(crate) fn service(&self, name: &str, vip: &str) {
        let address = vip.parse::<SocketAddr>().unwrap().ip();
        let service = Service {
            name: name.into(),
            namespace: "shop".into(),
            hostname: key(name).name,
            addresses: vec![NetworkAddress { network: "".into(), address }],
            ports: vec![ServicePort { port: PORT, target_port: 8080 }],
            ..Service::default()
        };
        self.shared.store.apply_addresses(vec![AddressUpdate::Service(service)], &[]);
    }

    fn next_address(&mut self) -> IpAddr {
        self.next += 1;
        Ipv4Addr::new(127, self.net[0], self.net[1], self.next).into()
    }

    /// The application's address at the most recently created endpoint.
    pub(crate) fn last_pod(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(127, self.net[0], self.net[1], self.next).into(), 8080)
    }

    /// Adds an endpoint to a service.
    pub(crate) async fn endpoint(&mut self, service: &str, serve: Serve) {
        let ip = self.next_address();
        let identity = identity("shop", service);
        endpoint::start(&self.ca, &identity, SocketAddr::new(ip, 15008), serve).await;
        self.workload(service, ip, TunnelProtocol::Hbone);
    }

    /// Adds an endpoint that is not listening.
    pub(crate) fn dead_endpoint(&mut self, service: &str) {
        let ip = self.next_address();
        self.workload(service, ip, TunnelProtocol::Hbone);
    }

    /// A pod without a service that answers on every port, behind a waypoint or not.
    pub(crate) async fn lone_pod(&mut self, name: &str, serve: Serve, waypoint: Option<GatewayAddress>) {
        let ip = self.next_address();
        endpoint::start(&self.ca, &identity("shop", name), SocketAddr::new(ip, 15008), serve).await;
        let pod = Workload { waypoint, ..pod(name, ip, TunnelProtocol::Hbone) };
        self.shared.store.apply_addresses(vec![AddressUpdate::Workload(pod)], &[]);
    }

    pub(crate) fn workload(&self, service: &str, ip: IpAddr, tunnel_protocol: TunnelProtocol) {
        let ports = vec![PortMapping { service_port: PORT, target_port: 8080 }];
        let workload = Workload {
            service_account: service.into(),
            services: [(key(service), ports)].into(),
            ..pod(&format!("{service}-{ip}"), ip, tunnel_protocol)
        };
        self.shared.store.apply_addresses(vec![AddressUpdate::Workload(workload)], &[]);
    }

    /// Binds or changes a service, and waits until the waypoint has received it.
    pub(crate) async fn bind(&self, bound: BoundService) {
        let (key, bound) = (bound.key.clone(), Arc::new(bound));
        self.shared.store.apply_bound(vec![(key.clone(), BoundEntry::Ready(bound.clone()))], &[]);
        self.until(|services| services.get(&key).is_some_and(|known| known.bound == bound)).await;
    }

    pub(crate) async fn unbind(&self, key: &NamespacedName) {
        self.shared.store.apply_bound(Vec::new(), std::slice::from_ref(key));
        self.until(|services| services.get(key).is_none()).await;
    }

    /// Sends a version of a bound service that cannot be decoded.
    pub(crate) async fn spoil(&self, key: &NamespacedName) {
        let entry = BoundEntry::Unreadable("field 7: unknown".into());
        self.shared.store.apply_bound(vec![(key.clone(), entry)], &[]);
        self.until(|services| services.get(key).is_some_and(|known| known.is_unreadable())).await;
    }

    async fn until(&self, holds: impl Fn(&ambit_waypoint::services::Bound) -> bool) {
        let mut changes = self.shared.services.changes();
        let wait = async {
            while !holds(&self.shared.services.load()) {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
    }

    /// Connects TCP without TLS.
    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client that has completed TLS and sent nothing.
    pub(crate) async fn connection(&self, client: &Spiffe) -> ClientStream<TcpStream> {
        let svid = self.ca.svid(client).unwrap();
        let stream = self.dial().await;
        ambit_identity::connect(&svid, &[identity("shop", "waypoint")], stream).await.unwrap().0
    }

    /// A tunnel connection of a client.
    pub(crate) async fn client(&self, client: &Spiffe) -> SendConnect {
        let stream = self.connection(client).await;
        let (send, driver) = handshake(stream, CLIENT).await.unwrap();
        tokio::spawn(driver);
        send
    }

    /// Opens a tunnel as `web` to an authority.
    pub(crate) async fn tunnel(&self, authority: &str) -> Result<TunnelStream, ConnectError> {
        let client = self.client(&identity("shop", "web")).await;
        let (authority, headers) = (authority.parse().unwrap(), ConnectHeaders::default());
        let asked = client.connect(&authority, &headers);
        Ok(timeout(PATIENCE, asked).await.unwrap()?.into_stream())
    }

    /// An HTTP/1.1 connection of `web` to the service under test.
    pub(crate) async fn http1(&self) -> conn::http1::SendRequest<Full<Bytes>> {
        self.http1_of(&identity("shop", "web")).await
    }

    pub(crate) async fn http1_of(&self, client: &Spiffe) -> conn::http1::SendRequest<Full<Bytes>> {
        self.http1_to(client, VIP).await
    }

    pub(crate) async fn http1_to(
        &self,
        client: &Spiffe,
        authority: &str,
    ) -> conn::http1::SendRequest<Full<Bytes>> {
        let client = self.client(client).await;
        let tunnel = client.connect(&authority.parse().unwrap(), &ConnectHeaders::default()).await.unwrap();
        let (send, driver) = conn::http1::handshake(TokioIo::new(tunnel.into_stream())).await.unwrap();
        tokio::spawn(driver.with_upgrades());
        send
    }

    /// An HTTP/2 connection of `web` to the service under test.
    pub(crate) async fn http2(&self) -> conn::http2::SendRequest<Full<Bytes>> {
        let tunnel = self.tunnel(VIP).await.unwrap();
        let io = TokioIo::new(tunnel);
        let (send, driver) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(driver);
        send
    }

    /// Sends one request as `web` on a new connection; returns status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "cart").body(Full::default()).unwrap();
        let response = timeout(PATIENCE, self.http1().await.send_request(request)).await.unwrap().unwrap();
        (response.status().as_u16(), text(response).await)
    }
}

pub(crate) async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}
