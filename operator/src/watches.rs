//! Watches, and the conversion of objects for the index.
//!
//! Invariant: a malformed object never stops a watch, and a kind whose CRD is missing counts as
//! listed and empty until it appears.

use std::{collections::BTreeSet, fmt::Debug, future::Future, pin::Pin, sync::Arc};

use ambit_api::Mesh;
use ambit_api::mesh::FailurePolicy;
use ambit_index::{Caller, Key, Kind, Object, name_of};
use ambit_model::NamespacedName;
use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    core::v1::{Namespace, Node},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// Queued objects; watches wait while the channel is full.
pub(crate) const SEEN_MAX: usize = 4096;
/// Kinds that must be listed before anything is published.
pub(crate) const KINDS: [Kind; 20] = [
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Node,
    Kind::Namespace,
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::Gateway,
    Kind::GatewayClass,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::ReferenceGrant,
    Kind::TrafficPolicy,
    Kind::ValidatingWebhook,
    Kind::MutatingWebhook,
    Kind::ApiService,
    Kind::CustomResource,
];

/// An event of a watch.
#[derive(Debug)]
pub(crate) enum Seen {
    /// An added or changed object.
    Apply(Object),
    /// A deleted object.
    Delete(Key),
    /// A complete list: other objects of the kind are gone.
    Listed(Kind, BTreeSet<NamespacedName>),
    /// The current Mesh.
    Mesh(Option<Arc<Mesh>>),
    /// What happens to the services of a waypoint while none of its pods is ready; `None` uses the
    /// Mesh's setting.
    FailurePolicy(NamespacedName, Option<FailurePolicy>),
    /// The failure policies of all waypoints have been sent once.
    FailurePoliciesSaid,
    /// The result of fetching a key set; `None` when it is not wanted any more.
    KeySet(Arc<str>, Option<Result<Arc<str>, String>>),
}

/// Excludes slices of the endpoints controller, which only repeat selectors and pods.
const FOREIGN_SLICES: &str = "endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io";

/// One watch, to be spawned.
pub(crate) type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A watch of one kind; malformed objects are skipped.
fn full<K>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<K>>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    watcher(Api::<DeserializeGuard<K>>::all(client.clone()), config).default_backoff()
}

/// A watch of one kind, for the index.
fn whole<K>(client: &Client, kind: Kind, seen: &mpsc::Sender<Seen>, object: fn(Box<K>) -> Object) -> Watch
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let events = full::<K>(client, watcher::Config::default());
    Box::pin(follow(events, kind, seen.clone(), move |found| object(Box::new(found))))
}

/// All watches of the index.
pub(crate) fn index(client: &Client, seen: &mpsc::Sender<Seen>) -> Vec<Watch> {
    let slices = watcher::Config::default().labels(FOREIGN_SLICES);
    vec![
        whole(client, Kind::Pod, seen, Object::Pod),
        whole(client, Kind::Service, seen, Object::Service),
        whole(client, Kind::AuthorizationPolicy, seen, Object::AuthorizationPolicy),
        whole(client, Kind::PeerAuthentication, seen, Object::PeerAuthentication),
        whole(client, Kind::RequestAuthentication, seen, Object::RequestAuthentication),
        whole(client, Kind::Gateway, seen, Object::Gateway),
        whole(client, Kind::GatewayClass, seen, Object::GatewayClass),
        whole(client, Kind::HttpRoute, seen, Object::HttpRoute),
        whole(client, Kind::GrpcRoute, seen, Object::GrpcRoute),
        whole(client, Kind::TcpRoute, seen, Object::TcpRoute),
        whole(client, Kind::TlsRoute, seen, Object::TlsRoute),
        whole(client, Kind::ReferenceGrant, seen, Object::ReferenceGrant),
        whole(client, Kind::TrafficPolicy, seen, Object::TrafficPolicy),
        whole(client, Kind::ValidatingWebhook, seen, |found| caller(Caller::validating(&found))),
        whole(client, Kind::MutatingWebhook, seen, |found| caller(Caller::mutating(&found))),
        whole(client, Kind::ApiService, seen, |found| caller(Caller::aggregated(&found))),
        whole(client, Kind::CustomResource, seen, |found| caller(Caller::converting(&found))),
        Box::pin(follow(full::<EndpointSlice>(client, slices), Kind::EndpointSlice, seen.clone(), |slice| {
            Object::EndpointSlice(Box::new(slice))
        })),
        Box::pin(follow(metadata::<Node>(client), Kind::Node, seen.clone(), |node| {
            Object::Node(Box::new(node.metadata))
        })),
        Box::pin(follow(metadata::<Namespace>(client), Kind::Namespace, seen.clone(), |namespace| {
            Object::Namespace(Box::new(namespace.metadata))
        })),
    ]
}

