//! Scheduling of token reviews, with limits per address.
//!
//! Invariant: an address with rejected tokens gets ever fewer reviews, and addresses with an
//! accepted token never wait behind those without.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::not_believed::NotBelieved;
use crate::ca::rate::RateLimit;

/// Concurrent reviews.
pub(crate) const REVIEWS_MAX: usize = 32;
/// Of these, reviews for addresses without an accepted token so far.
pub(super) const STRANGERS_MAX: usize = 16;
/// Of these, reviews for one address.
pub(crate) const REVIEWS_PER_ADDRESS_MAX: u32 = 8;
/// Burst of rejected tokens per address.
pub(crate) const REFUSALS_MAX: u32 = 8;
/// Sustained rate of rejected tokens per address.
pub(crate) const REFUSALS_PER_SECOND: f64 = 0.2;
/// Number of remembered issuers: a cluster that changes its issuer accepts the old one for a while.
const ISSUERS_MAX: usize = 4;

/// The queues for reviews, and the state of the addresses in them.
#[derive(Debug)]
pub(super) struct Lanes {
    reviews: Semaphore,
    strangers: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<IpAddr, u32>,
    refused: RateLimit<IpAddr>,
    /// Issuers of accepted tokens, the newest last.
    issuers: Vec<Arc<str>>,
}

/// Permission for one review.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    lanes: &'a Lanes,
    address: IpAddr,
    permits: Option<(SemaphorePermit<'a>, Option<SemaphorePermit<'a>>)>,
}

/// The address that presents a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shower {
    pub(super) address: IpAddr,
    /// The address has presented an accepted token.
    pub(super) is_known: bool,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            reviews: Semaphore::new(REVIEWS_MAX),
            strangers: Semaphore::new(STRANGERS_MAX),
            state: Mutex::new(State {
                waiting: HashMap::new(),
                refused: RateLimit::new(f64::from(REFUSALS_MAX), REFUSALS_PER_SECOND),
                issuers: Vec::new(),
            }),
        }
    }

    /// Waits for a permission. Once an issuer is known, an unknown address with a token of another
    /// issuer is rejected.
    pub(super) async fn turn(
        &self,
        shower: Shower,
        issuer: &str,
        now: Instant,
    ) -> Result<Turn<'_>, NotBelieved> {
        let is_trusted = {
            let mut state = self.lock();
            let is_foreign = !state.issuers.is_empty() && !state.issuers.iter().any(|of| **of == *issuer);
            if is_foreign && !shower.is_known {
                return Err(NotBelieved::Issuer);
            }
            let has_credit = state.refused.has(&shower.address, now);
            if !has_credit && !shower.is_known {
                return Err(NotBelieved::TooMany);
            }
            let waiting = state.waiting.entry(shower.address).or_default();
            if *waiting >= REVIEWS_PER_ADDRESS_MAX {
                return Err(NotBelieved::TooMany);
            }
            *waiting += 1;
            has_credit && shower.is_known
        };
        // From here on, dropping the permission releases its count.
        let mut turn = Turn { lanes: self, address: shower.address, permits: None };
        let closed = |_| NotBelieved::Unavailable("the operator is shutting down".into());
        let stranger = match is_trusted {
            true => None,
            false => Some(self.strangers.acquire().await.map_err(closed)?),
        };
        turn.permits = Some((self.reviews.acquire().await.map_err(closed)?, stranger));
        Ok(turn)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Records that the API server accepted the token.
    pub(super) fn believed(self, issuer: &Arc<str>) {
        let issuers = &mut self.lanes.lock().issuers;
        if issuers.contains(issuer) {
            return;
        }
        if issuers.len() >= ISSUERS_MAX {
            issuers.remove(0);
        }
        issuers.push(issuer.clone());
    }

    /// Records that the API server rejected the token.
    pub(super) fn refused(self, now: Instant) {
        self.lanes.lock().refused.take(&self.address, now);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.lanes.lock();
        if let Some(waiting) = state.waiting.get_mut(&self.address) {
            *waiting -= 1;
            if *waiting == 0 {
                state.waiting.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn from(last: u8, is_known: bool) -> Shower {
        Shower { address: [10, 0, 0, last].into(), is_known }
    }

    /// The permission, if no wait is needed.
    fn at_once(lanes: &Lanes, shower: Shower) -> Option<Result<Turn<'_>, NotBelieved>> {
        lanes.turn(shower, "k8s", Instant::now()).now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_wait_for_each_other_and_not_those_who_are_known() {
        let lanes = Lanes::new();
        let mut turns = Vec::new();
        for at in 0..STRANGERS_MAX {
            turns.push(at_once(&lanes, from(u8::try_from(at).unwrap(), false)).unwrap().unwrap());
        }
        assert!(at_once(&lanes, from(100, false)).is_none());
        for at in 0..REVIEWS_MAX - STRANGERS_MAX {
            turns.push(at_once(&lanes, from(200 + u8::try_from(at % 8).unwrap(), true)).unwrap().unwrap());
        }
        assert!(at_once(&lanes, from(250, true)).is_none(), "all reviews are under way");
        turns.pop();
        assert!(at_once(&lanes, from(250, true)).is_some());
        drop(turns);
        assert!(lanes.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_few_reviews_under_way() {
        let lanes = Lanes::new();
        let turns: Vec<_> =
            (0..REVIEWS_PER_ADDRESS_MAX).map(|_| at_once(&lanes, from(1, true)).unwrap().unwrap()).collect();
        assert!(matches!(at_once(&lanes, from(1, true)), Some(Err(NotBelieved::TooMany))));
        assert!(matches!(at_once(&lanes, from(2, false)), Some(Ok(_))));
        drop(turns);
        assert!(matches!(at_once(&lanes, from(1, true)), Some(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_whose_tokens_are_refused_is_asked_for_ever_less() {
        let lanes = Lanes::new();
        let begun = Instant::now();
        let mut asked = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            if let Some(Ok(turn)) = at_once(&lanes, from(1, false)) {
                turn.refused(Instant::now());
                asked += 1;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let in_a_minute = REFUSALS_MAX + 11..=REFUSALS_MAX + 12;
        assert!(in_a_minute.contains(&asked), "a burst, and one in five seconds: {asked}");
        // A known address then waits with the unknown ones instead of being rejected.
        let turns: Vec<_> = (10..10 + STRANGERS_MAX)
            .map(|at| at_once(&lanes, from(u8::try_from(at).unwrap(), false)))
            .collect();
        assert!(at_once(&lanes, from(1, true)).is_none());
        assert!(at_once(&lanes, from(2, true)).is_some());
        drop(turns);
        assert!(matches!(at_once(&lanes, from(1, true)), Some(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_issuer_is_learned_from_those_who_are_known() {
        let lanes = Lanes::new();
        let show = |shower, issuer: &'static str| {
            let turn = lanes.turn(shower, issuer, Instant::now()).now_or_never().unwrap()?;
            turn.believed(&issuer.into());
            Ok::<_, NotBelieved>(())
        };
        show(from(1, false), "old").unwrap();
        assert_eq!(show(from(2, false), "new"), Err(NotBelieved::Issuer));
        show(from(1, true), "new").unwrap();
        show(from(2, false), "new").unwrap();
        show(from(2, false), "old").unwrap();
    }
}
