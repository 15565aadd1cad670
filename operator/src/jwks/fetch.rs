//! One fetch of a key set over HTTP.
//!
//! Invariant: bounded in time and size, and never from the operator's own node or pod: whoever may write a policy must
//! not read by it what only the operator can reach.

use std::{io, net::IpAddr, time::Duration};

use ambit_identity::web::WebClient;
use hickory_resolver::TokioResolver;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// How long one fetch may take, resolving and connecting included.
pub const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// How long connecting to one address may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Largest key set: some hundred keys.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not `http://host/…` or `https://host/…`.
    #[error("the address is none of http or https")]
    Address,
    /// The name does not lead to an address.
    #[error("{host} cannot be resolved: {reason}")]
    Resolve {
        /// Name.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// Only addresses that are never asked.
    #[error("{host} leads to {ip}, which is not asked: it is local to the operator")]
    Local {
        /// Name.
        host: String,
        /// Address.
        ip: IpAddr,
    },
    /// No connection, or one that broke.
    #[error("no answer: {0}")]
    Connection(String),
    /// Not 200.
    #[error("the answer is {0}, not 200; a redirect is not followed")]
    Status(StatusCode),
    /// Larger than [`JWKS_BYTES_MAX`], or cut off.
    #[error("the body cannot be read, or has more than {JWKS_BYTES_MAX} bytes: {0}")]
    Body(String),
    /// Not UTF-8.
    #[error("the body is not text")]
    Text,
    /// Text, and no keys that anybody could be believed by.
    #[error("{0}; does the address lead to the issuer's key set?")]
    KeySet(String),
    /// Longer than [`FETCH_TIME_MAX`].
    #[error("no answer within {FETCH_TIME_MAX:?}")]
    Time,
}

/// Fetches key sets.
#[derive(Clone)]
pub struct Fetcher {
    resolver: TokioResolver,
    tls: WebClient,
    /// Which addresses may be asked.
    is_allowed: fn(IpAddr) -> bool,
}

impl Fetcher {
    /// Resolves as `/etc/resolv.conf` says: the C library's resolver is not in a static binary.
    ///
    /// # Errors
    /// When `/etc/resolv.conf` cannot be used.
    pub fn new() -> Result<Self, FetchError> {
        let failed = |reason: String| FetchError::Resolve { host: "/etc/resolv.conf".into(), reason };
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver = resolver.map_err(|error| failed(error.to_string()))?;
        let tls = WebClient::new().map_err(|error| failed(error.to_string()))?;
        Ok(Self { resolver, tls, is_allowed })
    }

    /// One that asks local addresses too.
    #[cfg(test)]
    pub(super) fn anywhere() -> Self {
        Self { is_allowed: |_| true, ..Self::new().unwrap() }
    }

    /// The body behind an address.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn fetch(&self, address: &str) -> Result<String, FetchError> {
        timeout(FETCH_TIME_MAX, self.get(address)).await.unwrap_or(Err(FetchError::Time))
    }

    async fn get(&self, address: &str) -> Result<String, FetchError> {
        let uri: Uri = address.parse().map_err(|_| FetchError::Address)?;
        let host = uri.host().ok_or(FetchError::Address)?.to_owned();
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        if !is_tls && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(FetchError::Address);
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.dial(&host, port).await?;
        if is_tls {
            let name = host.trim_matches(['[', ']']);
            let stream = self.tls.connect(name, stream).await.map_err(no_answer)?;
            ask(&uri, stream).await
        } else {
            ask(&uri, stream).await
        }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let found = self.resolve(host).await?;
        let mut last = FetchError::Resolve { host: host.to_owned(), reason: "no address".into() };
        for ip in found.into_iter().take(ADDRESSES_MAX) {
            if !(self.is_allowed)(ip) {
                last = FetchError::Local { host: host.to_owned(), ip };
                continue;
            }
            let connected = timeout(CONNECT_TIME_MAX, TcpStream::connect((ip, port))).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = FetchError::Connection(format!("{ip}:{port}: {error}")),
            }
        }
        Err(last)
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![ip]);
        }
        let found = self.resolver.lookup_ip(host).await;
        let found = found
            .map_err(|error| FetchError::Resolve { host: host.to_owned(), reason: error.to_string() })?;
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
        // A body may still be buffered when the connection has ended.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(no_answer(error)),
        },
    }
}

fn no_answer(error: impl std::fmt::Display) -> FetchError {
    FetchError::Connection(error.to_string())
}

/// Neither the pod itself nor what only its node answers, such as the metadata service of a cloud.
fn is_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_allowed(mapped.into()),
            None => {
                !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local())
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    fn fetcher() -> Fetcher {
        Fetcher::anywhere()
    }

    /// Answers one connection with `answer`; returns what was asked.
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
        assert_eq!(fetcher().fetch(&address).await.unwrap(), "{\"keys\":[]}");
        let asked = asked.await.unwrap().to_ascii_lowercase();
        assert!(
            asked.starts_with("get /keys?v=1 http/1.1\r\n") && asked.contains("host: 127.0.0.1:"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_body_without_length_is_read_to_its_end() {
        let (address, _asked) = server(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}".to_vec()).await;
        assert_eq!(fetcher().fetch(&address).await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn another_status_and_a_body_too_large_are_refused() {
        let (address, _asked) =
            server(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert!(matches!(fetcher().fetch(&address).await, Err(FetchError::Status(StatusCode::FOUND))));
        let mut large =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", JWKS_BYTES_MAX + 1).into_bytes();
        large.resize(large.len() + JWKS_BYTES_MAX + 1, b' ');
        let (address, _asked) = server(large).await;
        assert!(matches!(fetcher().fetch(&address).await, Err(FetchError::Body(_))));
    }

    #[tokio::test]
    async fn what_is_local_to_the_operator_is_not_asked() {
        let fetcher = Fetcher::new().unwrap();
        for address in ["http://127.0.0.1:1/keys", "https://[::1]/keys", "http://169.254.169.254/latest"] {
            let refused = fetcher.fetch(address).await;
            assert!(matches!(refused, Err(FetchError::Local { .. })), "{address}: {refused:?}");
        }
        assert!(matches!(fetcher.fetch("file:///etc/passwd").await, Err(FetchError::Address)));
        for ip in ["10.0.0.1", "93.184.216.34", "fd00::1"] {
            assert!(is_allowed(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["::ffff:127.0.0.1", "fe80::1", "0.0.0.0", "224.0.0.1", "::"] {
            assert!(!is_allowed(ip.parse().unwrap()), "{ip}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        assert!(matches!(fetcher().fetch(&address).await, Err(FetchError::Time)));
    }
}