fn caller(caller: Caller) -> Object {
    Object::Caller(Box::new(caller))
}

/// The watch of the Mesh.
pub(crate) fn mesh(client: &Client, seen: mpsc::Sender<Seen>) -> Watch {
    let config =
        watcher::Config::default().fields(&format!("metadata.name={}", ambit_api::labels::MESH_NAME));
    let events = watcher(Api::<DeserializeGuard<Mesh>>::all(client.clone()), config).default_backoff();
    Box::pin(async move {
        let mut events = std::pin::pin!(events);
        let mut listed = None;
        while let Some(event) = events.next().await {
            let mesh = match event {
                Ok(watcher::Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(watcher::Event::InitApply(guard)) => {
                    listed = decoded(guard, "Mesh").map(Arc::new);
                    continue;
                }
                Ok(watcher::Event::InitDone) => listed.take(),
                Ok(watcher::Event::Apply(guard)) => match decoded(guard, "Mesh") {
                    Some(mesh) => Some(Arc::new(mesh)),
                    None => continue,
                },
                Ok(watcher::Event::Delete(_)) => None,
                Err(error) => {
                    tracing::warn!(kind = "Mesh", %error, "A watch failed, restarting it");
                    continue;
                }
            };
            if seen.send(Seen::Mesh(mesh)).await.is_err() {
                return;
            }
        }
    })
}

fn metadata<K>(
    client: &Client,
) -> impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<PartialObjectMeta<K>>>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let api = Api::<PartialObjectMeta<K>>::all(client.clone());
    watcher(api, watcher::Config::default()).default_backoff().map(|event| {
        event.map(|event| match event {
            watcher::Event::Apply(object) => watcher::Event::Apply(DeserializeGuard(Ok(object))),
            watcher::Event::Delete(object) => watcher::Event::Delete(DeserializeGuard(Ok(object))),
            watcher::Event::InitApply(object) => watcher::Event::InitApply(DeserializeGuard(Ok(object))),
            watcher::Event::Init => watcher::Event::Init,
            watcher::Event::InitDone => watcher::Event::InitDone,
        })
    })
}

async fn follow<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<K>>>> + Send,
    kind: Kind,
    seen: mpsc::Sender<Seen>,
    object: impl Fn(K) -> Object + Send,
) where
    K: Resource<DynamicType = ()>,
{
    let mut events = std::pin::pin!(events);
    let mut listed = BTreeSet::new();
    let mut is_missing = false;
    while let Some(event) = events.next().await {
        let next = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(guard)) => {
                // A malformed object keeps its last valid version.
                listed.insert(name_of(guard.meta()));
                decoded(guard, &K::kind(&())).map(|found| Seen::Apply(object(found)))
            }
            Ok(watcher::Event::InitDone) => {
                is_missing = false;
                Some(Seen::Listed(kind, std::mem::take(&mut listed)))
            }
            Ok(watcher::Event::Apply(guard)) => {
                decoded(guard, &K::kind(&())).map(|found| Seen::Apply(object(found)))
            }
            Ok(watcher::Event::Delete(guard)) => {
                Some(Seen::Delete(Key { kind, name: name_of(guard.meta()) }))
            }
            Err(error) => broken(&error, kind, &mut is_missing),
        };
        if let Some(next) = next
            && seen.send(next).await.is_err()
        {
            return;
        }
    }
}

fn broken(error: &watcher::Error, kind: Kind, is_missing: &mut bool) -> Option<Seen> {
    if !is_not_served(error) {
        tracing::warn!(?kind, %error, "A watch failed, restarting it");
        return None;
    }
    if std::mem::replace(is_missing, true) {
        return None;
    }
    tracing::warn!(?kind, "The kind is not served by this cluster; its objects count as absent until it is");
    Some(Seen::Listed(kind, BTreeSet::new()))
}

/// Whether the cluster does not serve the kind at all.
#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; every other error is a broken watch")]
pub(crate) fn is_not_served(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(source) | watcher::Error::WatchStartFailed(source) => {
            crate::error::is_not_found(source)
        }
        _ => false,
    }
}

pub(crate) fn decoded<K>(guard: DeserializeGuard<K>, kind: &str) -> Option<K> {
    match guard.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
            tracing::warn!(kind, ?namespace, ?name, error = %invalid.error, "A malformed object is skipped");
            None
        }
    }
}
