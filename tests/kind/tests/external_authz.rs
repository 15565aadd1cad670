//! Does a waypoint send requests to real external authorization providers: oauth2-proxy over HTTP,
//! and a server built from Envoy's generated code over gRPC? And does it deny them while there is
//! none?

use ambit_kind_tests::{
    Result,
    ask::{Ask, Reply, expect},
    kubectl, mesh,
    shop::Shop,
    wait, waypoint,
};

const PROVIDERS: &str = "authz-providers-test";
/// jane, secret
const JANE: &str = "Basic amFuZTpzZWNyZXQ=";

const KNOWN: &str = r#"{"spec": {"extensionProviders": [
  {"name": "oauth2-proxy", "envoyExtAuthzHttp": {"service": "oauth2-proxy.authz-providers-test.svc.cluster.local", "port": 4180,
    "includeRequestHeadersInCheck": ["authorization", "cookie"], "headersToUpstreamOnAllow": ["x-auth-request-user"],
    "headersToDownstreamOnDeny": ["set-cookie"]}},
  {"name": "checker", "envoyExtAuthzGrpc": {"service": "authz-providers-test/checker", "port": 9191, "statusOnError": "503"}}]}}"#;
const UNKNOWN: &str = r#"{"spec": {"extensionProviders": null}}"#;

fn know(providers: &str) -> Result<()> {
    kubectl::run(&["patch", "meshes.ambit.dev", "default", "--type=merge", "-p", providers]).map(drop)
}

fn policy(name: &str, path: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: external-authz-test}}
spec:
  targetRefs: [{{group: '', kind: Service, name: cart}}]
  action: CUSTOM
  provider: {{name: {name}}}
  rules: [{{to: [{{operation: {{paths: ['{path}/*']}}}}]}}]
"
    )
}

/// The only result, once it has this status.
fn until(shop: &Shop, status: u16, question: &Ask<'_>) -> Result<Reply> {
    let what = format!("{} to be answered {status}", question.url);
    let (reply, _) =
        wait::until(&what, waypoint::APPLIED, || Ok(Some(expect(&shop.ask(question)?, status)?.clone())))?;
    Ok(reply)
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn real_providers_decide_and_without_one_nothing_passes() {
    let shop = Shop::start_with_waypoint("external-authz-test").unwrap();
    kubectl::apply(&include_str!("../manifests/authz.yaml").replace("@NS@", PROVIDERS)).unwrap();
    for name in ["deploy/oauth2-proxy", "deploy/checker"] {
        kubectl::run(&["rollout", "status", "-n", PROVIDERS, name, "--timeout=120s"]).unwrap();
    }
    mesh::until_enrolled(PROVIDERS, mesh::Enrolled::All).unwrap();
    let public = Ask { url: "http://cart/", ..Ask::default() };
    let member = Ask { url: "http://cart/member/a", ..Ask::default() };
    let passed = Ask { url: "http://cart/pass/a", ..Ask::default() };

    kubectl::apply(&policy("oauth2-proxy", "/member")).unwrap();
    until(&shop, 403, &public).unwrap();
    let said = waypoint::until_policy(
        shop.namespace,
        "authorizationpolicy/oauth2-proxy",
        "WaypointAccepted",
        "False",
    );
    assert!(said.unwrap().message.contains("oauth2-proxy"));

    know(KNOWN).unwrap();
    until(&shop, 200, &public).unwrap();
    waypoint::until_policy(shop.namespace, "authorizationpolicy/oauth2-proxy", "WaypointAccepted", "True")
        .unwrap();
    let login = until(&shop, 302, &member).unwrap();
    assert!(login.headers.contains_key("location") && login.headers.contains_key("set-cookie"), "{login:?}");
    let headers = [("authorization", JANE), ("x-auth-request-user", "root")];
    let jane = until(&shop, 200, &Ask { headers: &headers, ..member }).unwrap();
    assert!(jane.body.contains("jane") && !jane.body.contains("root"), "{}", jane.body);

    kubectl::apply(&policy("checker", "/pass")).unwrap();
    until(&shop, 401, &passed).unwrap();
    let anna = until(&shop, 200, &Ask { headers: &[("x-pass", "anna")], ..passed }).unwrap();
    assert!(anna.body.contains("anna"), "{}", anna.body);
    // The check came through a tunnel from the waypoint, and is about the client.
    let client = format!("spiffe://{}/ns/external-authz-test/sa/", mesh::trust_domain().unwrap());
    assert!(anna.body.contains(&client), "{}", anna.body);

    kubectl::run(&["scale", "-n", PROVIDERS, "deploy/checker", "--replicas=0"]).unwrap();
    until(&shop, 503, &Ask { headers: &[("x-pass", "anna")], ..passed }).unwrap();
    until(&shop, 200, &public).unwrap();

    know(UNKNOWN).unwrap();
    until(&shop, 403, &public).unwrap();
    kubectl::run(&["delete", "namespace", PROVIDERS, "--timeout=120s"]).unwrap();
    shop.stop().unwrap();
}
