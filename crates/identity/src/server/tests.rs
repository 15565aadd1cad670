//! Agent and operator over a real socket: channel, token, certificates, rotation.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Mutex, time::SystemTime};

use ambit_model::Spiffe;
use ambit_proto::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use prost_types::value::Kind;
use tokio::io::AsyncReadExt;
use tonic::{Code, Request, Response, Status, transport::Server};

use super::*;
use crate::{
    CaClient, ChannelConfig, Manager, SourceError, Token, channel,
    client::{IMPERSONATED_IDENTITY, TTL},
    manager::Source,
    request,
    testing::FakeCa,
};

const NAME: &str = "ambit-operator.ambit-system.svc";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Signs for any client with the one valid token.
struct Operator {
    ca: FakeCa,
    asked: Arc<Mutex<Vec<IstioCertificateRequest>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Operator {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        if request.metadata().get("authorization").is_none_or(|v| v != "Bearer good") {
            return Err(Status::unauthenticated("not you"));
        }
        assert!(request.extensions().get::<Peer>().is_some_and(Peer::set_authenticated));
        let request = request.into_inner();
        let fields = &request.metadata.as_ref().unwrap().fields;
        let Some(Kind::StringValue(identity)) = &fields[IMPERSONATED_IDENTITY].kind else {
            panic!("no identity")
        };
        let cert_chain = self.ca.issue(&identity.parse().unwrap(), &request.csr).await.unwrap();
        self.asked.lock().unwrap().push(request);
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

struct World {
    ca: FakeCa,
    acceptor: Acceptor,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<IstioCertificateRequest>>>,
    directory: PathBuf,
    _server: JoinSet<()>,
}

impl World {
    async fn new(test: &str) -> Self {
        let ca = FakeCa::new("cluster.local").unwrap();
        let certificate = ca.authority.server_certificate(NAME, DAY, SystemTime::now()).unwrap();
        let acceptor = Acceptor::new(&certificate).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::default();
        let operator = Operator { ca: ca.clone(), asked: Arc::clone(&asked) };
        let serving = Server::builder()
            .add_service(IstioCertificateServiceServer::new(operator))
            .serve_with_incoming(acceptor.clone().incoming(listener));
        let mut server = JoinSet::new();
        server.spawn(async move { serving.await.unwrap() });
        let directory = std::env::temp_dir().join(format!("ambit-identity-{}-{test}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let world = Self { acceptor, address, asked, directory, _server: server, ca };
        fs::write(world.roots(), world.ca.authority.root_bundle()).unwrap();
        fs::write(world.token(), "good\n").unwrap();
        world
    }

    fn roots(&self) -> PathBuf {
        self.directory.join("root-cert.pem")
    }

    fn token(&self) -> PathBuf {
        self.directory.join("token")
    }

    fn client(&self, server_name: &str) -> CaClient {
        let config = ChannelConfig {
            address: self.address,
            server_name: server_name.to_owned(),
            roots_path: self.roots(),
        };
        CaClient::new(channel::connect(config).unwrap(), Token::new(self.token()), TTL)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn cart() -> Spiffe {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

async fn issue(client: &CaClient) -> Result<Vec<String>, SourceError> {
    let key = request::PrivateKey::generate().unwrap();
    client.issue(&cart(), &request::csr(&key, &cart()).unwrap()).await
}

#[tokio::test]
async fn a_certificate_comes_over_the_channel_on_behalf_of_a_workload() {
    let world = World::new("issue").await;
    let (manager, task) = Manager::new(world.client(NAME), Arc::new(SystemTime::now));
    let _task = tokio::spawn(task);
    assert_eq!(manager.get(&cart()).await.unwrap().identity(), &cart());
    let asked = world.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].validity_duration, 24 * 60 * 60);
}

#[tokio::test]
async fn the_token_is_read_anew_for_each_call_and_never_printed() {
    let world = World::new("token").await;
    let client = world.client(NAME);
    issue(&client).await.unwrap();
    fs::write(world.token(), "bad").unwrap();
    let refused = issue(&client).await.unwrap_err();
    assert!(matches!(refused, SourceError::Call { code: Code::Unauthenticated, .. }), "{refused}");
    fs::write(world.token(), " \n").unwrap();
    assert!(matches!(issue(&client).await.unwrap_err(), SourceError::Local(_)));
    fs::remove_file(world.token()).unwrap();
    assert!(matches!(issue(&client).await.unwrap_err(), SourceError::Local(_)));
    fs::write(world.token(), "good").unwrap();
    issue(&client).await.unwrap();
    let token = Token::new(world.token());
    assert!(!format!("{token:?}{client:?}{:?}", token.bearer().unwrap()).contains("good"));
}

#[tokio::test]
async fn a_server_of_another_name_or_another_root_is_not_talked_to() {
    let world = World::new("name").await;
    assert!(issue(&world.client("elsewhere.ambit-system.svc")).await.is_err());
    let other = FakeCa::new("cluster.local").unwrap();
    fs::write(world.roots(), other.authority.root_bundle()).unwrap();
    assert!(issue(&world.client(NAME)).await.is_err());
    fs::remove_file(world.roots()).unwrap();
    assert!(issue(&world.client(NAME)).await.is_err());
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_rotated_root_bundle_and_a_swapped_certificate_are_used_without_a_restart() {
    let world = World::new("rotate").await;
    let client = world.client(NAME);
    issue(&client).await.unwrap();
    let next = FakeCa::new("cluster.local").unwrap();
    let certificate = next.authority.server_certificate(NAME, DAY, SystemTime::now()).unwrap();
    world.acceptor.swap(&certificate).unwrap();
    // The open connection continues; a new one sees the new certificate and does not trust it.
    issue(&client).await.unwrap();
    let fresh = world.client(NAME);
    assert!(issue(&fresh).await.is_err());
    fs::write(world.roots(), next.authority.root_bundle()).unwrap();
    issue(&fresh).await.unwrap();
}

#[tokio::test]
async fn clients_that_never_speak_hold_up_nobody() {
    let world = World::new("silent").await;
    let mut silent = Vec::new();
    for _ in 0..8 * UNAUTHENTICATED_PER_ADDRESS_MAX {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    issue(&world.client(NAME)).await.unwrap();
    // The limit per address applies to authenticated peers' addresses too.
    let ended = timeout(HANDSHAKE_TIMEOUT / 2, silent[0].read(&mut [0; 8])).await;
    assert!(!matches!(ended.expect("the oldest ends at once"), Ok(1..)));
}

/// A client that completes the handshake and sends nothing.
async fn idle(world: &World) -> tokio_rustls::client::TlsStream<TcpStream> {
    let roots = crate::certificate::parse_pem("test", &world.ca.authority.root_bundle()).unwrap();
    let config = tls::plain_client(tls::root_store(&roots).unwrap()).unwrap();
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    let stream = TcpStream::connect(world.address).await.unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_secured_connection_without_a_token_has_the_place_of_a_stranger() {
    let world = World::new("idle").await;
    let client = world.client(NAME);
    issue(&client).await.unwrap();
    let mut first = idle(&world).await;
    let mut more = Vec::new();
    for _ in 0..UNAUTHENTICATED_PER_ADDRESS_MAX {
        more.push(idle(&world).await);
    }
    let end = async { while let Ok(1..) = first.read(&mut [0; 512]).await {} };
    timeout(HANDSHAKE_TIMEOUT / 2, end).await.expect("the oldest ends at once");
    // The authenticated client continues on the same connection.
    issue(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_shows_no_token_ends_after_its_time() {
    let (near, far) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    };
    let ca = FakeCa::new("cluster.local").unwrap();
    let certificate = ca.authority.server_certificate(NAME, DAY, SystemTime::now()).unwrap();
    let acceptor = Acceptor::new(&certificate).unwrap();
    let (ready, mut taken) = mpsc::channel(1);
    let slot = Slots::default().enter([10, 0, 0, 1].into()).unwrap();
    let receiving = tokio::spawn(acceptor.receive(far, slot, ready));
    let roots = crate::certificate::parse_pem("test", &ca.authority.root_bundle()).unwrap();
    let config = tls::plain_client(tls::root_store(&roots).unwrap()).unwrap();
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    let client = tokio_rustls::TlsConnector::from(config).connect(name, near).await.unwrap();
    receiving.await.unwrap();
    let mut connection = taken.recv().await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = connection.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() <= AUTHENTICATION_TIME_MAX);
    drop(client);
}
