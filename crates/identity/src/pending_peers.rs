//! Bounded admission of unauthenticated peers, in order of arrival.
//!
//! Invariant: both the total and the number per address are bounded. When full, the oldest entry of
//! the address with the most entries is evicted; an address that never authenticated is evicted in
//! favour of one that did.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use tokio::sync::oneshot;

/// Entries of unauthenticated peers.
#[derive(Debug)]
pub(crate) struct PendingPeers {
    limits: Limits,
    members: BTreeMap<u64, PendingPeer>,
    next: u64,
}

/// Upper bounds of the entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) total_max: usize,
    pub(crate) per_address_max: usize,
}

/// One entry. Dropping it notifies the holder of the other end of `_held` that the entry was
/// evicted.
#[derive(Debug)]
pub(crate) struct PendingPeer {
    pub(crate) address: IpAddr,
    _held: oneshot::Sender<()>,
}

impl PendingPeers {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, members: BTreeMap::new(), next: 0 }
    }

    /// Adds an entry, evicting another if necessary; `None` when no entry may be evicted for this
    /// address.
    pub(crate) fn enter(
        &mut self,
        address: IpAddr,
        is_known: impl Fn(IpAddr) -> bool,
    ) -> Option<(u64, oneshot::Receiver<()>)> {
        let mut own = self.members.iter().filter(|(_, member)| member.address == address).map(|(id, _)| *id);
        let oldest = own.next();
        if 1 + own.count() >= self.limits.per_address_max
            && let Some(oldest) = oldest
        {
            self.members.remove(&oldest);
        } else if self.members.len() >= self.limits.total_max {
            let (victim, of) = self.victim(&is_known)?;
            if is_known(of) && !is_known(address) {
                return None;
            }
            self.members.remove(&victim);
        }
        let (held, taken) = oneshot::channel();
        self.next += 1;
        self.members.insert(self.next, PendingPeer { address, _held: held });
        Some((self.next, taken))
    }

    /// Removes an entry because its peer left or authenticated.
    pub(crate) fn leave(&mut self, id: u64) -> Option<PendingPeer> {
        self.members.remove(&id)
    }

    fn victim(&self, is_known: impl Fn(IpAddr) -> bool) -> Option<(u64, IpAddr)> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        self.members.values().for_each(|member| *held.entry(member.address).or_default() += 1);
        let members = self.members.iter().map(|(id, member)| (*id, member.address));
        members.min_by_key(|(id, of)| (is_known(*of), Reverse(held.get(of).copied()), *id))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total_max: 6, per_address_max: 3 };

    /// The entries left after these arrivals; addresses in `known` have authenticated before.
    fn left(known: &[u8], arrivals: &[u8]) -> (Vec<u8>, Vec<bool>) {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut pending_peers = PendingPeers::new(LIMITS);
        let mut slots = Vec::new();
        for arrival in arrivals {
            let slot = pending_peers.enter(ip(*arrival), |of| known.iter().any(|last| ip(*last) == of));
            slots.push((*arrival, slot));
        }
        assert!(pending_peers.len() <= LIMITS.total_max);
        let mut left = Vec::new();
        let mut entered = Vec::new();
        for (arrival, slot) in &mut slots {
            entered.push(slot.is_some());
            let Some((_, taken)) = slot else { continue };
            if taken.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                left.push(*arrival);
            }
        }
        (left, entered)
    }

    #[test]
    fn the_oldest_of_the_greediest_goes_and_who_is_known_stays() {
        for (what, known, arrivals, expected) in [
            ("room for all", &[][..], &[1, 1, 2][..], &[1, 1, 2][..]),
            ("an address with too many", &[], &[1, 1, 1, 1, 1], &[1, 1, 1]),
            ("also a known one", &[1], &[1, 1, 1, 1], &[1, 1, 1]),
            ("the greediest goes", &[], &[1, 2, 3, 3, 3, 4, 5], &[1, 2, 3, 3, 4, 5]),
            ("the oldest, where all have the same", &[], &[1, 2, 3, 4, 5, 6, 7], &[2, 3, 4, 5, 6, 7]),
            ("nobody known goes for a stranger", &[1], &[1, 1, 1, 2, 3, 4, 5], &[1, 1, 1, 3, 4, 5]),
            (
                "where all are known a stranger is turned away",
                &[1, 2],
                &[1, 1, 1, 2, 2, 2, 3],
                &[1, 1, 1, 2, 2, 2],
            ),
            ("a known one is not", &[1, 2, 3], &[1, 1, 1, 2, 2, 3, 3], &[1, 1, 2, 2, 3, 3]),
        ] {
            let (left, entered) = left(known, arrivals);
            assert_eq!(left, expected, "{what}");
            let turned_away = entered.iter().filter(|entered| !**entered).count();
            assert_eq!(turned_away, usize::from(what.contains("turned away")), "{what}");
        }
    }

    #[test]
    fn who_leaves_makes_room() {
        let mut pending_peers = PendingPeers::new(LIMITS);
        let (first, _taken) = pending_peers.enter([10, 0, 0, 1].into(), |_| false).unwrap();
        assert_eq!(pending_peers.leave(first).unwrap().address, IpAddr::from([10, 0, 0, 1]));
        assert!(pending_peers.leave(first).is_none() && pending_peers.len() == 0);
    }
}
