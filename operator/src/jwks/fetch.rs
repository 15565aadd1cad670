//! Fetching one key set over HTTP.
//!
//! Invariant: limited in time and size, and never from the operator's own node or pod. A
//! destination in the mesh is reached through the mesh ([`MeshClient`]); `https` uses TLS inside
//! the tunnel.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use ambit_identity::web::WebClient;
use ambit_store::Route;
use hickory_resolver::TokioResolver;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{
    mesh::{self, MeshClient},
    special::is_allowed,
};

/// How long connecting to one address may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// How long opening a tunnel on an open connection may take.
const TUNNEL_TIME_MAX: Duration = Duration::from_secs(3);
/// Largest key set: several hundred keys.
pub(crate) const JWKS_BYTES_MAX: usize = 256 << 10;
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why a key set could not be fetched. The texts appear in the status of an object that any user
/// may write. They are therefore fixed, and do not reveal which ports are open, what a name
/// resolves to, or what was received. The fields are for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Not of the form `http://host/…` or `https://host/…`.
    #[error("the address is neither http nor https")]
    Address,
    /// The operator's resolver does not work.
    #[error("/etc/resolv.conf cannot be used: {0}")]
    Resolver(String),
    /// No HTTP response in time, for whatever reason.
    #[error(
        "no answer in time: if the address leads to pods in the mesh, its policies must admit the operator's principal <trust domain>/ns/ambit-system/sa/ambit-operator; otherwise it must be reachable in plaintext, or with a certificate of a public authority; or put the keys into jwks"
    )]
    NoAnswer(String),
    /// All addresses are excluded.
    #[error("it leads to an address that is not permitted, because it is local to the operator or its cloud")]
    Local(IpAddr),
    /// The status is not 200.
    #[error("the answer is not 200; a redirect is not followed")]
    Status(StatusCode),
    /// Larger than [`JWKS_BYTES_MAX`], or truncated.
    #[error("the body is truncated, or has more than {JWKS_BYTES_MAX} bytes")]
    Body(String),
    /// Not UTF-8.
    #[error("the body is not text")]
    Text,
    /// Valid text without any usable key.
    #[error(
        "the answer is not a JWK set with a public key for signatures (RSA, P-256, P-384, Ed25519); does the address lead to \
         the issuer's key set?"
    )]
    KeySet(String),
}

/// A connection over any transport.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection that is being established.
type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

fn tcp(to: SocketAddr) -> Dialing {
    Box::pin(async move { Ok(Box::new(TcpStream::connect(to).await?) as Box<dyn Io>) })
}

/// Fetches key sets.
#[derive(Clone)]
pub(crate) struct Fetcher {
    resolver: TokioResolver,
    tls: WebClient,
    mesh: MeshClient,
    dial: Arc<dyn Fn(SocketAddr) -> Dialing + Send + Sync>,
    /// Which addresses are permitted.
    is_allowed: fn(IpAddr) -> bool,
}

impl Fetcher {
    /// Resolves names with `/etc/resolv.conf`, because the static binary does not contain the C
    /// library's resolver.
    ///
    /// # Errors
    /// When `/etc/resolv.conf` cannot be used.
    pub(crate) fn new(mesh: MeshClient) -> Result<Self, FetchError> {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver = resolver.map_err(|error| FetchError::Resolver(error.to_string()))?;
        let tls = WebClient::new().map_err(no_answer)?;
        Ok(Self { resolver, tls, mesh, dial: Arc::new(tcp), is_allowed })
    }

    /// Permits local addresses, in an empty mesh.
    #[cfg(test)]
    pub(super) fn anywhere() -> Self {
        Self { is_allowed: |_| true, ..Self::new(MeshClient::nowhere()).unwrap() }
    }

    /// Uses connections from the caller.
    #[cfg(test)]
    pub(super) fn dialing(
        mesh: MeshClient,
        dial: impl Fn(SocketAddr) -> Dialing + Send + Sync + 'static,
    ) -> Self {
        Self { dial: Arc::new(dial), ..Self::new(mesh).unwrap() }
    }

