//! Can keys be fetched from an issuer that is in the mesh, accepts no plaintext, and authorizes by
//! principal?

use ambit_kind_tests::{
    Result,
    ask::{Ask, expect},
    kubectl, mesh,
    shop::Shop,
    token::Issuer,
    wait, waypoint,
};
use anyhow::ensure;

const ISSUERS: &str = "issuer-test";
const OPERATOR: &str = "cluster.local/ns/ambit-system/sa/ambit-operator";

const TOKENS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: l7-issuer-test}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  jwtRules: [{issuer: 'https://issuer.test', jwksUri: 'http://issuer.issuer-test.svc.cluster.local/keys', timeout: 3s}]
";

fn until(shop: &Shop, status: u16, question: &Ask<'_>) -> Result<()> {
    wait::until(&format!("an answer {status}"), mesh::LIMIT, || {
        expect(&shop.ask(question)?, status)?;
        Ok(Some(()))
    })
    .map(drop)
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn keys_of_an_issuer_in_a_strict_namespace_are_fetched_as_the_operator() {
    let shop = Shop::start_with_waypoint("l7-issuer-test").unwrap();
    let issuer = Issuer::new("https://issuer.test").unwrap();
    let manifest = include_str!("../manifests/issuer.yaml").replace("@NS@", ISSUERS);
    let manifest = manifest.replace("@KEYS@", &issuer.key_set());
    kubectl::apply(&manifest.replace("@WHO@", "cluster.local/ns/nobody/sa/nobody")).unwrap();
    kubectl::run(&["rollout", "status", "-n", ISSUERS, "deploy/issuer", "--timeout=120s"]).unwrap();
    mesh::until_enrolled(ISSUERS, mesh::Enrolled::All).unwrap();

    // The policy blocks the operator, and the status names the identity to admit.
    kubectl::apply(TOKENS).unwrap();
    let says = |status: &str| {
        waypoint::until_policy(shop.namespace, "requestauthentication/tokens", "WaypointAccepted", status)
    };
    wait::until("the status to say why there are no keys", waypoint::APPLIED, || {
        let message = says("False")?.message;
        ensure!(message.contains("sa/ambit-operator"), "it says {message}");
        Ok(Some(()))
    })
    .unwrap();
    let bearer = format!("Bearer {}", issuer.token("me").unwrap());
    let asked = Ask { url: "http://cart/", headers: &[("authorization", &bearer)], ..Ask::default() };
    until(&shop, 401, &asked).unwrap();

    kubectl::apply(&manifest.replace("@WHO@", OPERATOR)).unwrap();
    until(&shop, 200, &asked).unwrap();
    says("True").unwrap();
    kubectl::run(&["delete", "namespace", ISSUERS, "--timeout=120s"]).unwrap();
    shop.stop().unwrap();
}
