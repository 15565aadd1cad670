//! The server's state of one stream, and what to send next; no I/O.
//!
//! Invariant: changes are sent in an order in which no client ever holds a reference to a missing
//! resource. A change of an earlier feed that was published before a change of a later feed is sent
//! first; removals are sent last. A query for a name is answered from what the client has been sent
//! already, or not yet.

mod queries;

use std::collections::HashMap;

use ambit_proto::discovery::DeltaDiscoveryRequest;
use tonic::Status;

use super::feed::{Batch, Feed, Part, RESPONSE_BYTES_TARGET, Range, TooFarBehind};
use crate::wire;
use queries::PendingQueries;

pub(crate) use queries::QUERIES_MAX;

/// Subscribes to all resources.
const WILDCARD: &str = "*";

/// The subscriptions of one stream, in the order of its scope.
#[derive(Debug)]
pub(crate) struct ServerSession {
    subscriptions: Vec<ServerSubscription>,
    /// The reads of one round: additions in order, then removals in reverse.
    plan: Vec<(usize, Part)>,
    round: Option<Round>,
    nonce: u64,
    gathered: bool,
}

#[derive(Debug)]
struct ServerSubscription {
    feed: Feed,
    state: State,
    queries: PendingQueries,
}

#[derive(Debug)]
enum State {
    Unsubscribed,
    /// Sending the initial state, up to `after` so far. `held` is what the client holds and was not
    /// found yet.
    Initial {
        held: HashMap<String, String>,
        after: u64,
    },
    /// Sending changes; `leftover` are removals found by comparison with what the client held.
    Live {
        sets: u64,
        removals: u64,
        leftover: Vec<String>,
    },
}

#[derive(Debug)]
struct Round {
    /// Per subscription, the position to read up to; `None` if it does not take part.
    bounds: Vec<Option<u64>>,
    phase: usize,
}

/// The meaning of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Subscribed,
    Asked,
    Acked,
    Nacked { type_url: String, detail: String },
}

impl ServerSession {
    pub(crate) fn new(feeds: Vec<Feed>) -> Self {
        let last = feeds.len().saturating_sub(1);
        let mut plan: Vec<(usize, Part)> = (0..last).map(|index| (index, Part::Sets)).collect();
        if !feeds.is_empty() {
            plan.push((last, Part::Both));
        }
        plan.extend((0..last).rev().map(|index| (index, Part::Removals)));
        let subscribe = |feed| ServerSubscription {
            feed,
            state: State::Unsubscribed,
            queries: PendingQueries::default(),
        };
        let subscriptions = feeds.into_iter().map(subscribe).collect();
        Self { subscriptions, plan, round: None, nonce: 0, gathered: false }
    }

    /// Processes a request.
    pub(crate) fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Heard, Status> {
        let found = self.subscriptions.iter_mut().find(|s| s.feed.type_url() == request.type_url);
        let Some(subscription) = found else {
            return Err(Status::permission_denied(format!(
                "type {:?} is not for this client",
                request.type_url
            )));
        };
        if request.resource_names_unsubscribe.iter().any(|name| name == WILDCARD) {
            return Err(on_demand());
        }
        let mut names = request.resource_names_subscribe;
        let named = names.len();
        names.retain(|name| name != WILDCARD);
        let is_new = matches!(subscription.state, State::Unsubscribed);
        // A client that names resources without subscribing to all.
        if is_new && named > 0 && names.len() == named {
            return Err(on_demand());
        }
        let asks = !names.is_empty();
        subscription.queries.add(names)?;
        if !is_new {
            return Ok(match request.error_detail {
                Some(error) => Heard::Nacked { type_url: request.type_url, detail: error.message },
                None if asks => Heard::Asked,
                None => Heard::Acked,
            });
        }
        let held = request.initial_resource_versions.into_iter().collect();
        subscription.state = State::Initial { held, after: 0 };
        Ok(Heard::Subscribed)
    }

    /// Whether a later type waits because an earlier one was not requested yet.
    pub(crate) fn is_gathering(&self) -> bool {
        let asked = |s: &ServerSubscription| !matches!(s.state, State::Unsubscribed);
        !self.gathered && self.subscriptions.iter().any(asked) && !self.subscriptions.iter().all(asked)
    }

    /// Stops waiting for types that were not requested yet.
    pub(crate) fn stop_gathering(&mut self) {
        self.gathered = true;
    }

