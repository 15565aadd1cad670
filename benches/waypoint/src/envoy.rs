//! Stock Envoy configured as a waypoint, as far as possible without Istio's extensions, and as a
//! plain proxy.
//!
//! Invariant: its configuration equals that of the waypoint in [`crate::service`]: authorization by
//! principal, path and header, routing, a response header, timeout, retries, metrics and access
//! log. The filter chain is that of Istio's waypoint.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};

use crate::{
    plan::{self, Places},
    service::{DENIED_PREFIX, EXTRA_PRINCIPALS, REQUEST_TIMEOUT, RETRIES, route_path},
};

/// HBONE's window sizes in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Paths of its certificate files.
pub(crate) struct Files<'a> {
    pub(crate) folder: &'a Path,
}

/// The complete configuration, with this many routes before the matching one.
pub(crate) fn config(places: &Places, files: &Files<'_>, routes: usize) -> Value {
    let plain = http_chain("plain", "backend_plain", routes, &json!({ "any": true }));
    let main = http_chain("main", "backend_hbone", routes, &principal(&plan::client().to_string()));
    json!({
        "node": { "id": "benchmark", "cluster": "benchmark" },
        "stats_config": { "stats_tags": [] },
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": { "@type": kind("bootstrap.internal_listener.v3.InternalListener") },
        }],
        "static_resources": {
            "listeners": [
                { "name": "plain", "address": socket(places.envoy_plain()), "filter_chains": [{ "filters": [plain] }] },
                {
                    "name": "connect_terminate",
                    "address": socket(places.envoy_hbone()),
                    "connection_balance_config": { "exact_balance": {} },
                    "filter_chains": [{ "transport_socket": tls_server(files), "filters": [terminate()] }],
                },
                { "name": "main_internal", "internal_listener": {}, "filter_chains": [{ "filters": [main] }] },
                {
                    "name": "connect_originate",
                    "internal_listener": {},
                    "filter_chains": [{ "filters": [originate(places)] }],
                },
            ],
            "clusters": [
                internal_cluster("main_internal", "main_internal", true),
                internal_cluster("backend_hbone", "connect_originate", false),
                cluster("backend_plain", &json!({ "address": socket(places.backend_plain()) })),
                originate_cluster(places, files),
            ],
        },
    })
}

fn kind(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// Terminates the tunnels and records the peer's identity.
fn terminate() -> Value {
    let remember = json!({
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": {
            "@type": kind("filters.http.set_filter_state.v3.Config"),
            "on_request_headers": [{
                "object_key": "mesh.peer_principal",
                "factory_key": "envoy.string",
                "format_string": { "text_format_source": { "inline_string": "%DOWNSTREAM_PEER_URI_SAN%" } },
                "shared_with_upstream": "ONCE",
            }],
        },
    });
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "connect",
            "codec_type": "HTTP2",
            "http2_protocol_options": {
                "allow_connect": true,
                "max_concurrent_streams": 100,
                "initial_stream_window_size": STREAM_WINDOW_BYTES,
                "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            },
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
            "route_config": { "virtual_hosts": [{
                "name": "connect",
                "domains": ["*"],
                "routes": [{
                    "match": { "connect_matcher": {} },
                    "route": {
                        "cluster": "main_internal",
                        "timeout": "0s",
                        "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                    },
                }],
            }] },
            "http_filters": [remember, router()],
        },
    })
}

/// The HTTP filter chain.
fn http_chain(name: &str, cluster: &str, routes: usize, allowed: &Value) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": name,
            "codec_type": "AUTO",
            "http2_protocol_options": {
                "initial_stream_window_size": STREAM_WINDOW_BYTES,
                "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            },
            "access_log": [access_log()],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": route_list(cluster, routes) }] },
            "http_filters": [
                rbac("DENY", &json!({ "url_path": { "path": { "prefix": DENIED_PREFIX } } }), vec![json!({ "any": true })]),
                rbac("ALLOW", &json!({ "any": true }), allowed_principals(allowed)),
                filter("grpc_stats", "filters.http.grpc_stats.v3.FilterConfig"),
                filter("fault", "filters.http.fault.v3.HTTPFault"),
                filter("cors", "filters.http.cors.v3.Cors"),
                router(),
            ],
        },
    })
}

/// Principals that never call, and last the caller: the same list as in the waypoint's policy.
fn allowed_principals(last: &Value) -> Vec<Value> {
    let others = (0..EXTRA_PRINCIPALS).map(|number| principal(&plan::other(number).to_string()));
    others.chain([last.clone()]).collect()
}

