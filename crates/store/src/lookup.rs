//! What to do about an address that this node has not heard of and that may be the cluster's: ask the operator.
//!
//! Invariant: without an answer nothing is sent. Only an address of which the operator said before that nobody has it, and
//! next to which no pod or service is known, is still taken for outside while the operator is silent, for
//! an hour: so that a database outside the cluster can be reached while the operator is away.

mod outside;

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use ambit_model::NetworkAddress;
use ambit_proto::ADDRESS;
use ambit_wds::alias;
use ambit_xds::{Answer, Asker, Questions};
use tokio::time::Instant;

use crate::{
    Store,
    resolve::{OutboundRequest, Refusal, Route, destination, resolve},
};
use outside::{Outside, Plan};

#[cfg(test)]
use outside::{FRESH, OUTSIDE_MAX, REMEMBERED};

/// How long an answer is waited for.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// The same, where the last answer will do.
const REFRESH_TIME_MAX: Duration = Duration::from_millis(100);
/// Questions of one asker that may be under way; more are not asked, so that one pod that scans holds nobody else up.
const LOOKUPS_MAX: usize = 64;

/// What came of an address that nobody here had heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Looked {
    /// The operator knows it.
    Described,
    /// The operator does not know it either.
    Unknown,
    /// The operator is silent now, and did not know it when it was asked before.
    UnknownBefore,
    /// The operator is silent.
    Unanswered,
}

/// Both ends of asking about addresses.
pub fn questions() -> (Asker, Questions) {
    ambit_xds::questions(ADDRESS)
}

impl Looked {
    /// As logs and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Described => "described",
            Self::Unknown => "unknown",
            Self::UnknownBefore => "unknown_before",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The questions of one pod in one worker, and what was learned.
#[derive(Debug)]
pub struct Lookup {
    asker: Asker,
    under_way: Cell<usize>,
    outside: RefCell<Outside>,
}

/// Counts as under way while it lives, however it ends.
struct UnderWay<'a>(&'a Cell<usize>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Lookup {
    /// Without a question yet.
    pub fn new(asker: Asker) -> Self {
        Self { asker, under_way: Cell::new(0), outside: RefCell::default() }
    }

    /// Decides about one connection as [`resolve`] does, after asking where that needs an answer; never
    /// [`Route::Unheard`].
    pub async fn route(
        &self,
        store: &Store,
        request: OutboundRequest<'_>,
        pick: u64,
    ) -> (Route, Option<Looked>) {
        let route = resolve(&store.load(), request, pick);
        let Route::Unheard(address) = route else { return (route, None) };
        let looked = self.look_up(store, &destination(request)).await;
        let route = match looked {
            Looked::Unanswered => Route::Refused(Refusal::NotHeardOf(address)),
            Looked::Described | Looked::Unknown | Looked::UnknownBefore => {
                // It may have become known meanwhile in any case.
                match (resolve(&store.load(), request, pick), looked) {
                    (Route::Unheard(address), Looked::Described) => {
                        Route::Refused(Refusal::NotUnderstood(address))
                    }
                    (Route::Unheard(address), _) => Route::outside(address),
                    (route, _) => route,
                }
            }
        };
        (route, Some(looked))
    }

    /// What the operator says about an address, or said a moment ago. What it describes is in the store when this returns,
    /// if it can be read.
    pub async fn look_up(&self, store: &Store, address: &NetworkAddress) -> Looked {
        let has_neighbours = store.load().ranges.neighbours(address);
        let plan = self.outside.borrow().plan(address, has_neighbours, Instant::now());
        let (limit, otherwise) = match plan {
            Plan::Use(looked) => return looked,
            Plan::Refresh => (REFRESH_TIME_MAX, Looked::UnknownBefore),
            Plan::Ask => (ANSWER_TIME_MAX, Looked::Unanswered),
        };
        if self.under_way.get() >= LOOKUPS_MAX {
            return otherwise;
        }
        self.under_way.set(self.under_way.get() + 1);
        let _under_way = UnderWay(&self.under_way);
        let answer = self.asker.ask(alias(&address.network, address.address), limit).await;
        let mut outside = self.outside.borrow_mut();
        match answer {
            Some(Answer::Known) => {
                outside.forget(address);
                Looked::Described
            }
            Some(Answer::Unknown) => {
                outside.note(address.clone(), Instant::now());
                Looked::Unknown
            }
            None => {
                outside.silent(address, Instant::now());
                otherwise
            }
        }
    }
}

#[cfg(test)]
mod tests;