    /// The response body of an address, within a time limit.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn fetch(&self, address: &str, time_max: Duration) -> Result<String, FetchError> {
        // Tunnels end with the fetch, however it ends.
        let mut drivers = JoinSet::new();
        let fetched = timeout(time_max, self.get(address, &mut drivers)).await;
        fetched.unwrap_or_else(|elapsed| Err(no_answer(elapsed)))
    }

    async fn get(&self, address: &str, drivers: &mut JoinSet<()>) -> Result<String, FetchError> {
        let uri: Uri = address.parse().map_err(|_| FetchError::Address)?;
        let host = uri.host().ok_or(FetchError::Address)?.to_owned();
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        if !is_tls && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(FetchError::Address);
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.reach(&host, port, drivers).await?;
        if is_tls {
            let name = host.trim_matches(['[', ']']);
            let stream = self.tls.connect(name, stream).await.map_err(no_answer)?;
            ask(&uri, stream).await
        } else {
            ask(&uri, stream).await
        }
    }

    async fn reach(
        &self,
        host: &str,
        port: u16,
        drivers: &mut JoinSet<()>,
    ) -> Result<Box<dyn Io>, FetchError> {
        let found = self.resolve(host).await?;
        let mut last = FetchError::NoAnswer(format!("{host} has no address"));
        for ip in found.into_iter().take(ADDRESSES_MAX) {
            if !(self.is_allowed)(ip) {
                last = FetchError::Local(ip);
                continue;
            }
            for way in self.mesh.ways((ip, port).into()) {
                match self.go(&way, drivers).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    async fn go(&self, way: &Route, drivers: &mut JoinSet<()>) -> Result<Box<dyn Io>, FetchError> {
        match way {
            Route::Hbone { address, authority, .. } => {
                let svid = self.mesh.certificate().await.map_err(no_answer)?;
                let stream = self.connect(*address).await?;
                let expected = way.expected_identities();
                let opened = mesh::open(stream, &svid, &expected, *authority, drivers);
                let tunnel = timeout(TUNNEL_TIME_MAX, opened).await.map_err(no_answer)?;
                Ok(Box::new(tunnel.map_err(no_answer)?))
            }
            // An address that the index does not know is outside the cluster.
            Route::Tcp { address, .. } | Route::Unknown(address) => self.connect(*address).await,
            Route::Refused(refusal) => Err(no_answer(refusal)),
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<Box<dyn Io>, FetchError> {
        // An EndpointSlice may contain any address.
        if !(self.is_allowed)(address.ip()) {
            return Err(FetchError::Local(address.ip()));
        }
        let connected = timeout(CONNECT_TIME_MAX, (self.dial)(address)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|error| FetchError::NoAnswer(format!("{address}: {error}")))
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![ip]);
        }
        let found = self.resolver.lookup_ip(host).await;
        let found = found.map_err(|error| FetchError::NoAnswer(format!("{host}: {error}")))?;
        Ok(found.iter().collect())
    }
}

async fn ask<S>(uri: &Uri, stream: S) -> Result<String, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, crate::names::OPERATOR)
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Address)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(no_answer)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await;
        let body = body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes();
        String::from_utf8(body.into()).map_err(|_| FetchError::Text)
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The body may still be buffered when the connection has ended.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(no_answer(error)),
        },
    }
}

fn no_answer(error: impl std::fmt::Display) -> FetchError {
    FetchError::NoAnswer(error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    fn fetcher() -> Fetcher {
        Fetcher::anywhere()
    }

    /// Answers one connection with `answer`; returns the request.
    async fn server(answer: Vec<u8>) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys?v=1", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let _ = stream.write_all(&answer).await;
            String::from_utf8(head).unwrap()
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_key_set_is_fetched_with_its_path_and_host() {
        let (address, asked) =
            server(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}".to_vec()).await;
        assert_eq!(fetcher().fetch(&address, TIME).await.unwrap(), "{\"keys\":[]}");
        let asked = asked.await.unwrap().to_ascii_lowercase();
        assert!(
            asked.starts_with("get /keys?v=1 http/1.1\r\n") && asked.contains("host: 127.0.0.1:"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_body_without_length_is_read_to_its_end() {
        let (address, _asked) = server(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}".to_vec()).await;
        assert_eq!(fetcher().fetch(&address, TIME).await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn another_status_and_a_body_too_large_are_refused() {
        let (address, _asked) =
            server(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert!(matches!(fetcher().fetch(&address, TIME).await, Err(FetchError::Status(StatusCode::FOUND))));
        let mut large =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", JWKS_BYTES_MAX + 1).into_bytes();
        large.resize(large.len() + JWKS_BYTES_MAX + 1, b' ');
        let (address, _asked) = server(large).await;
        assert!(matches!(fetcher().fetch(&address, TIME).await, Err(FetchError::Body(_))));
    }

    #[tokio::test]
    async fn what_is_local_to_the_operator_is_not_asked() {
        let fetcher = Fetcher::new(MeshClient::nowhere()).unwrap();
        for address in ["http://127.0.0.1:1/keys", "https://[::1]/keys", "http://169.254.169.254/latest"] {
            let refused = fetcher.fetch(address, TIME).await;
            assert!(matches!(refused, Err(FetchError::Local(_))), "{address}: {refused:?}");
        }
        assert!(matches!(fetcher.fetch("file:///etc/passwd", TIME).await, Err(FetchError::Address)));
    }

    #[tokio::test]
    async fn a_port_that_is_closed_one_that_speaks_something_else_and_a_name_that_is_none_read_alike() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (other, _asked) = server(b"220 mail.example ESMTP\r\n".to_vec()).await;
        let mut texts = Vec::new();
        for address in [format!("http://{closed}/"), format!("https://{closed}/"), other] {
            texts.push(fetcher().fetch(&address, TIME).await.unwrap_err().to_string());
        }
        texts.dedup();
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(!texts[0].contains("refused") && !texts[0].contains("127.0.0.1"), "{texts:?}");
        assert!(texts[0].contains("sa/ambit-operator"), "whom the mesh must let in: {texts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        assert!(matches!(fetcher().fetch(&address, TIME).await, Err(FetchError::NoAnswer(_))));
    }
}
