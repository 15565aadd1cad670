//! The client's state and responses to the server; no I/O.
//!
//! Invariant: every name that the handler may know is in `held` until its removal was passed to the
//! handler.

use std::collections::{BTreeMap, HashSet};

use ambit_proto::discovery::{self, DeltaDiscoveryRequest};
use prost::Message;

use super::{
    config::Config,
    handler::{Handler, Rejection, Resource},
    queries::Answer,
};
use crate::wire;

/// Bytes of names and versions in a first request. The rest is omitted, so that the request fits
/// into a message.
pub(super) const INITIAL_VERSIONS_BYTES_MAX: usize = 3 << 20;
/// Bytes of an error sent to the server.
pub(super) const DETAIL_BYTES_MAX: usize = 16 << 10;
/// Size of the tags and lengths of one map entry, at most.
const MAP_ENTRY_BYTES: usize = 16;
/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;
/// Version of a rejected resource: no content has it, so a new stream sends the resource again.
const REFUSED: &str = "";

/// All subscriptions of one client, across its streams.
#[derive(Debug)]
pub(super) struct ClientSession {
    node: discovery::Node,
    subscriptions: Vec<ClientSubscription>,
}

#[derive(Debug)]
struct ClientSubscription {
    type_url: &'static str,
    held: BTreeMap<String, String>,
    /// Held names that were omitted from the first request: removed unless the initial state of
    /// this stream contains them.
    unconfirmed: HashSet<String>,
    /// The initial state of this stream is complete.
    complete: bool,
    /// An initial state was completed and acknowledged.
    synced: bool,
}

impl ClientSession {
    pub(super) fn new(config: &Config) -> Self {
        let text = |value: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(value.to_owned())),
        };
        let fields = config.node.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        let node =
            discovery::Node { id: config.node.id.clone(), metadata: Some(prost_types::Struct { fields }) };
        let subscriptions = config
            .types
            .iter()
            .map(|type_url| ClientSubscription {
                type_url,
                held: BTreeMap::new(),
                unconfirmed: HashSet::new(),
                complete: false,
                synced: false,
            })
            .collect();
        Self { node, subscriptions }
    }

    /// The first requests of a new stream, one per type.
    pub(super) fn open(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let node = &self.node;
        self.subscriptions
            .iter_mut()
            .map(|subscription| DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: subscription.type_url.to_owned(),
                initial_resource_versions: subscription.reopen().into_iter().collect(),
                ..DeltaDiscoveryRequest::default()
            })
            .collect()
    }

    /// Applies a response and returns the acknowledgement. Then `said` is called with the answers
    /// to queries in the response.
    pub(super) fn receive(
        &mut self,
        response: wire::Response,
        handler: &mut impl Handler,
        mut said: impl FnMut(&str, Answer),
    ) -> DeltaDiscoveryRequest {
        let wire::Response { system_version_info, resources, type_url, nonce, removed_resources } = response;
        let (mut aliases, unknown) = (Vec::new(), removed_resources.clone());
        let rejections = match self.subscriptions.iter_mut().find(|s| s.type_url == type_url) {
            Some(subscription) => {
                let (resources, mut rejections) = decode(&type_url, resources, &mut aliases);
                let mut removed = removed_resources;
                let waiting = !subscription.complete;
                removed.extend(subscription.confirm(&resources, system_version_info == wire::PARTIAL));
                rejections.extend(subscription.apply(resources, removed, handler));
                if waiting && subscription.complete {
                    handler.complete(subscription.type_url);
                }
                rejections
            }
            None => vec![Rejection {
                name: type_url.clone(),
                reason: "there is no subscription to this type".into(),
            }],
        };
        aliases.iter().for_each(|name| said(name, Answer::Known));
        unknown.iter().for_each(|name| said(name, Answer::Unknown));
        DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail: detail(&rejections),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Whether every type was received completely at least once.
    pub(super) fn is_synced(&self) -> bool {
        self.subscriptions.iter().all(|subscription| subscription.synced)
    }
}

impl ClientSubscription {
    /// The held names and versions for a new server; those that do not fit are unconfirmed until
    /// they appear.
    fn reopen(&mut self) -> Vec<(String, String)> {
        self.complete = false;
        self.unconfirmed.clear();
        let (mut size, mut told) = (0, Vec::new());
        for (name, version) in &self.held {
            size += name.len() + version.len() + MAP_ENTRY_BYTES;
            if size <= INITIAL_VERSIONS_BYTES_MAX {
                told.push((name.clone(), version.clone()));
            } else {
                self.unconfirmed.insert(name.clone());
            }
        }
        told
    }

    /// Records what arrived. At the end of the initial state, returns the names that it did not
    /// confirm.
    fn confirm(&mut self, resources: &[Resource], partial: bool) -> Vec<String> {
        if self.complete {
            return Vec::new();
        }
        for resource in resources {
            self.unconfirmed.remove(&resource.name);
        }
        if partial {
            return Vec::new();
        }
        self.complete = true;
        self.synced = true;
        std::mem::take(&mut self.unconfirmed).into_iter().collect()
    }

    fn apply(
        &mut self,
        resources: Vec<Resource>,
        removed: Vec<String>,
        handler: &mut impl Handler,
    ) -> Vec<Rejection> {
        for resource in &resources {
            self.held.insert(resource.name.clone(), resource.version.clone());
        }
        let mut known = removed;
        // Other removals are answers to queries, not changes.
        known.retain(|name| {
            self.unconfirmed.remove(name);
            self.held.remove(name).is_some()
        });
        if resources.is_empty() && known.is_empty() {
            return Vec::new();
        }
        let rejections = handler.apply(self.type_url, resources, known);
        for rejection in &rejections {
            REFUSED.clone_into(self.held.entry(rejection.name.clone()).or_default());
        }
        rejections
    }
}

/// A rejected resource is known all the same, so its aliases are recorded too.
fn decode(
    type_url: &str,
    encoded: Vec<bytes::Bytes>,
    known: &mut Vec<String>,
) -> (Vec<Resource>, Vec<Rejection>) {
    let (mut resources, mut rejections) = (Vec::with_capacity(encoded.len()), Vec::new());
    for bytes in encoded {
        let refused = |name: String, reason: String| Rejection { name, reason };
        match wire::EncodedResource::decode(bytes) {
            Err(error) => rejections.push(refused("?".into(), error.to_string())),
            Ok(wire::EncodedResource { name, version, resource, aliases }) => {
                known.extend(aliases);
                match resource {
                    Some(any) if any.type_url == type_url => {
                        resources.push(Resource { name, version, bytes: any.value });
                    }
                    Some(any) => rejections.push(refused(name, format!("its content is a {}", any.type_url))),
                    None => rejections.push(refused(name, "it has no content".into())),
                }
            }
        }
    }
    (resources, rejections)
}

/// `name: reason; name: reason`, truncated to the limit.
fn detail(rejections: &[Rejection]) -> Option<discovery::Status> {
    if rejections.is_empty() {
        return None;
    }
    let mut message = String::new();
    for Rejection { name, reason } in rejections {
        if message.len() + name.len() + reason.len() > DETAIL_BYTES_MAX {
            message.push_str("; …");
            break;
        }
        let separator = if message.is_empty() { "" } else { "; " };
        message.extend([separator, name, ": ", reason]);
    }
    Some(discovery::Status { code: INVALID_ARGUMENT, message })
}

#[cfg(test)]
mod tests;
