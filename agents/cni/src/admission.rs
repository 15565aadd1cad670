//! The socket of the CNI plugin: a pod of the mesh starts only once it is enrolled.
//!
//! Invariant: a pod that is known to be outside the mesh is answered at once, and every pod within [`ENROLL_TIME_MAX`].

use std::{
    convert::Infallible,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ambit_netns::NetNs;
use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixListener, sync::Semaphore, time::timeout};

use crate::{
    Error, Problem,
    enroll::{driver::Sandbox, stage::Wanted},
    metrics::{AdmissionLabels, Metrics},
    node::{Member, Node},
    plugin::protocol::{ADD_PATH, Answer, BODY_BYTES_MAX, Request},
};

/// How long a pod may take to be enrolled before the runtime is told to try again; below the plugin's own limit.
pub const ENROLL_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a pod of which nothing is known waits for the operator to name it: whether its own label asks for the
/// mesh is not known before.
pub const UNNAMED_TIME_MAX: Duration = Duration::from_secs(5);
/// How long it waits while the operator cannot be heard.
pub const UNHEARD_TIME_MAX: Duration = Duration::from_millis(300);
/// Pods that may start at once.
const CONNECTIONS_MAX: usize = 256;
/// How long the plugin may take to send its request.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Only root may speak to the agent.
const SOCKET_MODE: u32 = 0o600;

/// Listens at `path`; a socket that an earlier agent left is replaced.
///
/// # Errors
/// When the directory is not writable.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| Error::io(format!("listen at {}", path.display()))(error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

/// Answers the plugin until dropped.
pub async fn serve(listener: UnixListener, node: Node, metrics: Metrics) -> Infallible {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = permits.clone().acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "The CNI plugin cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (node, metrics) = (node.clone(), metrics.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (node, metrics) = (node.clone(), metrics.clone());
                async move { Ok::<_, Infallible>(respond(request, &node, &metrics).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A request of the CNI plugin ended early");
            }
            drop(permit);
        });
    }
}

async fn respond(request: HttpRequest<Incoming>, node: &Node, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || request.uri().path() != ADD_PATH {
        return reply(StatusCode::NOT_FOUND, String::new());
    }
    let body = timeout(HEADER_TIME_MAX, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return reply(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let answer = admit(node, &request).await;
    let outcome = match &answer {
        Answer::Allow => "allow".to_owned(),
        Answer::Wait { reason, message } => {
            tracing::warn!(
                pod.namespace = request.namespace,
                pod.name = request.name,
                reason,
                message,
                "A pod must wait"
            );
            reason.clone()
        }
    };
    metrics.admissions.get_or_create(&AdmissionLabels { outcome }).inc();
    match serde_json::to_string(&answer) {
        Ok(text) => reply(StatusCode::OK, text),
        Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn reply(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

/// Whether the pod may start, once that is known.
pub async fn admit(node: &Node, request: &Request) -> Answer {
    let limit = match (node.holds(request), node.hears_operator()) {
        (true, _) => ENROLL_TIME_MAX,
        (false, true) => UNNAMED_TIME_MAX,
        (false, false) => UNHEARD_TIME_MAX,
    };
    let started = tokio::time::Instant::now();
    let Some(member) = node.find(request, limit).await else {
        if !node.holds(request) {
            return Answer::Allow;
        }
        return wait(Problem {
            reason: "PodUnknown",
            message: "the operator has not told the node agent about this pod; is ambit-operator running?"
                .into(),
        });
    };
    if member.intent.borrow().wanted != Wanted::L4 {
        return Answer::Allow;
    }
    match sandbox(request) {
        Ok(sandbox) => enroll(&member, sandbox, ENROLL_TIME_MAX.saturating_sub(started.elapsed())).await,
        Err(error) => wait(error.problem()),
    }
}

async fn enroll(member: &Member, sandbox: Sandbox, limit: Duration) -> Answer {
    let cookie = sandbox.netns.cookie();
    member.sandbox.send_replace(Some(sandbox));
    let (mut progress, mut intent) = (member.progress.clone(), member.intent.subscribe());
    let arrived = async {
        tokio::select! {
            _ = progress.wait_for(|progress| progress.enrolled == Some(cookie)) => {}
            _ = intent.wait_for(|intent| intent.wanted != Wanted::L4) => {}
        }
    };
    if timeout(limit, arrived).await.is_ok() {
        return Answer::Allow;
    }
    let problem = member.progress.borrow().problem.clone();
    wait(problem.unwrap_or_else(|| Problem {
        reason: "EnrollmentSlow",
        message: "the pod was not enrolled in time".to_owned(),
    }))
}

fn wait(problem: Problem) -> Answer {
    Answer::Wait { reason: problem.reason.to_owned(), message: problem.message }
}

fn sandbox(request: &Request) -> Result<Sandbox, Error> {
    let ips: Vec<IpAddr> = request.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        return Err(Error::NoAddress { uid: request.uid.clone() });
    }
    Ok(Sandbox { netns: Arc::new(open_netns(&request.netns)?), ips })
}

/// The runtime names the file as the node sees it; `/var/run` is a link to `/run` there, but need not exist here.
fn open_netns(path: &str) -> Result<NetNs, ambit_netns::Error> {
    NetNs::open(Path::new(path)).or_else(|error| match path.strip_prefix("/var/run/") {
        Some(rest) => NetNs::open(&PathBuf::from("/run").join(rest)),
        None => Err(error),
    })
}
