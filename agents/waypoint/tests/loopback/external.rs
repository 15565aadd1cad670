//! External authorization with real providers at the end of a tunnel: gRPC and HTTP.

use std::{sync::Arc, time::Duration};

use ambit_model::{
    Action, AppProtocol, BoundService, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch,
    authorization::{Attribute, AttributeMatch, RequestMatch},
    bound::{CheckBody, CheckProtocol, CheckProvider, DestinationSettings, ExternalCheck, HttpCheck},
};
use ambit_proto::{
    auth::{
        CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
        authorization_server::{Authorization, AuthorizationServer},
        check_response::HttpResponse,
    },
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption},
        r#type::v3::HttpStatus,
    },
    google::rpc::Status,
};
use ambit_waypoint::metrics::CheckResult;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::codegen::Service as _;

use super::{
    endpoint::{Count, Serve, echo, http1},
    fixture::{Mesh, VIP, bound, destination, text},
    judging::{deny, path},
};

const PROVIDER_VIP: &str = "10.0.0.7:80";

/// A gRPC provider with this response to each check.
struct Provider<F>(F);

#[tonic::async_trait]
impl<F: Fn(CheckRequest) -> CheckResponse + Send + Sync + 'static> Authorization for Provider<F> {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        Ok(tonic::Response::new((self.0)(request.into_inner())))
    }
}

/// A server built with tonic.
fn grpc(says: impl Fn(CheckRequest) -> CheckResponse + Send + Sync + 'static) -> Serve {
    let server = AuthorizationServer::new(Provider(says));
    Arc::new(move |tunnel| {
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let mut server = server.clone();
                async move { server.call(request).await }
            });
            let serving = conn::http2::Builder::new(TokioExecutor::new());
            _ = serving.serve_connection(TokioIo::new(tunnel), service).await;
        });
    })
}

fn option(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.into(), value: value.into(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

/// Admits requests with `x-pass`, as the user that it names.
fn by_header(request: CheckRequest) -> CheckResponse {
    let attributes = request.attributes.unwrap();
    let (source, http) = (attributes.source.unwrap(), attributes.request.unwrap().http.unwrap());
    let (code, answer) = match http.headers.get("x-pass") {
        Some(user) => {
            let headers = vec![option("x-user", user), option("x-asked-by", &source.principal)];
            let response_headers_to_add = vec![option("x-seen", &http.path)];
            let headers_to_remove = vec!["x-pass".to_owned()];
            let ok =
                OkHttpResponse { headers, headers_to_remove, response_headers_to_add, ..Default::default() };
            (0, HttpResponse::OkResponse(ok))
        }
        None => {
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus { code: 401 }),
                headers: vec![option("x-why", "no pass")],
                body: "ask for one".into(),
            };
            (16, HttpResponse::DeniedResponse(denied))
        }
    };
    CheckResponse { status: Some(Status { code, message: String::new() }), http_response: Some(answer) }
}

fn provider(protocol: CheckProtocol) -> CheckProvider {
    CheckProvider {
        name: "authz".into(),
        to: destination("authz"),
        timeout: Duration::from_secs(30),
        fail_open: false,
        status_on_error: 403,
        body: None,
        protocol,
    }
}

/// The service `cart`, whose requests below `/private` are sent to a provider.
fn checked(provider: CheckProvider) -> BoundService {
    let policy = Policy { key: NamespacedName::new("shop", "custom"), ..(*deny(path("/private"))).clone() };
    let mut cart = bound(AppProtocol::Http);
    cart.checks = vec![ExternalCheck { policy: Arc::new(policy), provider: Arc::new(provider) }];
    cart.destinations.insert(destination("authz"), DestinationSettings::default());
    cart
}

async fn mesh(cart: BoundService, serve: Option<Serve>) -> Mesh {
    let mut mesh = Mesh::start();
    mesh.service("cart", VIP);
    mesh.service("authz", PROVIDER_VIP);
    mesh.endpoint("cart", http1(echo("cart"))).await;
    match serve {
        Some(serve) => mesh.endpoint("authz", serve).await,
        None => mesh.dead_endpoint("authz"),
    }
    mesh.bind(cart).await;
    mesh
}

