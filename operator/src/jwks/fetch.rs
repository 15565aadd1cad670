//! One fetch of a key set over HTTP.
//!
//! Invariant: bounded in time and size, and never from the operator's own node or pod: whoever may write a policy must
//! not read by it what only the operator can reach.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

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

/// Why a key set could not be fetched. The texts are for the status of an object that anybody may write, so they are fixed:
/// they do not say which ports are open, what a name leads to, or what was read. The fields are for the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not `http://host/…` or `https://host/…`.
    #[error("the address is none of http or https")]
    Address,
    /// The operator's own names cannot be resolved.
    #[error("/etc/resolv.conf cannot be used: {0}")]
    Resolver(String),
    /// No HTTP answer in time, for whatever reason.
    #[error(
        "no answer within {FETCH_TIME_MAX:?}: the operator asks from outside the mesh, so the address must be reachable in \
         plaintext or by a certificate of a public authority; for an issuer in a STRICT namespace make its port PERMISSIVE \
         (portLevelMtls of a PeerAuthentication), or put its keys into jwks; behind a waypoint only jwks helps"
    )]
    NoAnswer(String),
    /// Only addresses that are never asked.
    #[error("it leads to an address that is not asked, because it is local to the operator or its cloud")]
    Local(IpAddr),
    /// Not 200.
    #[error("the answer is not 200; a redirect is not followed")]
    Status(StatusCode),
    /// Larger than [`JWKS_BYTES_MAX`], or cut off.
    #[error("the body is cut off, or has more than {JWKS_BYTES_MAX} bytes")]
    Body(String),
    /// Not UTF-8.
    #[error("the body is not text")]
    Text,
    /// Text, and no keys that anybody could be believed by.
    #[error(
        "the answer is no JWK set with a public key for signatures (RSA, P-256, P-384, Ed25519); does the address lead to \
         the issuer's key set?"
    )]
    KeySet(String),
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
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver = resolver.map_err(|error| FetchError::Resolver(error.to_string()))?;
        let tls = WebClient::new().map_err(no_answer)?;
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
        timeout(FETCH_TIME_MAX, self.get(address)).await.unwrap_or_else(|elapsed| Err(no_answer(elapsed)))
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
        let mut last = FetchError::NoAnswer(format!("{host} has no address"));
        for ip in found.into_iter().take(ADDRESSES_MAX) {
            if !(self.is_allowed)(ip) {
                last = FetchError::Local(ip);
                continue;
            }
            let connected = timeout(CONNECT_TIME_MAX, TcpStream::connect((ip, port))).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = FetchError::NoAnswer(format!("{ip}:{port}: {error}")),
            }
        }
        Err(last)
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
        // A body may still be buffered when the connection has ended.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(no_answer(error)),
        },
    }
}

fn no_answer(error: impl std::fmt::Display) -> FetchError {
    FetchError::NoAnswer(error.to_string())
}

/// Metadata services of clouds that are not link-local: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// The same in IPv6: AWS, Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Neither the pod itself nor what only its node or its cloud answers, such as metadata services, in whichever form the
/// address is written.
fn is_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 0.0.0.0/8 is this host (RFC 1122 3.2.1.3).
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_multicast()
                || ip.is_broadcast()
                || METADATA_V4.contains(&ip))
        }
        IpAddr::V6(ip) => match embedded(ip) {
            Some(v4) => is_allowed(v4.into()),
            None => {
                let is_local_nat64 = ip.segments()[..3] == [0x64, 0xff9b, 1];
                let is_teredo = ip.segments()[..2] == [0x2001, 0];
                !(ip.is_multicast()
                    || ip.is_unicast_link_local()
                    || is_local_nat64
                    || is_teredo
                    || METADATA_V6.contains(&ip))
            }
        },
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped and compatible (RFC 4291 2.5.5; `::` and `::1` come out as
/// addresses of this host), NAT64 (RFC 6052), 6to4 (RFC 3056). Networks that translate by a prefix of their own, and
/// Teredo, are refused as a whole or known to nobody.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => of(g, h),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
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
            assert!(matches!(refused, Err(FetchError::Local(_))), "{address}: {refused:?}");
        }
        assert!(matches!(fetcher.fetch("file:///etc/passwd").await, Err(FetchError::Address)));
        for ip in ["10.0.0.1", "100.64.0.1", "93.184.216.34", "fd00::1", "64:ff9b::5db8:d822", "2606:2800::1"]
        {
            assert!(is_allowed(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "::ffff:127.0.0.1",
            "fe80::1",
            "0.0.0.0",
            "0.0.0.1",
            "224.0.0.1",
            "::",
            "::1",
            "::127.0.0.1",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "168.63.129.16",
            "64:ff9b::a83f:8110",
            "192.0.0.192",
        ] {
            assert!(!is_allowed(ip.parse().unwrap()), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_closed_one_that_speaks_something_else_and_a_name_that_is_none_read_alike() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (other, _asked) = server(b"220 mail.example ESMTP\r\n".to_vec()).await;
        let mut texts = Vec::new();
        for address in [format!("http://{closed}/"), format!("https://{closed}/"), other] {
            texts.push(fetcher().fetch(&address).await.unwrap_err().to_string());
        }
        texts.dedup();
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(!texts[0].contains("refused") && !texts[0].contains("127.0.0.1"), "{texts:?}");
        assert!(texts[0].contains("STRICT"), "what to do about an issuer in the mesh: {texts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        assert!(matches!(fetcher().fetch(&address).await, Err(FetchError::NoAnswer(_))));
    }
}