fn principal(identity: &str) -> Value {
    json!({ "filter_state": { "key": "mesh.peer_principal", "string_match": { "exact": identity } } })
}

fn rbac(action: &str, permission: &Value, principals: Vec<Value>) -> Value {
    json!({
        "name": format!("envoy.filters.http.rbac.{action}"),
        "typed_config": {
            "@type": kind("filters.http.rbac.v3.RBAC"),
            "rules": { "action": action, "policies": { "policy": { "permissions": [permission], "principals": principals } } },
        },
    })
}

fn filter(name: &str, kind_name: &str) -> Value {
    json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": { "@type": kind(kind_name) } })
}

fn router() -> Value {
    filter("router", "filters.http.router.v3.Router")
}

fn route_list(cluster: &str, routes: usize) -> Vec<Value> {
    let action = json!({
        "cluster": cluster,
        "timeout": format!("{}s", REQUEST_TIMEOUT.as_secs()),
        "retry_policy": { "retry_on": "retriable-status-codes,connect-failure", "retriable_status_codes": [503], "num_retries": RETRIES },
    });
    let header = json!([{ "header": { "key": "x-served-by", "value": "benchmark" } }]);
    let route =
        |matching: Value| json!({ "match": matching, "route": action, "response_headers_to_add": header });
    let exact = (0..routes).map(|number| route(json!({ "path": route_path(number) })));
    exact.chain([route(json!({ "prefix": "/" }))]).collect()
}

fn access_log() -> Value {
    let fields = [
        ("start_time", "%START_TIME%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        ("protocol", "%PROTOCOL%"),
        ("response_code", "%RESPONSE_CODE%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("bytes_received", "%BYTES_RECEIVED%"),
        ("bytes_sent", "%BYTES_SENT%"),
        ("duration", "%DURATION%"),
        ("upstream_host", "%UPSTREAM_HOST%"),
        ("authority", "%REQ(:AUTHORITY)%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("peer", "%FILTER_STATE(mesh.peer_principal:PLAIN)%"),
        ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ];
    let format: serde_json::Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": kind("access_loggers.file.v3.FileAccessLog"),
            "path": "/dev/null",
            "log_format": { "json_format": format },
        },
    })
}

/// A tunnel to the endpoint for each upstream connection.
fn originate(places: &Places) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": kind("filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "originate",
            "cluster": "originate",
            "tunneling_config": { "hostname": places.backend_plain().to_string() },
        },
    })
}

fn cluster(name: &str, endpoint: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000, "max_retries": 1000,
        }] },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": endpoint }] }] },
    })
}

fn internal_cluster(name: &str, listener: &str, carries_state: bool) -> Value {
    let address =
        json!({ "envoy_internal_address": { "server_listener_name": listener, "endpoint_id": name } });
    let cluster = cluster(name, &json!({ "address": address }));
    if !carries_state {
        return cluster;
    }
    with(
        cluster,
        "transport_socket",
        json!({
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": {
                "@type": kind("transport_sockets.internal_upstream.v3.InternalUpstreamTransport"),
                "transport_socket": {
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": { "@type": kind("transport_sockets.raw_buffer.v3.RawBuffer") },
                },
            },
        }),
    )
}

fn originate_cluster(places: &Places, files: &Files<'_>) -> Value {
    let options = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": kind("upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": {
                "allow_connect": true,
                "max_concurrent_streams": 100,
                "initial_stream_window_size": STREAM_WINDOW_BYTES,
                "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            } },
        },
    });
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": kind("transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": tls_common(files, &plan::backend().to_string()),
        },
    });
    let cluster = cluster("originate", &json!({ "address": socket(places.backend_hbone()) }));
    with(with(cluster, "typed_extension_protocol_options", options), "transport_socket", tls)
}

/// Adds a field.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    object.as_object_mut().map(|fields| fields.insert(name.to_owned(), value));
    object
}

fn tls_server(files: &Files<'_>) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": kind("transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": tls_common(files, "spiffe://cluster.local/"),
        },
    })
}

fn tls_common(files: &Files<'_>, peer_prefix: &str) -> Value {
    let file = |name: &str| json!({ "filename": files.folder.join(name) });
    json!({
        "alpn_protocols": ["h2"],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{ "certificate_chain": file("cert-chain.pem"), "private_key": file("key.pem") }],
        "validation_context": {
            "trusted_ca": file("root-cert.pem"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "prefix": peer_prefix } }],
        },
    })
}