/// The check counters.
fn results(mesh: &Mesh) -> [(&'static str, u64); 4] {
    let checks = &mesh.shared.sinks.metrics.checks;
    ["allowed", "denied", "error", "timeout"]
        .map(|result| (result, checks.get_or_create(&CheckResult { result }).get()))
}

async fn ask(mesh: &Mesh, path: &str, headers: &[(&str, &str)], body: &'static str) -> Response<Incoming> {
    let mut request = Request::post(path).header("host", "cart");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    mesh.http1().await.send_request(request.body(Full::from(body)).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_grpc_provider_decides_about_what_meets_the_policy_and_about_nothing_else() {
    let count = Count::default();
    let asked = count.clone();
    let serve = grpc(move |request| {
        asked.one_more();
        by_header(request)
    });
    let mesh = mesh(checked(provider(CheckProtocol::Grpc)), Some(serve)).await;
    assert_eq!(mesh.get("/public").await.0, 200);
    assert_eq!(count.get(), 0);
    let refused = ask(&mesh, "/private/a", &[], "").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["x-why"]), (401, &"no pass".parse().unwrap()));
    assert_eq!(text(refused).await, "ask for one");
    let admitted = ask(&mesh, "/private/a?b", &[("x-pass", "jane"), ("x-user", "root")], "socks").await;
    assert_eq!(
        (admitted.status().as_u16(), &admitted.headers()["x-seen"]),
        (200, &"/private/a?b".parse().unwrap())
    );
    let arrived = text(admitted).await;
    assert!(arrived.contains("x-user: jane\n") && arrived.ends_with("socks"), "{arrived}");
    assert!(arrived.contains("x-asked-by: spiffe://cluster.local/ns/shop/sa/web\n"), "{arrived}");
    assert!(!arrived.contains("x-pass") && !arrived.contains("root"), "{arrived}");
    // Spellings that a server may read as the same path are sent to the provider too.
    assert_eq!(ask(&mesh, "/public/../private/a", &[], "").await.status(), 401);
    assert_eq!(count.get(), 3);
    assert_eq!(results(&mesh), [("allowed", 1), ("denied", 2), ("error", 0), ("timeout", 0)]);
}

#[tokio::test]
async fn what_a_provider_sets_is_what_later_policies_judge() {
    let mut cart = checked(provider(CheckProtocol::Grpc));
    let attribute = Attribute::Header("x-user".into());
    let values = vec![StringMatch::Exact("guest".into())];
    let attributes = vec![AttributeMatch { attribute, values, not_values: Vec::new() }];
    let request = RequestMatch { attributes, ..RequestMatch::default() };
    cart.authorization = vec![deny(Match { request: Some(Box::new(request)), ..Match::default() })];
    let mesh = mesh(cart, Some(grpc(by_header))).await;
    assert_eq!(ask(&mesh, "/private", &[("x-pass", "jane")], "").await.status(), 200);
    assert_eq!(ask(&mesh, "/private", &[("x-pass", "guest"), ("x-user", "jane")], "").await.status(), 403);
}

fn web() -> HttpCheck {
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    HttpCheck {
        path_prefix: "/check".into(),
        request_headers: exact("cookie"),
        upstream_on_allow: exact("x-user"),
        downstream_on_allow: exact("x-fresh"),
        ..HttpCheck::default()
    }
}

#[tokio::test]
async fn an_http_provider_admits_refuses_and_redirects_and_its_headers_are_its_own() {
    let serve = http1(|request: Request<Bytes>| {
        assert!(request.uri().path().starts_with("/check/private"), "{}", request.uri());
        assert!(request.body().is_empty() && !request.headers().contains_key("x-user"));
        let response = Response::builder();
        let response = match request.headers().get("cookie").map(|cookie| cookie.to_str().unwrap()) {
            Some("session=jane") => response.header("x-user", "jane").header("x-fresh", "1"),
            Some("session=nameless") => response,
            Some(_) => response.status(403),
            None => response.status(302).header("location", "/login"),
        };
        response.body("words".to_owned()).unwrap()
    });
    let mesh = mesh(checked(provider(CheckProtocol::Http(Box::new(web())))), Some(serve)).await;
    let login = ask(&mesh, "/private", &[], "").await;
    assert_eq!((login.status().as_u16(), &login.headers()["location"]), (302, &"/login".parse().unwrap()));
    assert_eq!(ask(&mesh, "/private", &[("cookie", "session=x")], "").await.status(), 403);
    let jane = ask(&mesh, "/private", &[("cookie", "session=jane"), ("x-user", "root")], "body").await;
    assert_eq!(jane.headers()["x-fresh"], "1");
    let arrived = text(jane).await;
    assert!(arrived.contains("x-user: jane\n") && !arrived.contains("root") && arrived.ends_with("body"));
    let nameless = ask(&mesh, "/private", &[("cookie", "session=nameless"), ("x-user", "root")], "").await;
    assert!(!text(nameless).await.contains("x-user"), "nobody vouches for it");
}

#[tokio::test]
async fn no_answer_refuses_unless_the_owner_asked_for_the_opposite() {
    let http = || CheckProtocol::Http(Box::new(web()));
    let silent: Serve = Arc::new(|tunnel| {
        tokio::spawn(async move {
            let _held = tunnel;
            std::future::pending::<()>().await;
        });
    });
    let failing = http1(|_| Response::builder().status(500).body(String::new()).unwrap());
    let quick = |protocol| CheckProvider { timeout: Duration::from_millis(300), ..provider(protocol) };
    for (serve, provider, result) in [
        (None, quick(CheckProtocol::Grpc), "error"),
        (None, quick(http()), "error"),
        (Some(silent.clone()), quick(CheckProtocol::Grpc), "timeout"),
        (Some(silent), quick(http()), "timeout"),
        (Some(failing), provider(http()), "error"),
        // A server of another protocol.
        (Some(http1(echo("authz"))), quick(CheckProtocol::Grpc), "error"),
    ] {
        let mesh = mesh(checked(provider.clone()), serve).await;
        assert_eq!(ask(&mesh, "/private", &[], "").await.status(), 403, "{provider:?}");
        mesh.bind(checked(CheckProvider { status_on_error: 503, ..provider.clone() })).await;
        assert_eq!(ask(&mesh, "/private", &[], "").await.status(), 503, "{provider:?}");
        mesh.bind(checked(CheckProvider { fail_open: true, ..provider.clone() })).await;
        let open = ask(&mesh, "/private", &[("x-user", "root")], "").await;
        assert_eq!(open.status(), 200, "{provider:?}");
        let is_http = matches!(provider.protocol, CheckProtocol::Http(_));
        assert_eq!(
            text(open).await.contains("root"),
            !is_http,
            "what is the provider's alone does not go on"
        );
        let counted = results(&mesh).into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        assert_eq!(counted, [(result, 3)], "{provider:?}");
        assert_eq!(mesh.shared.sinks.metrics.checks_failed_open.get(), 1);
    }
}

#[tokio::test]
async fn a_refusal_whose_body_never_comes_is_one_also_where_no_answer_admits() {
    let endless: Serve = Arc::new(|mut tunnel| {
        tokio::spawn(async move {
            let mut asked = [0; 1024];
            if tunnel.read(&mut asked).await.is_ok() {
                tunnel.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\n").await.unwrap();
                std::future::pending::<()>().await;
            }
        });
    });
    let open = CheckProvider {
        fail_open: true,
        timeout: Duration::from_millis(500),
        ..provider(CheckProtocol::Http(Box::new(web())))
    };
    let mesh = mesh(checked(open), Some(endless)).await;
    assert_eq!(ask(&mesh, "/private", &[], "").await.status(), 401);
}

#[tokio::test]
async fn a_provider_sees_as_much_of_the_body_as_it_is_to_and_the_service_all_of_it() {
    let large: &'static str = "0123456789".repeat(20_000).leak();
    let serve = || {
        grpc(|request: CheckRequest| {
            let http = request.attributes.unwrap().request.unwrap().http.unwrap();
            let headers = vec![option("x-checked", &http.body)];
            let ok = HttpResponse::OkResponse(OkHttpResponse { headers, ..Default::default() });
            CheckResponse { status: Some(Status::default()), http_response: Some(ok) }
        })
    };
    let body = CheckBody { max_bytes: 5, allow_partial: true, pack_as_bytes: false };
    let partial = CheckProvider { body: Some(body), ..provider(CheckProtocol::Grpc) };
    let mesh = mesh(checked(partial.clone()), Some(serve())).await;
    for (sent, seen) in [("", ""), ("socks", "socks"), ("socks and shoes", "socks"), (large, "01234")] {
        let arrived = text(ask(&mesh, "/private", &[], sent).await).await;
        assert!(arrived.contains(&format!("x-checked: {seen}\n")) && arrived.ends_with(sent), "{seen}");
    }
    let whole = CheckBody { allow_partial: false, ..body };
    mesh.bind(checked(CheckProvider { body: Some(whole), ..partial })).await;
    assert_eq!(ask(&mesh, "/private", &[], "socks").await.status(), 200);
    assert_eq!(ask(&mesh, "/private", &[], "socks!").await.status(), 413);
    assert_eq!(ask(&mesh, "/private", &[], large).await.status(), 413);
}

#[tokio::test]
async fn a_stream_that_may_meet_the_policy_is_refused() {
    let mut cart = checked(provider(CheckProtocol::Grpc));
    cart.ports[0].protocol = AppProtocol::Tcp;
    let mesh = mesh(cart.clone(), Some(grpc(by_header))).await;
    let said = async || {
        let mut tunnel = mesh.tunnel(VIP).await.ok()?;
        tunnel.write_all(b"GET /private HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        tunnel.read_to_string(&mut answer).await.ok()?;
        Some(answer).filter(|answer| !answer.is_empty())
    };
    assert_eq!(said().await, None);
    cart.checks.clear();
    mesh.bind(cart).await;
    assert!(said().await.unwrap().contains("cart HTTP/1.1 GET /private"));
}

#[tokio::test]
async fn a_policy_that_meets_everything_asks_about_everything() {
    let policy = Policy {
        key: NamespacedName::new("shop", "custom"),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: Vec::<Clause>::new() }],
        dry_run: false,
    };
    let mut cart = checked(provider(CheckProtocol::Grpc));
    cart.checks[0].policy = Arc::new(policy);
    let mesh = mesh(cart, Some(grpc(by_header))).await;
    assert_eq!(mesh.get("/").await.0, 401);
}
