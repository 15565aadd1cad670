//! On-demand lookup of an address that this node does not know but that may belong to the cluster:
//! the operator is queried.
//!
//! Invariant: without an answer nothing is sent. The one exception keeps databases outside the
//! cluster reachable while the operator is down: for an hour, an address still counts as external
//! if the operator said so before and no pod or service is known in its neighbourhood.

mod looked;
mod outside;

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use ambit_model::NetworkAddress;
use ambit_proto::ADDRESS;
use ambit_wds::alias;
use ambit_xds::{Answer, Queries, QuerySender};
use tokio::time::Instant;

use crate::{
    Store,
    resolve::{OutboundRequest, Refusal, Route, destination, resolve},
};
use outside::{Outside, Plan};

pub use looked::LookupResult;

#[cfg(test)]
use outside::{FRESH, OUTSIDE_MAX, REMEMBERED};

/// How long to wait for an answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait for an answer when the previous one can be used instead.
const REFRESH_TIME_MAX: Duration = Duration::from_millis(100);
/// Concurrent queries of one pod; further ones fail at once, so that a pod that scans addresses
/// delays nobody else.
const LOOKUPS_MAX: usize = 64;

/// Both ends of the query channel.
pub fn queries() -> (QuerySender, Queries) {
    ambit_xds::queries(ADDRESS)
}

/// The lookups of one pod in one worker, and their cached results.
#[derive(Debug)]
pub struct Lookup {
    query_sender: QuerySender,
    under_way: Cell<usize>,
    outside: RefCell<Outside>,
}

/// Counts a query as in flight until it is dropped.
struct UnderWay<'a>(&'a Cell<usize>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Lookup {
    /// Without any query yet.
    pub fn new(query_sender: QuerySender) -> Self {
        Self { query_sender, under_way: Cell::new(0), outside: RefCell::default() }
    }

    /// Routes one connection like [`resolve`], but queries the operator where necessary; never
    /// returns [`Route::Unknown`].
    pub async fn route(
        &self,
        store: &Store,
        request: OutboundRequest<'_>,
        pick: u64,
    ) -> (Route, Option<LookupResult>) {
        let route = resolve(&store.load(), request, pick);
        let Route::Unknown(address) = route else { return (route, None) };
        let looked = self.look_up(store, &destination(request)).await;
        let route = match looked {
            LookupResult::Unanswered => Route::Refused(Refusal::UnknownAddress(address)),
            LookupResult::Described | LookupResult::Unknown | LookupResult::UnknownBefore => {
                // Whatever the result, the address may have become known meanwhile.
                match (resolve(&store.load(), request, pick), looked) {
                    (Route::Unknown(address), LookupResult::Described) => {
                        Route::Refused(Refusal::Undecodable(address))
                    }
                    (Route::Unknown(address), _) => Route::outside(address),
                    (route, _) => route,
                }
            }
        };
        (route, Some(looked))
    }

    /// The operator's answer about an address, possibly cached. What it describes is in the store
    /// when this returns, if it could be decoded.
    pub async fn look_up(&self, store: &Store, address: &NetworkAddress) -> LookupResult {
        let has_neighbours = store.load().ranges.neighbours(address);
        let plan = self.outside.borrow().plan(address, has_neighbours, Instant::now());
        let (limit, otherwise) = match plan {
            Plan::Use(looked) => return looked,
            Plan::Refresh => (REFRESH_TIME_MAX, LookupResult::UnknownBefore),
            Plan::Ask => (ANSWER_TIME_MAX, LookupResult::Unanswered),
        };
        if self.under_way.get() >= LOOKUPS_MAX {
            return otherwise;
        }
        self.under_way.set(self.under_way.get() + 1);
        let _under_way = UnderWay(&self.under_way);
        let answer = self.query_sender.ask(alias(&address.network, address.address), limit).await;
        let mut outside = self.outside.borrow_mut();
        match answer {
            Some(Answer::Known) => {
                outside.forget(address);
                LookupResult::Described
            }
            Some(Answer::Unknown) => {
                outside.note(address.clone(), Instant::now());
                LookupResult::Unknown
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
