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

use crate::pending_peers::{Limits, PendingPeer, PendingPeers};

/// Unauthenticated connections, handshakes included: after a restart all agents of a large cluster
/// connect at once.
pub const UNAUTHENTICATED_MAX: usize = 2048;
/// Unauthenticated connections of one address.
pub const UNAUTHENTICATED_PER_ADDRESS_MAX: usize = 16;
/// Authenticated connections of one address: those of all agents of a node, or of several nodes
/// behind NAT.
pub const AUTHENTICATED_PER_ADDRESS_MAX: usize = 256;
/// Addresses remembered as authenticated: those of all agents of a large cluster.
pub const KNOWN_MAX: usize = 16_384;

/// The slots of one port.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<Mutex<Table>>);

/// The slot of one connection, released when dropped.
#[derive(Debug)]
pub struct Slot {
    peer: Peer,
    /// Resolves when the slot is evicted.
    pub(super) taken: oneshot::Receiver<()>,
}

/// The peer of a connection, for request handlers.
#[derive(Clone, Debug)]
pub struct Peer {
    slots: Slots,
    id: u64,
    address: IpAddr,
}

#[derive(Debug)]
struct Table {
    unauthenticated: PendingPeers,
    /// Authenticated connections.
    authenticated: HashMap<u64, PendingPeer>,
    /// When each address last authenticated, as a count of authentications.
    known: HashMap<IpAddr, u64>,
    shown: u64,
}

impl Default for Table {
    fn default() -> Self {
        let limits =
            Limits { total_max: UNAUTHENTICATED_MAX, per_address_max: UNAUTHENTICATED_PER_ADDRESS_MAX };
        Self {
            unauthenticated: PendingPeers::new(limits),
            authenticated: HashMap::new(),
            known: HashMap::new(),
            shown: 0,
        }
    }
}

impl Slots {
    /// Takes a slot for a connection from this address; `None` when no slot is free.
    pub fn enter(&self, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut table = self.lock();
        let Table { unauthenticated, known, .. } = &mut *table;
        let (id, taken) = unauthenticated.enter(address, |of| known.contains_key(&of))?;
        drop(table);
        Some(Slot { peer: Peer { slots: self.clone(), id, address }, taken })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The peer that holds the slot.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the peer has authenticated.
    pub(super) fn is_authenticated(&self) -> bool {
        self.peer.slots.lock().authenticated.contains_key(&self.peer.id)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.peer.slots.lock();
        table.unauthenticated.leave(self.peer.id);
        table.authenticated.remove(&self.peer.id);
    }
}

impl Peer {
    /// The peer's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether the peer's address has authenticated before.
    pub fn is_known(&self) -> bool {
        self.slots.lock().known.contains_key(&self.address)
    }

    /// Marks the peer as authenticated. False when its address has too many connections: this one
    /// must end.
    pub fn set_authenticated(&self) -> bool {
        self.slots.lock().set_authenticated(self.id, self.address)
    }
}

impl Table {
    fn set_authenticated(&mut self, id: u64, address: IpAddr) -> bool {
        if let Some(member) = self.unauthenticated.leave(id) {
            let others = self.authenticated.values().filter(|other| other.address == address);
            if others.count() >= AUTHENTICATED_PER_ADDRESS_MAX {
                return false;
            }
            self.authenticated.insert(id, member);
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
    fn is_gone(slot: &mut Slot) -> bool {
        slot.taken.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn who_has_shown_a_token_takes_no_place_of_a_stranger_and_comes_before_them() {
        let slots = Slots::default();
        let mut first = slots.enter(ip(1)).unwrap();
        assert!(first.peer().set_authenticated() && first.is_authenticated() && first.peer().is_known());
        let mut again = slots.enter("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert!(again.peer().is_known() && !again.is_authenticated(), "in either form");
        let mut unauthenticated: Vec<Slot> = (0..UNAUTHENTICATED_MAX)
            .map(|at| slots.enter(ip(2 + at / UNAUTHENTICATED_PER_ADDRESS_MAX)).unwrap())
            .collect();
        assert!(is_gone(&mut unauthenticated[0]));
        assert!(!is_gone(&mut first) && !is_gone(&mut again));
        drop((first, again, unauthenticated));
        let table = slots.lock();
        assert_eq!((table.unauthenticated.len(), table.authenticated.len()), (0, 0));
    }

    #[test]
    fn also_those_with_a_token_have_a_bounded_number_of_places_and_are_remembered_in_bounds() {
        let slots = Slots::default();
        let authenticated = enter_proven(&slots, ip(1), AUTHENTICATED_PER_ADDRESS_MAX);
        let mut more = slots.enter(ip(1)).unwrap();
        assert!(!more.peer().set_authenticated() && is_gone(&mut more));
        assert!(authenticated[0].peer().set_authenticated(), "who is in stays in");
        for address in 0..=KNOWN_MAX {
            assert!(slots.enter(ip(1_000 + address)).unwrap().peer().set_authenticated());
        }
        assert_eq!(slots.lock().known.len(), KNOWN_MAX);
        assert!(slots.lock().known.contains_key(&ip(1_000 + KNOWN_MAX)));
    }

    fn enter_proven(slots: &Slots, address: IpAddr, count: usize) -> Vec<Slot> {
        (0..count)
            .map(|_| {
                let slot = slots.enter(address).unwrap();
                assert!(slot.peer().set_authenticated());
                slot
            })
            .collect()
    }
}
