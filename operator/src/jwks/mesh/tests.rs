use std::{
    io,
    sync::{Arc, Mutex},
};

use ambit_hbone::TunnelStream;
use ambit_identity::testing::FakeCa;
use ambit_index::{Index, Object, Presence, Settings, request_authentication::TIMEOUT};
use http::StatusCode;
use serde_json::{Value, from_value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
};

use super::*;
use crate::{
    ca::Issuer,
    jwks::fetch::{FetchError, Fetcher, Io},
};

const KEYS: &str = r#"{"keys":[]}"#;
/// Addresses of the issuer's Service, of its pod, and of a pod of its waypoint.
const SERVICE: &str = "10.96.0.7";
const POD: &str = "10.0.0.7";
const WAYPOINT: &str = "10.0.0.8";
const ASKS: &str = "spiffe://cluster.local/ns/ambit-system/sa/ambit-operator";

/// Events in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn pod(name: &str, ip: &str, with: [Value; 2]) -> Object {
    let [metadata, spec] = with;
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "idp", "uid": name},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        for (key, value) in more.as_object().unwrap() {
            pod[part][key] = value.clone();
        }
    }
    Object::Pod(from_value(pod).unwrap())
}

/// The issuer's pod, in the mesh or not.
fn issuer(annotations: Value) -> Object {
    let metadata = json!({"labels": {"app": "issuer"}, "annotations": annotations});
    pod("issuer", POD, [metadata, json!({"serviceAccountName": "issuer"})])
}

