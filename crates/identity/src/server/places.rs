//! Slots for connections to the operator, before and after authentication.
//!
//! Invariant: unauthenticated connections have a bounded number of slots, in total and per address,
//! for a bounded time. When full, an unauthenticated connection is evicted, and never one whose
//! address has authenticated before.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::crowd::{Crowd, Limits, Member};

/// Unauthenticated connections, handshakes included: after a restart all agents of a large cluster
/// connect at once.
pub const STRANGERS_MAX: usize = 2048;
/// Unauthenticated connections of one address.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 16;
/// Authenticated connections of one address: those of all agents of a node, or of several nodes
/// behind NAT.
pub const PROVEN_PER_ADDRESS_MAX: usize = 256;
/// Addresses remembered as authenticated: those of all agents of a large cluster.
pub const KNOWN_MAX: usize = 16_384;

/// The slots of one port.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<Table>>);

/// The slot of one connection, released when dropped.
#[derive(Debug)]
pub struct Place {
    peer: Peer,
    /// Resolves when the slot is evicted.
    pub(super) taken: oneshot::Receiver<()>,
}

/// The peer of a connection, for request handlers.
#[derive(Clone, Debug)]
pub struct Peer {
    places: Places,
    id: u64,
    address: IpAddr,
}

#[derive(Debug)]
struct Table {
    strangers: Crowd,
    /// Authenticated connections.
    proven: HashMap<u64, Member>,
    /// When each address last authenticated, as a count of authentications.
    known: HashMap<IpAddr, u64>,
    shown: u64,
}

impl Default for Table {
    fn default() -> Self {
        let limits = Limits { total_max: STRANGERS_MAX, per_address_max: STRANGERS_PER_ADDRESS_MAX };
        Self { strangers: Crowd::new(limits), proven: HashMap::new(), known: HashMap::new(), shown: 0 }
    }
}

impl Places {
    /// Takes a slot for a connection from this address; `None` when there is none.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut table = self.lock();
        let Table { strangers, known, .. } = &mut *table;
        let (id, taken) = strangers.enter(address, |of| known.contains_key(&of))?;
        drop(table);
        Some(Place { peer: Peer { places: self.clone(), id, address }, taken })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The peer that holds the slot.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the peer has authenticated.
    pub(super) fn is_proven(&self) -> bool {
        self.peer.places.lock().proven.contains_key(&self.peer.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.peer.places.lock();
        table.strangers.leave(self.peer.id);
        table.proven.remove(&self.peer.id);
    }
}

impl Peer {
    /// The peer's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether the peer's address has authenticated before.
    pub fn is_known(&self) -> bool {
        self.places.lock().known.contains_key(&self.address)
    }

    /// Marks the peer as authenticated. False when its address has too many connections: this one
    /// must end.
    pub fn prove(&self) -> bool {
        self.places.lock().prove(self.id, self.address)
    }
}

impl Table {
    fn prove(&mut self, id: u64, address: IpAddr) -> bool {
        if let Some(member) = self.strangers.leave(id) {
            let others = self.proven.values().filter(|other| other.address == address);
            if others.count() >= PROVEN_PER_ADDRESS_MAX {
                return false;
            }
            self.proven.insert(id, member);
        }
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&address) {
            let oldest = self.known.iter().min_by_key(|(_, shown)| **shown).map(|(of, _)| *of);
            oldest.map(|of| self.known.remove(&of));
        }
        self.shown += 1;
        self.known.insert(address, self.shown);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: usize) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(last).unwrap()))
    }

    /// Whether the slot was evicted.
    fn is_gone(place: &mut Place) -> bool {
        place.taken.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn who_has_shown_a_token_takes_no_place_of_a_stranger_and_comes_before_them() {
        let places = Places::default();
        let mut first = places.enter(ip(1)).unwrap();
        assert!(first.peer().prove() && first.is_proven() && first.peer().is_known());
        let mut again = places.enter("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert!(again.peer().is_known() && !again.is_proven(), "in either form");
        let mut strangers: Vec<Place> = (0..STRANGERS_MAX)
            .map(|at| places.enter(ip(2 + at / STRANGERS_PER_ADDRESS_MAX)).unwrap())
            .collect();
        assert!(is_gone(&mut strangers[0]));
        assert!(!is_gone(&mut first) && !is_gone(&mut again));
        drop((first, again, strangers));
        let table = places.lock();
        assert_eq!((table.strangers.len(), table.proven.len()), (0, 0));
    }

    #[test]
    fn also_those_with_a_token_have_a_bounded_number_of_places_and_are_remembered_in_bounds() {
        let places = Places::default();
        let proven = enter_proven(&places, ip(1), PROVEN_PER_ADDRESS_MAX);
        let mut more = places.enter(ip(1)).unwrap();
        assert!(!more.peer().prove() && is_gone(&mut more));
        assert!(proven[0].peer().prove(), "who is in stays in");
        for address in 0..=KNOWN_MAX {
            assert!(places.enter(ip(1_000 + address)).unwrap().peer().prove());
        }
        assert_eq!(places.lock().known.len(), KNOWN_MAX);
        assert!(places.lock().known.contains_key(&ip(1_000 + KNOWN_MAX)));
    }

    fn enter_proven(places: &Places, address: IpAddr, count: usize) -> Vec<Place> {
        (0..count)
            .map(|_| {
                let place = places.enter(address).unwrap();
                assert!(place.peer().prove());
                place
            })
            .collect()
    }
}
