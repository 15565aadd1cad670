//! Totals over the endpoints of a Service, updated for each endpoint that changes.
//!
//! Invariant: a kept tally equals one that is counted from all endpoints. A Service without a kept tally is counted on
//! demand, so results never depend on which tallies are kept.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ambit_model::NamespacedName;

use crate::waypoints::{Opening, binding::Endpoints};

/// A multiset.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted<T>(BTreeMap<T, usize>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Clone> Counted<T> {
    fn add(&mut self, value: &T) {
        *self.0.entry(value.clone()).or_default() += 1;
    }

    fn take(&mut self, value: &T) {
        match self.0.get_mut(value) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.0.remove(value)),
            None => {}
        }
    }
}

/// What one endpoint adds to the totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) is_wanted: bool,
    pub(super) is_enrolled: bool,
    /// Target ports at which it serves the Service.
    pub(super) ports: Vec<u16>,
    /// Ports that bypass the waypoint.
    pub(super) opening: Option<Opening>,
    /// Its name and the reason, if it can be reached without the waypoint.
    pub(super) open: Option<String>,
    /// Keys of all Services that it serves, this one included.
    pub(super) serves: Vec<NamespacedName>,
}

/// Totals over the endpoints of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    members: HashMap<Arc<str>, Member>,
    endpoints: Endpoints,
    ports: Counted<u16>,
    openings: Counted<Opening>,
    open: BTreeMap<Arc<str>, String>,
    serves: Counted<NamespacedName>,
}

impl Tally {
    /// Replaces or removes an endpoint. Returns whether anything changed.
    pub(super) fn set(&mut self, uid: &Arc<str>, member: Option<Member>) -> bool {
        if self.members.get(uid) == member.as_ref() {
            return false;
        }
        if let Some(old) = self.members.remove(uid) {
            self.endpoints.all -= 1;
            self.endpoints.wanted -= usize::from(old.is_wanted);
            self.endpoints.enrolled -= usize::from(old.is_enrolled);
            old.ports.iter().for_each(|port| self.ports.take(port));
            old.opening.iter().for_each(|opening| self.openings.take(opening));
            old.serves.iter().for_each(|key| self.serves.take(key));
            self.open.remove(uid);
        }
        if let Some(new) = member {
            self.endpoints.all += 1;
            self.endpoints.wanted += usize::from(new.is_wanted);
            self.endpoints.enrolled += usize::from(new.is_enrolled);
            new.ports.iter().for_each(|port| self.ports.add(port));
            new.opening.iter().for_each(|opening| self.openings.add(opening));
            new.serves.iter().for_each(|key| self.serves.add(key));
            self.open.extend(new.open.clone().map(|open| (uid.clone(), open)));
            self.members.insert(uid.clone(), new);
        }
        true
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// Endpoints that can be reached without the waypoint, in order.
    pub(super) fn open(&self) -> Vec<String> {
        self.open.values().cloned().collect()
    }

    /// Target ports of the endpoints.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.0.keys().copied()
    }

    /// Ports that bypass the waypoint, by the PeerAuthentication that opens them.
    pub(super) fn openings(&self) -> BTreeMap<NamespacedName, Opening> {
        self.openings.0.keys().map(|opening| (opening.peer.clone(), opening.clone())).collect()
    }

    /// Keys of the Services that share an endpoint with it, itself included.
    pub(super) fn serves(&self) -> impl Iterator<Item = &NamespacedName> {
        self.serves.0.keys()
    }
}