fn service(name: &str, ip: &str, labels: Value, selector: Value) -> Object {
    let spec = json!({"clusterIP": ip, "clusterIPs": [ip], "selector": selector,
                      "ports": [{"port": 80, "targetPort": 8080}]});
    let metadata = json!({"name": name, "namespace": "idp", "labels": labels});
    Object::Service(from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

/// A mesh with an issuer in namespace `idp`, and the operator in its own namespace.
fn mesh() -> Index {
    let mut index = Index::new(Settings { presence: Presence::Present, ..Settings::default() });
    let namespace = json!({"name": "idp", "labels": {"istio.io/dataplane-mode": "ambient"}});
    let own = [json!({"namespace": "ambit-system"}), json!({"serviceAccountName": "ambit-operator"})];
    for object in [
        Object::Namespace(from_value(namespace).unwrap()),
        service("issuer", SERVICE, json!({}), json!({"app": "issuer"})),
        issuer(json!({"ambient.istio.io/redirection": "enabled"})),
        pod("operator-1", "10.0.0.9", own),
    ] {
        let _ = index.apply(object);
    }
    index
}

fn behind_a_waypoint() -> Index {
    let mut index = mesh();
    let gateway = json!({
        "metadata": {"name": "w", "namespace": "idp"},
        "spec": {"gatewayClassName": "istio-waypoint",
                 "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": [{"type": "IPAddress", "value": "10.96.1.1"}]}
    });
    let labels = json!({"gateway.istio.io/managed": "ambit.dev-mesh-controller", "pod-template-hash": "5d4",
                        "gateway.networking.k8s.io/gateway-name": "w"});
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w-5d4", "uid": "r", "controller": true}]);
    let metadata = json!({"labels": labels, "ownerReferences": owner});
    for object in [
        Object::Gateway(from_value(gateway).unwrap()),
        pod("w-1", WAYPOINT, [metadata, json!({"serviceAccountName": "w"})]),
        service("w", "10.96.1.1", json!({"gateway.istio.io/managed": "ambit.dev-mesh-controller"}), labels),
        service("issuer", SERVICE, json!({"istio.io/use-waypoint": "w"}), json!({"app": "issuer"})),
    ] {
        let _ = index.apply(object);
    }
    index
}

/// Serves HTTP on one end of a connection, like an application.
async fn serve_http(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: Seen) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(0x16) if head.is_empty() => return seen.note("a TLS handshake"),
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    seen.note(String::from_utf8(head).unwrap().lines().next().unwrap());
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{KEYS}", KEYS.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A peer's proxy; `admits` decides whether it accepts the tunnel.
async fn serve_tunnels(stream: DuplexStream, svid: Arc<Svid>, admits: bool, seen: Seen) {
    let Ok((stream, peer)) = ambit_identity::accept(&svid, stream).await else { return };
    let served =
        ambit_hbone::serve(stream, settings::SERVER, std::future::pending(), |request, responder| {
            seen.note(format!("{peer} asks for {}", request.authority));
            if admits {
                let tunnel: TunnelStream = responder.accept(None).unwrap().into_stream();
                tokio::spawn(serve_http(tunnel, seen.clone()));
            } else {
                responder.reject(StatusCode::UNAUTHORIZED).unwrap();
            }
        });
    let _ = served.await;
}

/// The peers: an issuer and its waypoint, either of which may have a wrong identity, and
/// applications in plaintext.
struct Place {
    index: Index,
    /// Service account in the peer's certificate.
    proves: &'static str,
    admits: bool,
}

impl Place {
    fn of(index: Index, proves: &'static str) -> Self {
        Self { index, proves, admits: true }
    }

    async fn fetch(self, address: &str) -> (Result<String, FetchError>, Vec<String>) {
        let ca = FakeCa::new("cluster.local").unwrap();
        let svid = ca.svid(&format!("spiffe://cluster.local/ns/idp/sa/{}", self.proves).parse().unwrap());
        let (seen, svid) = (Seen::default(), svid.unwrap());
        let (_trusted, issuer) = watch::channel(Some(Arc::new(Issuer {
            authority: ca.authority,
            trust_domain: "cluster.local".into(),
            certificate_ttl: std::time::Duration::from_secs(600),
        })));
        let client = MeshClient::new(SharedIndex::new(self.index), issuer, "operator-1");
        let noted = seen.clone();
        let fetcher = Fetcher::dialing(client, move |to| {
            let (seen, svid) = (noted.clone(), svid.clone());
            Box::pin(async move {
                let (near, far) = duplex(1 << 16);
                seen.note(format!("dials {to}"));
                match to.port() {
                    15008 => drop(tokio::spawn(serve_tunnels(far, svid, self.admits, seen))),
                    8080 | 443 => drop(tokio::spawn(serve_http(far, seen))),
                    _ => return Err(io::ErrorKind::ConnectionRefused.into()),
                }
                Ok(Box::new(near) as Box<dyn Io>)
            })
        });
        (fetcher.fetch(address, TIMEOUT).await, seen.take())
    }
}

#[tokio::test]
async fn an_issuer_in_the_mesh_is_asked_as_a_client_of_the_mesh_asks() {
    let unbound = || Place::of(mesh(), "issuer");
    let out = || {
        let mut index = mesh();
        let _ = index.apply(issuer(json!({})));
        Place::of(index, "issuer")
    };
    let by_service =
        ["dials 10.0.0.7:15008", &format!("{ASKS} asks for 10.0.0.7:8080"), "GET /keys HTTP/1.1"];
    let by_waypoint =
        ["dials 10.0.0.8:15008", &format!("{ASKS} asks for 10.96.0.7:80"), "GET /keys HTTP/1.1"];
    for (place, address, expected) in [
        (unbound(), "http://10.96.0.7/keys", &by_service[..]),
        (unbound(), "http://10.0.0.7:8080/keys", &by_service),
        (unbound(), "http://[::ffff:10.0.0.7]:8080/keys", &by_service),
        (Place::of(behind_a_waypoint(), "w"), "http://10.96.0.7/keys", &by_waypoint),
        (out(), "http://10.96.0.7/keys", &["dials 10.0.0.7:8080", "GET /keys HTTP/1.1"]),
        (unbound(), "http://10.9.9.9:8080/keys", &["dials 10.9.9.9:8080", "GET /keys HTTP/1.1"]),
    ] {
        let (fetched, seen) = place.fetch(address).await;
        assert_eq!(seen, expected, "{address}");
        assert_eq!(fetched.unwrap(), KEYS, "{address}");
    }
}

#[tokio::test]
async fn who_is_not_the_issuer_or_does_not_let_the_operator_in_hears_no_question() {
    let refusing = Place { admits: false, ..Place::of(mesh(), "issuer") };
    let impostor = Place::of(mesh(), "somebody");
    // Nothing bypasses the waypoint, not even a connection to the issuer itself.
    let round = Place::of(behind_a_waypoint(), "issuer");
    let asked = format!("{ASKS} asks for 10.0.0.7:8080");
    for (place, expected) in [
        (refusing, vec!["dials 10.0.0.7:15008", &asked]),
        (impostor, vec!["dials 10.0.0.7:15008"]),
        (round, vec!["dials 10.0.0.8:15008"]),
    ] {
        let (fetched, seen) = place.fetch("http://10.96.0.7/keys").await;
        assert_eq!(seen, expected);
        let error = fetched.unwrap_err();
        assert!(matches!(error, FetchError::NoAnswer(_)), "{error:?}");
        assert!(!error.to_string().contains("10.0.0."), "nobody learns where it leads: {error}");
    }
}

#[tokio::test]
async fn an_https_address_in_the_mesh_is_asked_by_tls_inside_the_tunnel() {
    let (fetched, seen) = Place::of(mesh(), "issuer").fetch("https://10.0.0.7:8443/keys").await;
    let asked = format!("{ASKS} asks for 10.0.0.7:8443");
    assert_eq!(seen, ["dials 10.0.0.7:15008", &asked, "a TLS handshake"]);
    assert!(matches!(fetched, Err(FetchError::NoAnswer(_))), "{fetched:?}");
}

#[tokio::test]
async fn a_slice_leads_the_operator_to_no_address_that_is_never_asked() {
    let mut index = mesh();
    let slice = json!({
        "metadata": {"name": "s", "namespace": "idp", "labels": {"kubernetes.io/service-name": "manual"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["169.254.169.254"]}], "ports": [{"port": 8080}]
    });
    let _ = index.apply(service("manual", "10.96.0.8", json!({}), json!({})));
    let _ = index.apply(Object::EndpointSlice(from_value(slice).unwrap()));
    let (fetched, seen) = Place::of(index, "issuer").fetch("http://10.96.0.8/keys").await;
    assert!(matches!(fetched, Err(FetchError::Local(_))), "{fetched:?}");
    assert_eq!(seen, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn without_an_authority_an_issuer_in_the_mesh_is_not_asked_at_all() {
    let (_trusted, issuer) = watch::channel(None);
    let client = MeshClient::new(SharedIndex::new(mesh()), issuer, "operator-1");
    let fetcher = Fetcher::dialing(client, |_| panic!("nobody is dialed"));
    let waited = fetcher.fetch("http://10.96.0.7/keys", TIMEOUT).await;
    assert!(matches!(waited, Err(FetchError::NoAnswer(_))), "{waited:?}");
    let gone = MeshClient::nowhere().certificate().await;
    assert!(matches!(gone, Err(TunnelError::NoAuthority)), "{gone:?}");
}
