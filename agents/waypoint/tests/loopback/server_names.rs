//! TLS passthrough, routed by the client's server name.

use std::sync::Arc;

use ambit_model::{
    Action, AppProtocol, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch,
    authorization::{Attribute, AttributeMatch, RequestMatch},
    bound::NamedStream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    fixture::{Mesh, VIP, bound, deny_all, destination, to},
    streams::parrot,
};

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A ClientHello with this server name (RFC 8446 4.1.2, RFC 6066 3), in one record.
fn hello(name: &str) -> Vec<u8> {
    let names = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions = [&[0, 0][..], &sized(&names), &[0, 13, 0, 4, 0, 2, 4, 3]].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1]), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

async fn said(mesh: &Mesh, pieces: &[&[u8]]) -> std::io::Result<String> {
    let mut tunnel = mesh.tunnel(VIP).await.map_err(std::io::Error::other)?;
    for piece in pieces {
        tunnel.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    tunnel.shutdown().await?;
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).await?;
    // The received bytes are those that were sent.
    let at = answer.iter().position(|byte| *byte == b':').unwrap();
    assert_eq!(&answer[at + 1..], pieces.concat());
    Ok(String::from_utf8_lossy(&answer[..at]).into_owned())
}

#[tokio::test]
async fn tls_goes_where_the_route_of_its_name_leads_and_without_one_to_the_service_itself() {
    let mut mesh = Mesh::start();
    for (name, vip) in [("cart", VIP), ("a", "10.0.0.3:80"), ("b", "10.0.0.4:80"), ("all", "10.0.0.5:80")] {
        mesh.service(name, vip);
    }
    mesh.endpoint("cart", parrot("cart:")).await;
    mesh.endpoint("a", parrot("a:")).await;
    mesh.endpoint("b", parrot("b:")).await;
    mesh.endpoint("all", parrot("all:")).await;
    let named =
        |name: &str, to_name: &str| NamedStream { names: vec![name.into()], backends: vec![to(to_name, 1)] };
    for protocol in [AppProtocol::Tls, AppProtocol::Tcp, AppProtocol::Detect] {
        let mut cart = bound(protocol);
        cart.ports[0].routes.named = vec![named("*.example", "b"), named("a.example", "a")];
        cart.destinations = ["a", "b", "all"].map(|name| (destination(name), Default::default())).into();
        mesh.bind(cart.clone()).await;
        for (name, expected) in
            [("a.example", "a"), ("A.EXAMPLE", "a"), ("x.example", "b"), ("other.test", "cart")]
        {
            let hello = hello(name);
            assert_eq!(said(&mesh, &[&hello]).await.unwrap(), expected, "{name}");
            let pieces: Vec<&[u8]> = hello.chunks(9).collect();
            assert_eq!(said(&mesh, &pieces).await.unwrap(), expected, "{name} in pieces");
        }
        assert_eq!(said(&mesh, &[b"*1\r\nno TLS"]).await.unwrap(), "cart");
        cart.ports[0].routes.stream = Some(vec![to("all", 1)]);
        mesh.bind(cart).await;
        assert_eq!(said(&mesh, &[&hello("other.test")]).await.unwrap(), "all");
        assert_eq!(said(&mesh, &[&hello("a.example")]).await.unwrap(), "a");
    }
}

#[tokio::test]
async fn a_policy_that_comes_while_a_client_is_silent_holds_for_what_it_says_then() {
    let mut cart = bound(AppProtocol::Tls);
    cart.ports[0].routes.named =
        vec![NamedStream { names: vec!["a.example".into()], backends: vec![to("cart", 1)] }];
    cart.destinations = [(destination("cart"), Default::default())].into();
    let mesh = Mesh::with_cart(cart.clone(), parrot("cart:")).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    cart.authorization = vec![deny_all("closed")];
    mesh.bind(cart).await;
    tunnel.write_all(&hello("a.example")).await.unwrap();
    _ = tunnel.shutdown().await;
    assert!(tunnel.read_to_end(&mut Vec::new()).await.is_err());
}

fn about(action: Action, name: &str) -> Arc<Policy> {
    let values = vec![StringMatch::Exact(name.into())];
    let attribute = AttributeMatch { attribute: Attribute::Sni, values, not_values: Vec::new() };
    let request = RequestMatch { attributes: vec![attribute], ..RequestMatch::default() };
    let matches = vec![Match { request: Some(Box::new(request)), ..Match::default() }];
    Arc::new(Policy {
        key: NamespacedName::new("shop", "names"),
        scope: Scope::WorkloadSelector,
        action,
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        dry_run: false,
    })
}

#[tokio::test]
async fn policy_judges_the_name_that_the_client_asks_for() {
    let half = hello("good.example")[..40].to_vec();
    let cases: [(Action, &[u8], bool); 10] = [
        (Action::Deny, &hello("bad.example"), false),
        (Action::Deny, &hello("Bad.Example"), false),
        (Action::Deny, &hello("bad.example."), false),
        (Action::Deny, &hello("good.example"), true),
        (Action::Deny, b"no TLS", true),
        (Action::Deny, &half, false),
        (Action::Allow, &hello("bad.example"), true),
        (Action::Allow, &hello("good.example"), false),
        (Action::Allow, b"no TLS", false),
        (Action::Allow, &half, false),
    ];
    for (action, sent, passes) in cases {
        let mut judged = bound(AppProtocol::Tls);
        judged.authorization = vec![about(action, "bad.example")];
        let mesh = Mesh::with_cart(judged, parrot("cart:")).await;
        assert_eq!(
            said(&mesh, &[sent]).await.is_ok(),
            passes,
            "{action:?} {}",
            String::from_utf8_lossy(sent)
        );
    }
}
