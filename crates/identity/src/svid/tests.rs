//! Handshakes in memory: accepted and rejected peers, and how the two kinds of failure differ.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::{request::csr, testing::FakeCa};

const WIRE_BYTES: usize = 64 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn id(text: &str) -> Spiffe {
    text.parse().unwrap()
}

fn cart() -> Spiffe {
    id("spiffe://cluster.local/ns/shop/sa/cart")
}

fn stock() -> Spiffe {
    id("spiffe://cluster.local/ns/shop/sa/stock")
}

type Accepted = Result<(ServerStream<DuplexStream>, Spiffe), HandshakeError>;
type Connected = Result<(ClientStream<DuplexStream>, Spiffe), HandshakeError>;

async fn shake(client: &Svid, server: &Svid, expected: &[Spiffe]) -> (Connected, Accepted) {
    let (near, far) = duplex(WIRE_BYTES);
    tokio::join!(connect(client, expected, near), accept(server, far))
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is_and_bytes_pass() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let (client, server) = (ca.svid(&cart()).unwrap(), ca.svid(&stock()).unwrap());
    let (connected, accepted) = shake(&client, &server, &[cart(), stock()]).await;
    let ((mut near, server_id), (mut far, client_id)) = (connected.unwrap(), accepted.unwrap());
    assert_eq!((client_id, server_id), (cart(), stock()));
    let session = near.0.get_ref().1;
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(far.0.get_ref().1.server_name(), None);
    near.write_all(b"ping").await.unwrap();
    near.shutdown().await.unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ping");
}

#[tokio::test]
async fn a_trusted_peer_of_another_identity_is_a_mismatch_and_gets_no_byte() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let (client, server) = (ca.svid(&cart()).unwrap(), ca.svid(&stock()).unwrap());
    for expected in [vec![cart()], vec![]] {
        let (connected, accepted) = shake(&client, &server, &expected).await;
        let error = connected.unwrap_err();
        assert!(matches!(&error, HandshakeError::WrongIdentity { got, .. } if *got == stock()), "{error}");
        // The server may already notice while it sends its ticket.
        let Ok((mut far, _)) = accepted else { continue };
        let mut received = Vec::new();
        assert!(far.read_to_end(&mut received).await.is_err());
        assert_eq!(received, b"");
    }
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_a_mismatch() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let foreign = id("spiffe://elsewhere/ns/shop/sa/cart");
    let (client, server) = (ca.svid(&foreign).unwrap(), ca.svid(&stock()).unwrap());
    let (_, accepted) = shake(&client, &server, &[stock()]).await;
    assert!(matches!(accepted.unwrap_err(), HandshakeError::WrongIdentity { got, .. } if got == foreign));
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_a_tls_failure_on_both_sides() {
    let (ours, theirs) = (FakeCa::new("cluster.local").unwrap(), FakeCa::new("cluster.local").unwrap());
    let (client, server) = (ours.svid(&cart()).unwrap(), theirs.svid(&stock()).unwrap());
    let (connected, accepted) = shake(&client, &server, &[stock()]).await;
    assert!(matches!(connected.unwrap_err(), HandshakeError::Tls(_)));
    assert!(matches!(accepted.unwrap_err(), HandshakeError::Tls(_)));
}

#[tokio::test]
async fn an_expired_peer_is_a_tls_failure() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let past = SystemTime::now() - Duration::from_secs(60);
    let key = PrivateKey::generate().unwrap();
    let chain =
        ca.authority.sign(&csr(&key, &cart()).unwrap(), &cart(), Duration::from_secs(1), past).unwrap();
    let expired = Svid::new(&key, &chain, &cart(), past).unwrap();
    let valid = ca.svid(&stock()).unwrap();
    let (_, accepted) = shake(&expired, &valid, &[stock()]).await;
    assert!(matches!(accepted.unwrap_err(), HandshakeError::Tls(_)));
    let (connected, _) = shake(&valid, &expired, &[cart()]).await;
    assert!(matches!(connected.unwrap_err(), HandshakeError::Tls(_)));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let server = ca.svid(&stock()).unwrap();
    let roots = parse_pem("test", &ca.authority.root_bundle()).unwrap();
    let anonymous = tls::plain_client(tls::root_store(&roots).unwrap()).unwrap();
    let (near, far) = duplex(WIRE_BYTES);
    let name = ServerName::try_from("stock").unwrap();
    let dialing = tokio::spawn(async move { TlsConnector::from(anonymous).connect(name, near).await });
    assert!(matches!(accept(&server, far).await.unwrap_err(), HandshakeError::Tls(_)));
    assert!(dialing.await.unwrap().is_err());
}

#[tokio::test]
async fn plaintext_is_a_tls_failure() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let server = ca.svid(&stock()).unwrap();
    let (mut near, far) = duplex(WIRE_BYTES);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(accept(&server, far).await.unwrap_err(), HandshakeError::Tls(_)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_not_waited_for() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let svid = ca.svid(&stock()).unwrap();
    let (near, far) = duplex(WIRE_BYTES);
    assert!(matches!(accept(&svid, far).await.unwrap_err(), HandshakeError::Timeout));
    drop(near);
    let (near, _far) = duplex(WIRE_BYTES);
    assert!(matches!(connect(&svid, &[cart()], near).await.unwrap_err(), HandshakeError::Timeout));
}

