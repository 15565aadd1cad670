//! Encoding and decoding of messages. Pure.
//!
//! Invariant: a message is accepted only with exactly the file descriptors that it refers to.

use std::os::fd::OwnedFd;

use ambit_proto::{
    zds::{
        Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
        WorkloadResponse, ZdsHello, workload_request::Payload, workload_response,
    },
    zds_ext,
};
use prost::Message;

use crate::{Kind, ZdsError};

/// Longest error text in an ack, in bytes. Longer texts are truncated, so that the packet stays
/// within its limit.
const REASON_BYTES_MAX: usize = 900;
/// Listeners in one hello packet: 20 × (36 bytes of uid + framing) stays within the packet limit.
pub(crate) const HELD_PER_PACKET: usize = 20;

/// A pod in ZDS messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Kubernetes `metadata.uid`.
    pub uid: String,
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Service account name, without namespace.
    pub service_account: String,
}

/// What happens to the open connections of a removed pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// The pod was deleted: close them.
    Close,
    /// The pod continues outside the mesh: let them end by themselves.
    Keep,
}

/// A listening socket and its purpose.
#[derive(Debug)]
pub struct Listener {
    /// Purpose.
    pub kind: Kind,
    /// The listening socket.
    pub fd: OwnedFd,
}

/// A listening socket that a proxy holds for a pod.
#[derive(Debug)]
pub struct ListenerOf {
    /// Pod uid.
    pub uid: String,
    /// Purpose and socket.
    pub listener: Listener,
}

/// Start to serve a pod.
#[derive(Debug)]
pub struct Add {
    /// The pod to serve.
    pub pod: Pod,
    /// Its network namespace. Not yet verified to be one.
    pub netns: OwnedFd,
    /// Listening sockets opened by the agent; empty when the proxy must open its own.
    pub listeners: Vec<Listener>,
}

/// A request from the agent to the proxy.
#[derive(Debug)]
pub enum Request {
    /// Serve this pod. Repeating it with the same namespace has no effect.
    Add(Add),
    /// Sent before the snapshot ends: continue to serve this pod, whose namespace the agent does
    /// not know.
    Keep {
        /// Pod uid.
        uid: String,
    },
    /// Stop serving this pod.
    Del {
        /// Pod uid.
        uid: String,
        /// What to do with its open connections.
        connections: Connections,
    },
    /// The snapshot is complete: all pods that were not listed must be dropped.
    SnapshotSent,
    /// A newer proxy took over: stop accepting, finish open connections, exit.
    Drain,
    /// Liveness check.
    Ping,
}

/// The first message of a proxy.
#[derive(Debug, Default)]
pub struct Hello {
    /// Unique per proxy process; `None` from a proxy that does not accept listeners from the agent
    /// (Istio's).
    pub instance: Option<String>,
    /// Listeners the proxy already holds.
    pub held: Vec<ListenerOf>,
}

/// Name of a request's payload, for errors and logs.
pub(crate) fn name(payload: &Payload) -> &'static str {
    match payload {
        Payload::Add(_) => "add",
        Payload::Keep(_) => "keep",
        Payload::Del(_) => "del",
        Payload::SnapshotSent(_) => "snapshot_sent",
        Payload::Drain(_) => "drain",
        Payload::Ping(_) => "ping",
    }
}

pub(crate) fn encode_request(payload: Payload) -> Vec<u8> {
    WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}

pub(crate) fn add(pod: &Pod, kinds: &[Kind]) -> Payload {
    Payload::Add(AddWorkload {
        uid: pod.uid.clone(),
        workload_info: Some(WorkloadInfo {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
        }),
        listeners: (!kinds.is_empty())
            .then(|| zds_ext::Listeners { kinds: kinds.iter().map(|kind| i32::from(*kind)).collect() }),
    })
}

pub(crate) fn keep(uid: &str) -> Payload {
    Payload::Keep(KeepWorkload { uid: uid.to_owned() })
}

pub(crate) fn del(uid: &str, connections: Connections) -> Payload {
    Payload::Del(DelWorkload { uid: uid.to_owned(), keep_connections: connections == Connections::Keep })
}

pub(crate) fn snapshot_sent() -> Payload {
    Payload::SnapshotSent(SnapshotSent {})
}

