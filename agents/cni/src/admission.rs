//! The CNI plugin's socket: a pod of the mesh starts only once it is enrolled.
//!
//! Invariant: a pod known to be outside the mesh gets its answer at once, and every pod within
//! [`ENROLL_TIME_MAX`].

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ambit_netns::NetNs;
use ambit_runtime::accept;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    Error, Problem,
    enroll::{pod::Sandbox, stage::Wanted},
    metrics::{AdmissionLabels, Metrics},
    node::{Member, Node},
    plugin::{
        frame::{self, FrameError},
        protocol::{Answer, Request},
    },
};

/// How long enrolling a pod may take before the runtime is asked to retry; below the plugin's own
/// limit.
pub(crate) const ENROLL_TIME_MAX: Duration = Duration::from_secs(15);
/// How long to wait for the operator to describe an unknown pod; until then it is not known whether
/// the pod's own label enrolls it.
pub(crate) const UNKNOWN_POD_TIME_MAX: Duration = Duration::from_secs(5);
/// How long to wait for that while the operator is not connected.
pub const DISCONNECTED_TIME_MAX: Duration = Duration::from_millis(300);
/// Pods that may start at the same time.
const CONNECTIONS_MAX: usize = 256;
/// How long receiving the plugin's request may take, and sending the answer.
const FRAME_TIME_MAX: Duration = Duration::from_secs(5);
/// Only root may speak to the agent.
const SOCKET_MODE: u32 = 0o600;

/// Why the plugin got no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("it did not send its request, or read the answer, in time")]
    Late,
    #[error("its connection failed: {0}")]
    Broken(#[source] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Listens at `path`, replacing the socket of an earlier agent.
///
/// # Errors
/// When the directory is not writable.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| Error::io(format!("listen at {}", path.display()))(error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

/// Serves the plugin until dropped.
pub(crate) async fn serve(listener: UnixListener, node: Node, metrics: Metrics) -> Infallible {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = permits.clone().acquire_owned().await;
        let (stream, _) = accept::next("cni", || listener.accept()).await;
        let (node, metrics) = (node.clone(), metrics.clone());
        tokio::spawn(async move {
            let answered = answer(stream, async |request| {
                let answer = admit(&node, &request).await;
                count(&request, &answer, &metrics);
                answer
            });
            if let Err(error) = answered.await {
                tracing::warn!(%error, "A request of the CNI plugin got no answer; a pod of the mesh waits until it is retried");
            }
            drop(permit);
        });
    }
}

/// Answers one request. An invalid request gets no answer: the connection is closed, and the plugin
/// decides from its state file.
async fn answer(
    mut stream: UnixStream,
    admit: impl AsyncFnOnce(Request) -> Answer,
) -> Result<(), Unanswered> {
    let request = timeout(FRAME_TIME_MAX, receive(&mut stream)).await.map_err(|_| Unanswered::Late)??;
    let answer = frame::encode(&admit(request).await)?;
    let sent = timeout(FRAME_TIME_MAX, stream.write_all(&answer)).await;
    sent.map_err(|_| Unanswered::Late)?.map_err(Unanswered::Broken)
}

async fn receive(stream: &mut UnixStream) -> Result<Request, Unanswered> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    stream.read_exact(&mut prefix).await.map_err(Unanswered::Broken)?;
    let mut json = vec![0; frame::length(prefix)?];
    stream.read_exact(&mut json).await.map_err(Unanswered::Broken)?;
    Ok(frame::decode(&json)?)
}

fn count(request: &Request, answer: &Answer, metrics: &Metrics) {
    let outcome = match answer {
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
}

/// Decides whether the pod may start, waiting until that is known.
pub async fn admit(node: &Node, request: &Request) -> Answer {
    let limit = match (node.holds(request), node.is_operator_connected()) {
        (true, _) => ENROLL_TIME_MAX,
        (false, true) => UNKNOWN_POD_TIME_MAX,
        (false, false) => DISCONNECTED_TIME_MAX,
    };
    let started = tokio::time::Instant::now();
    let Some(member) = node.find(request, limit).await else {
        if !node.holds(request) {
            return Answer::Allow;
        }
        return wait(Problem {
            reason: "PodUnknown",
            message:
                "the operator has not described this pod to the node agent yet; is ambit-operator running?"
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

/// The runtime passes the path as seen on the node, where `/var/run` links to `/run`; the link may
/// not exist here.
fn open_netns(path: &str) -> Result<NetNs, ambit_netns::Error> {
    NetNs::open(Path::new(path)).or_else(|error| match path.strip_prefix("/var/run/") {
        Some(rest) => NetNs::open(&PathBuf::from("/run").join(rest)),
        None => Err(error),
    })
}

#[cfg(test)]
mod tests;