/// Reads until the ticket that follows the handshake has been processed.
async fn with_ticket(connected: Connected, accepted: Accepted) -> (rustls::HandshakeKind, Spiffe, Spiffe) {
    let ((mut near, server_id), (mut far, client_id)) = (connected.unwrap(), accepted.unwrap());
    far.write_all(b"x").await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut [0]).await.unwrap();
    (near.0.get_ref().1.handshake_kind().unwrap(), client_id, server_id)
}

#[tokio::test]
async fn a_second_handshake_resumes_and_still_proves_both_identities() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let (client, server) = (ca.svid(&cart()).unwrap(), ca.svid(&stock()).unwrap());
    let expected = [stock()];
    let (connected, accepted) = shake(&client, &server, &expected).await;
    let first = with_ticket(connected, accepted).await;
    assert_eq!(first, (rustls::HandshakeKind::Full, cart(), stock()));
    let (connected, accepted) = shake(&client, &server, &expected).await;
    let second = with_ticket(connected, accepted).await;
    assert_eq!(second, (rustls::HandshakeKind::Resumed, cart(), stock()));
    // A renewed certificate starts without sessions, because its roots may differ.
    let renewed = ca.svid(&stock()).unwrap();
    let (connected, accepted) = shake(&client, &renewed, &expected).await;
    assert_eq!(with_ticket(connected, accepted).await.0, rustls::HandshakeKind::Full);
}

#[test]
fn a_peer_whose_certificate_ended_since_its_first_handshake_is_refused() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let now = SystemTime::now();
    let key = PrivateKey::generate().unwrap();
    let chain = ca.authority.sign(&csr(&key, &cart()).unwrap(), &cart(), DAY, now).unwrap();
    let leaf = parse_pem("test", &chain[0]).unwrap();
    assert_eq!(peer(Some(&leaf), now).unwrap(), cart());
    assert!(matches!(peer(Some(&leaf), now + 2 * DAY), Err(HandshakeError::Expired(who)) if who == cart()));
    let root = parse_pem("test", &ca.authority.root_bundle()).unwrap();
    assert!(matches!(peer(Some(&root), now), Err(HandshakeError::NoIdentity)));
    assert!(matches!(peer(None, now), Err(HandshakeError::NoIdentity)));
}

#[test]
fn a_certificate_with_more_or_fewer_than_one_uri_name_is_nobodys() {
    use rcgen::{CertificateParams, KeyPair, SanType, string::Ia5String};
    let uri = |text: &str| SanType::URI(Ia5String::try_from(text.to_owned()).unwrap());
    let dns = SanType::DnsName(Ia5String::try_from("cart.shop".to_owned()).unwrap());
    let (cart_uri, stock_uri) = (uri(&cart().to_string()), uri(&stock().to_string()));
    for (what, names, expected) in [
        ("one", vec![cart_uri.clone()], Some(cart())),
        ("one, and a DNS name", vec![dns.clone(), cart_uri.clone()], Some(cart())),
        ("none", vec![dns], None),
        ("two identities", vec![cart_uri.clone(), stock_uri], None),
        ("an identity and a page", vec![uri("https://shop.example"), cart_uri.clone()], None),
        ("twice the same", vec![cart_uri.clone(), cart_uri], None),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let judged = peer(Some(&[leaf.der().clone()]), SystemTime::now());
        assert_eq!(judged.ok(), expected, "{what}");
    }
}

#[test]
fn refuses_an_answer_for_someone_else_or_without_root_or_out_of_time() {
    let ca = FakeCa::new("cluster.local").unwrap();
    let now = SystemTime::now();
    let key = PrivateKey::generate().unwrap();
    let chain = ca.authority.sign(&csr(&key, &cart()).unwrap(), &cart(), DAY, now).unwrap();
    let refused = |key, chain: &[String], who, now| Svid::new(key, chain, &who, now).unwrap_err();
    assert!(matches!(refused(&key, &chain, stock(), now), Error::WrongSubject { .. }));
    assert!(matches!(refused(&key, &chain, cart(), now + 2 * DAY), Error::SvidNotValidNow(_)));
    assert!(matches!(refused(&key, &chain, cart(), now - DAY), Error::SvidNotValidNow(_)));
    assert!(matches!(refused(&key, &[], cart(), now), Error::Pem { .. }));
    assert!(matches!(
        refused(&key, &chain[..1], cart(), now),
        Error::ChainWithoutRoot(_) | Error::Pem { .. }
    ));
    let other = PrivateKey::generate().unwrap();
    assert!(matches!(refused(&other, &chain, cart(), now), Error::Tls(_)));
    let elsewhere = FakeCa::new("cluster.local").unwrap();
    let wrong_root = [chain[0].clone(), elsewhere.authority.root_bundle()];
    assert!(matches!(refused(&key, &wrong_root, cart(), now), Error::ChainWithoutRoot(_)));
    assert!(refused(&key, &[chain[0].clone(), String::new()], cart(), now).to_string().contains("no root"));
}
