//! The forwarded request is the one that was authorized: requests that two parsers could read
//! differently.

use std::sync::Arc;

use ambit_model::{
    Action, AppProtocol, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch,
    authorization::{Attribute, AttributeMatch, RequestMatch},
    bound::{ClaimHeader, Filter, JwtProvider, Mirror, Retry},
};
use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::{
    endpoint::{echo, http1},
    fixture::{Mesh, PATIENCE, VIP, bound, destination, routed, rule, to},
};

/// Sends these bytes and the end of the stream; returns the response.
async fn answer(mesh: &Mesh, sent: &str) -> String {
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(sent.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // A reset ends it as well.
    _ = timeout(PATIENCE, tunnel.read_to_end(&mut heard)).await.unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

async fn ask(mesh: &Mesh, fields: &str) -> String {
    answer(mesh, &format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")).await
}

async fn cart() -> Mesh {
    Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await
}

/// Admits only requests with this header.
fn only_with(header: &str) -> Arc<Policy> {
    let present = AttributeMatch {
        attribute: Attribute::Header(header.into()),
        values: vec![StringMatch::Presence],
        not_values: Vec::new(),
    };
    let request = RequestMatch { attributes: vec![present], ..RequestMatch::default() };
    let matches = vec![Match { request: Some(Box::new(request)), ..Match::default() }];
    Arc::new(Policy {
        key: NamespacedName::new("shop", "with"),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        dry_run: false,
    })
}

/// A token issuer without keys that sets `x-user` from a verified token.
pub(super) fn vouching() -> JwtProvider {
    JwtProvider {
        issuer: "https://issuer.example".into(),
        audiences: Vec::new(),
        jwks: None,
        locations: Vec::new(),
        forward: false,
        payload_header: None,
        claim_headers: vec![ClaimHeader { header: "x-user".into(), claim: "sub".into() }],
        space_delimited: Vec::new(),
    }
}

#[tokio::test]
async fn what_a_client_takes_away_from_its_request_is_taken_away_before_it_is_judged() {
    let mut judged = bound(AppProtocol::Http);
    judged.authorization = vec![only_with("x-tenant")];
    let mesh = Mesh::with_cart(judged, http1(echo("cart"))).await;
    let heard = ask(&mesh, "host: cart\r\nx-tenant: a\r\nconnection: close").await;
    assert!(heard.contains("x-tenant: a\n"), "{heard}");
    let heard = ask(&mesh, "host: cart\r\nx-tenant: a\r\nconnection: close, X-Tenant").await;
    assert!(heard.starts_with("HTTP/1.1 403 "), "{heard}");
}

#[tokio::test]
async fn a_client_cannot_take_away_its_host_its_token_or_where_it_comes_from() {
    let mesh = cart().await;
    let named = "close, host, authorization, cookie, x-forwarded-for, content-type";
    let sent = [
        "host: public.example",
        "authorization: Bearer a",
        "cookie: a=b",
        "x-forwarded-for: 198.51.100.7",
        "content-type: text/plain",
    ];
    let heard = ask(&mesh, &format!("{}\r\nconnection: {named}", sent.join("\r\n"))).await;
    for line in sent {
        assert!(heard.contains(&format!("{line}\n")), "{line}: {heard}");
    }
}

#[tokio::test]
async fn a_request_with_no_host_or_several_is_400() {
    let mesh = cart().await;
    for (fields, why) in [
        ("connection: close", "none"),
        ("host: a\r\nhost: b\r\nconnection: close", "two"),
        ("host: a\r\nhost: a\r\nconnection: close", "the same twice"),
        ("host: a@b\r\nconnection: close", "with a user"),
    ] {
        let heard = ask(&mesh, fields).await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{why}: {heard}");
    }
    let heard = answer(&mesh, "GET http://a/ HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await;
    assert!(heard.contains("host: a\n") && !heard.contains("host: b"), "{heard}");
}

#[tokio::test]
async fn fields_that_only_the_mesh_may_fill_are_not_the_clients_to_send() {
    let mut checked = bound(AppProtocol::Http);
    checked.authentication = vec![vouching()];
    let mesh = Mesh::with_cart(checked, http1(echo("cart"))).await;
    let heard = ask(
        &mesh,
        "host: cart\r\nx-user: admin\r\nx_user: admin\r\nx-forwarded-client-cert: By=me\r\nconnection: close",
    )
    .await;
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    assert!(!heard.contains("admin") && !heard.contains("By=me"), "{heard}");
}

#[tokio::test]
async fn every_request_has_an_id_and_keeps_the_one_it_has() {
    let mesh = cart().await;
    let made = ask(&mesh, "host: cart\r\nconnection: close").await;
    let id = made.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
    let kept = ask(&mesh, "host: cart\r\nx-request-id: mine\r\nconnection: close").await;
    assert!(kept.contains("x-request-id: mine\n"), "{kept}");
}

/// RFC 9112 6.3: a content-length beside chunks is never forwarded, not even with a retry or a
/// copy.
#[tokio::test]
async fn a_length_beside_chunks_does_not_go_on_and_the_body_arrives_whole() {
    const REST: &str = "\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
    for fields in
        ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
    {
        let (copied, mut copies) = mpsc::unbounded_channel();
        let copying = move |request: Request<Bytes>| {
            copied.send((request.headers().contains_key("content-length"), request.into_body())).unwrap();
            Response::new(String::new())
        };
        let (tried, mut tries) = mpsc::unbounded_channel();
        let trying = move |request: Request<Bytes>| {
            let body = request.body().clone();
            tried.send((request.headers().contains_key("content-length"), body)).unwrap();
            Response::builder().status(503).body(String::new()).unwrap()
        };
        let mut mesh = Mesh::start();
        for (name, vip) in [("cart", VIP), ("copy", "10.0.0.4:80")] {
            mesh.service(name, vip);
        }
        mesh.endpoint("cart", http1(trying)).await;
        mesh.endpoint("copy", http1(copying)).await;
        let mut both = rule(vec![to("cart", 1)]);
        both.filters = vec![Filter::Mirror(Mirror { to: destination("copy"), fraction: None })];
        both.retry = Some(Retry { codes: vec![503], attempts: 1, backoff: None });
        mesh.bind(routed(vec![both], &["cart", "copy"])).await;
        let sent = format!("POST / HTTP/1.1\r\nhost: cart\r\n{fields}{REST}");
        // The connection is closed, because client and waypoint may disagree where the next request
        // starts.
        let heard = answer(&mesh, &sent).await;
        assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}");
        for heard in [tries.recv().await, tries.recv().await, copies.recv().await] {
            let (has_length, body) = heard.unwrap();
            // A buffered body is complete and gets its own length.
            assert_eq!((has_length && body.len() != 10, &body[..]), (false, &b"0123456789"[..]), "{fields}");
        }
    }
}
