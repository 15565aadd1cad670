//! Does a waypoint enforce L7 conditions: a path, a token?

use ambit_kind_tests::{
    Result,
    ask::{Ask, expect},
    kubectl,
    shop::Shop,
    token::Issuer,
    wait, waypoint,
};

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: l7-policy-test}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin/*']}}]}]
";

const NEEDS_TOKEN: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: l7-policy-test}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  jwtRules: [{issuer: 'https://issuer.test', jwks: '@JWKS@'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: with-token, namespace: l7-policy-test}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  action: ALLOW
  rules: [{from: [{source: {requestPrincipals: ['https://issuer.test/me']}}]}]
";

/// Waits until a request gets this status.
fn until(shop: &Shop, status: u16, question: &Ask<'_>) -> Result<()> {
    let what = format!("{} to be answered {status}", question.url);
    wait::until(&what, waypoint::APPLIED, || {
        expect(&shop.ask(question)?, status)?;
        Ok(Some(()))
    })
    .map(drop)
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_path_is_denied_and_a_token_is_asked_for() {
    let shop = Shop::start_with_waypoint("l7-policy-test").unwrap();
    let root = Ask { url: "http://cart/", ..Ask::default() };
    let admin = Ask { url: "http://cart/admin/keys", ..root };
    until(&shop, 200, &admin).unwrap();

    kubectl::apply(DENY).unwrap();
    until(&shop, 403, &admin).unwrap();
    until(&shop, 200, &root).unwrap();
    // Other spellings of the same path (RFC 3986 6.2.2) are denied too.
    for url in ["http://cart/%61dmin/keys", "http://cart//admin/keys", "http://cart/x/../admin/keys"] {
        let replies = shop.ask(&Ask { url, ..root }).unwrap();
        assert!(replies.iter().all(|reply| reply.is(403) || reply.is(400)), "{url}: {replies:?}");
    }
    kubectl::delete(DENY).unwrap();
    until(&shop, 200, &admin).unwrap();

    let (issuer, stranger) =
        (Issuer::new("https://issuer.test").unwrap(), Issuer::new("https://issuer.test").unwrap());
    let policies = NEEDS_TOKEN.replace("@JWKS@", &issuer.key_set());
    kubectl::apply(&policies).unwrap();
    until(&shop, 403, &root).unwrap();
    let cases = [(&issuer, "me", 200), (&issuer, "you", 403), (&stranger, "me", 401)];
    for (signer, subject, status) in cases {
        let bearer = format!("Bearer {}", signer.token(subject).unwrap());
        until(&shop, status, &Ask { headers: &[("authorization", &bearer)], ..root }).unwrap();
    }
    kubectl::delete(&policies).unwrap();
    until(&shop, 200, &root).unwrap();
    shop.stop().unwrap();
}