/// Decodes a request; `fds` must be exactly those that it refers to.
///
/// # Errors
/// [`ZdsError::Malformed`], [`ZdsError::Protocol`] or [`ZdsError::Descriptors`].
pub(crate) fn decode_request(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Request, ZdsError> {
    let message = WorkloadRequest::decode(bytes)?;
    let payload = message.payload.ok_or(ZdsError::Protocol("a request has no known payload"))?;
    let name = name(&payload);
    let request = match payload {
        Payload::Add(message) => return decode_add(message, fds).map(Request::Add),
        Payload::Keep(KeepWorkload { uid }) => Request::Keep { uid: checked_uid(uid)? },
        Payload::Del(DelWorkload { uid, keep_connections }) => {
            let connections = if keep_connections { Connections::Keep } else { Connections::Close };
            Request::Del { uid: checked_uid(uid)?, connections }
        }
        Payload::SnapshotSent(_) => Request::SnapshotSent,
        Payload::Drain(_) => Request::Drain,
        Payload::Ping(_) => Request::Ping,
    };
    exactly(name, 0, fds.len())?;
    Ok(request)
}

fn decode_add(message: AddWorkload, fds: Vec<OwnedFd>) -> Result<Add, ZdsError> {
    let kinds = message.listeners.map(|listeners| listeners.kinds).unwrap_or_default();
    let kinds = checked_kinds(&kinds)?;
    exactly("add", 1 + kinds.len(), fds.len())?;
    let info = message.workload_info.ok_or(ZdsError::Protocol("an add has no workload_info"))?;
    let mut fds = fds.into_iter();
    let netns = fds.next().ok_or(ZdsError::Protocol("an add has no namespace"))?;
    Ok(Add {
        pod: Pod {
            uid: checked_uid(message.uid)?,
            name: info.name,
            namespace: info.namespace,
            service_account: info.service_account,
        },
        netns,
        listeners: kinds.into_iter().zip(fds).map(|(kind, fd)| Listener { kind, fd }).collect(),
    })
}

/// The packets of a hello: at least one, each with its part of `held`.
pub(crate) fn hello<'a>(instance: &str, held: &'a [ListenerOf]) -> Vec<(Vec<u8>, &'a [ListenerOf])> {
    let mut rest = held;
    let mut packets = Vec::new();
    loop {
        let (part, later) = rest.split_at(rest.len().min(HELD_PER_PACKET));
        let message = zds_ext::Hello {
            held: part
                .iter()
                .map(|of| zds_ext::HeldListener { uid: of.uid.clone(), kind: of.listener.kind.into() })
                .collect(),
            more: !later.is_empty(),
            instance: instance.to_owned(),
        };
        let message = ZdsHello { version: Version::V1.into(), ambit: Some(message) };
        packets.push((message.encode_to_vec(), part));
        if later.is_empty() {
            return packets;
        }
        rest = later;
    }
}

/// Decodes one hello packet into `hello`. Returns whether another one follows.
pub(crate) fn decode_hello(hello: &mut Hello, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<bool, ZdsError> {
    let message = ZdsHello::decode(bytes)?;
    if message.version != i32::from(Version::V1) {
        return Err(ZdsError::Protocol("the hello is not of version 1"));
    }
    let Some(ambit) = message.ambit else {
        exactly("hello", 0, fds.len())?;
        return Ok(false);
    };
    exactly("hello", ambit.held.len(), fds.len())?;
    if ambit.instance.is_empty() {
        return Err(ZdsError::Protocol("the hello names no instance"));
    }
    match &hello.instance {
        Some(instance) if *instance != ambit.instance => {
            return Err(ZdsError::Protocol("the instance changed within a hello"));
        }
        _ => hello.instance = Some(ambit.instance),
    }
    for (held, fd) in ambit.held.into_iter().zip(fds) {
        let kind = checked_kind(held.kind)?;
        hello.held.push(ListenerOf { uid: checked_uid(held.uid)?, listener: Listener { kind, fd } });
    }
    Ok(ambit.more)
}

pub(crate) fn encode_ack(outcome: Result<(), &str>) -> Vec<u8> {
    let reason = match outcome {
        Ok(()) => "",
        // On the wire, an empty error means success.
        Err("") => "unknown error",
        Err(reason) => reason,
    };
    let end = (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(|end| reason.is_char_boundary(*end));
    let error = reason.get(..end.unwrap_or_default()).unwrap_or_default().to_owned();
    WorkloadResponse { payload: Some(workload_response::Payload::Ack(Ack { error })) }.encode_to_vec()
}

/// Decodes the answer to a request.
///
/// # Errors
/// [`ZdsError::Refused`] when the proxy reports an error; otherwise the packet is not an ack.
pub(crate) fn decode_ack(bytes: &[u8], fds: &[OwnedFd]) -> Result<(), ZdsError> {
    exactly("ack", 0, fds.len())?;
    match WorkloadResponse::decode(bytes)?.payload {
        Some(workload_response::Payload::Ack(Ack { error })) if error.is_empty() => Ok(()),
        Some(workload_response::Payload::Ack(Ack { error })) => Err(ZdsError::Refused { reason: error }),
        None => Err(ZdsError::Protocol("an answer is not an ack")),
    }
}

fn exactly(payload: &'static str, want: usize, got: usize) -> Result<(), ZdsError> {
    if want == got { Ok(()) } else { Err(ZdsError::Descriptors { payload, want, got }) }
}

fn checked_uid(uid: String) -> Result<String, ZdsError> {
    if uid.is_empty() { Err(ZdsError::Protocol("a pod uid is empty")) } else { Ok(uid) }
}

fn checked_kind(kind: i32) -> Result<Kind, ZdsError> {
    Kind::try_from(kind).map_err(|_| ZdsError::Protocol("a listener is of an unknown kind"))
}

fn checked_kinds(kinds: &[i32]) -> Result<Vec<Kind>, ZdsError> {
    let mut seen = Vec::with_capacity(kinds.len().min(crate::FDS_MAX));
    for kind in kinds {
        let kind = checked_kind(*kind)?;
        if seen.contains(&kind) {
            return Err(ZdsError::Protocol("a listener kind is named twice"));
        }
        seen.push(kind);
    }
    Ok(seen)
}