    /// Whether anything was requested.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscriptions.iter().any(|s| !matches!(s.state, State::Unsubscribed))
    }

    /// The next response; `None` until something changes.
    pub(crate) fn next(&mut self) -> Result<Option<wire::Response>, TooFarBehind> {
        loop {
            let Some(round) = &mut self.round else {
                if let Some(response) = self.subscriptions.iter_mut().find_map(ServerSubscription::answer) {
                    return Ok(Some(self.number(response)));
                }
                match self.begin() {
                    Some(round) => self.round = Some(round),
                    None => return Ok(None),
                }
                continue;
            };
            let Some((index, part)) = self.plan.get(round.phase).copied() else {
                self.round = None;
                continue;
            };
            let bound = round.bounds.get(index).copied().flatten();
            let (Some(bound), Some(subscription)) = (bound, self.subscriptions.get_mut(index)) else {
                round.phase += 1;
                continue;
            };
            match subscription.read(part, bound)? {
                Some(response) => return Ok(Some(self.number(response))),
                None => round.phase += 1,
            }
        }
    }

    fn number(&mut self, mut response: wire::Response) -> wire::Response {
        self.nonce += 1;
        response.nonce = self.nonce.to_string();
        response
    }

    /// Bounds are sampled in reverse order of sending, so that everything published before a
    /// sampled change is included in later samples.
    fn begin(&self) -> Option<Round> {
        let mut bounds: Vec<Option<u64>> = Vec::with_capacity(self.subscriptions.len());
        let mut heads: Vec<_> = self.subscriptions.iter().rev().map(|s| s.feed.progress()).collect();
        heads.reverse();
        let (mut held_back, mut work) = (false, false);
        for (subscription, progress) in self.subscriptions.iter().zip(heads) {
            let asked = !matches!(subscription.state, State::Unsubscribed);
            held_back |= if asked { !progress.synced } else { !self.gathered };
            let takes_part = asked && !held_back;
            work |= takes_part && subscription.is_behind(progress.head);
            bounds.push(takes_part.then_some(progress.head));
        }
        work.then_some(Round { bounds, phase: 0 })
    }
}

impl ServerSubscription {
    fn is_behind(&self, head: u64) -> bool {
        match &self.state {
            State::Unsubscribed => false,
            State::Initial { .. } => true,
            State::Live { sets, removals, leftover } => {
                *sets < head || *removals < head || !leftover.is_empty()
            }
        }
    }

    /// The answer to pending queries, as far as the client has been sent what the answers
    /// reference. Only between rounds.
    fn answer(&mut self) -> Option<wire::Response> {
        let State::Live { sets, .. } = self.state else { return None };
        let (resources, removed) = self.queries.answer(&self.feed, sets)?;
        Some(self.respond(resources, removed))
    }

    /// The next response of this part; `None` when nothing is left up to the bound.
    fn read(&mut self, part: Part, bound: u64) -> Result<Option<wire::Response>, TooFarBehind> {
        let initial = match &mut self.state {
            State::Unsubscribed => return Ok(None),
            State::Initial { .. } if part == Part::Removals => return Ok(None),
            State::Initial { held, after } => Some((held, after)),
            State::Live { .. } => None,
        };
        if let Some((held, after)) = initial {
            let batch =
                self.feed.read_initial(Range { after: *after, bound }, RESPONSE_BYTES_TARGET, held)?;
            *after = batch.after;
            let mut response = self.respond(batch.resources, Vec::new());
            if batch.done {
                self.finish_initial(bound);
            } else {
                wire::PARTIAL.clone_into(&mut response.system_version_info);
            }
            return Ok(Some(response));
        }
        self.read_live(part, bound)
    }

    fn finish_initial(&mut self, bound: u64) {
        let live = State::Live { sets: bound, removals: bound, leftover: Vec::new() };
        if let State::Initial { held, .. } = std::mem::replace(&mut self.state, live) {
            let gone = self.feed.missing(held.into_keys());
            if let State::Live { leftover, .. } = &mut self.state {
                *leftover = gone;
            }
        }
    }

    fn read_live(&mut self, part: Part, bound: u64) -> Result<Option<wire::Response>, TooFarBehind> {
        let State::Live { sets, removals, leftover } = &mut self.state else { return Ok(None) };
        if part != Part::Sets && !leftover.is_empty() {
            let names = take_names(leftover);
            return Ok(Some(self.respond(Vec::new(), names)));
        }
        loop {
            let after = if part == Part::Removals { *removals } else { *sets };
            if after >= bound {
                return Ok(None);
            }
            let Batch { resources, removed, after, .. } =
                self.feed.read_after(Range { after, bound }, part, RESPONSE_BYTES_TARGET)?;
            match part {
                Part::Sets => *sets = after,
                Part::Removals => *removals = after,
                Part::Both => (*sets, *removals) = (after, after),
            }
            if !resources.is_empty() || !removed.is_empty() {
                return Ok(Some(self.respond(resources, removed)));
            }
        }
    }

    fn respond(&self, resources: Vec<bytes::Bytes>, removed_resources: Vec<String>) -> wire::Response {
        let type_url = self.feed.type_url().to_owned();
        wire::Response { type_url, resources, removed_resources, ..wire::Response::default() }
    }
}

/// Takes as many names as fit into a response.
fn take_names(names: &mut Vec<String>) -> Vec<String> {
    let mut size = 0;
    let fits = names.iter().take_while(|name| {
        size += name.len() + super::feed::FIELD_BYTES;
        size <= RESPONSE_BYTES_TARGET
    });
    let count = fits.count().max(1).min(names.len());
    names.drain(..count).collect()
}

fn on_demand() -> Status {
    Status::unimplemented(
        "on-demand subscriptions are not served: subscribe to everything (unset XDS_ON_DEMAND)",
    )
}

#[cfg(test)]
mod tests;
