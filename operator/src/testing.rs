//! A scripted API server for tests.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Response};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// An unsigned JWT with these claims.
pub(crate) fn jwt(claims: &Value) -> String {
    [r#"{"alg":"RS256","kid":"k"}"#, &claims.to_string(), "signature"]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".")
}

/// A received request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// Answers in order, repeating the last one. Without any: nothing is found, a deletion succeeds, a
/// write returns what was written, and a write to a Mesh returns a Mesh. Requests are recorded.
#[derive(Clone, Default)]
pub(crate) struct Script {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), seen: Arc::default() }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and path of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }

    pub(crate) fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await?;
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let path = parts.uri.path().to_owned();
                let query = parts.uri.query().unwrap_or_default().to_owned();
                let echo = if path.contains("/meshes") { mesh() } else { body.clone() };
                let otherwise = match parts.method.as_str() {
                    "GET" => failure(404, "NotFound"),
                    "DELETE" => (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
                    _ => (200, echo),
                };
                script.seen.lock().unwrap().push(Seen {
                    method: parts.method.to_string(),
                    path,
                    query,
                    body,
                });
                let (status, answer) = {
                    let mut answers = script.answers.lock().unwrap();
                    if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
                }
                .unwrap_or(otherwise);
                let response = Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, kube::Error>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }
}

/// A service account of the mesh in the operator's namespace.
pub(crate) fn account(name: &str) -> ServiceAccount {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ambit-system", "labels": {"ambit.dev/mesh": "default"}},
        "automountServiceAccountToken": false
    }))
    .unwrap()
}

/// A Mesh with only defaults.
pub(crate) fn mesh() -> Value {
    json!({
        "apiVersion": "ambit.dev/v1alpha1", "kind": "Mesh", "spec": {},
        "metadata": {"name": "default", "uid": "u", "resourceVersion": "1", "generation": 1},
    })
}

/// The body of an error response.
pub(crate) fn failure(code: u16, reason: &str) -> (u16, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason});
    (code, body)
}
