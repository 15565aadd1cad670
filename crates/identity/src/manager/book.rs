//! Bookkeeping of the manager: requested identities, their state, and their waiters.
//!
//! Invariant: at most one fetch per identity is in flight. Every waiter is answered by the queued
//! or running fetch, whether it succeeds or fails. No I/O.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use ambit_model::Spiffe;
use tokio::{sync::oneshot, time::Instant};

use super::schedule::{BACKOFF_MIN, backoff, refresh_at};
use crate::{Error, Svid};

/// Callers that may wait for the same certificate.
pub(super) const WAITERS_MAX: usize = 4096;

/// Urgency of a certificate request, least urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A renewal: the current certificate is still valid.
    Background,
    /// A workload was added to the node and will connect soon.
    Warmup,
    /// A connection is waiting.
    RealTime,
}

/// The certificate, or why it could not be issued.
pub(super) type Answer = Result<Arc<Svid>, Error>;

#[derive(Default)]
pub(super) struct Book {
    entries: HashMap<Spiffe, Entry>,
    /// Sequence number that orders requests of equal priority.
    arrivals: u64,
}

struct Entry {
    stage: Stage,
    svid: Option<Arc<Svid>>,
    /// Consecutive failures.
    failures: u32,
    waiters: Vec<oneshot::Sender<Answer>>,
}

enum Stage {
    Queued {
        priority: Priority,
        arrival: u64,
    },
    Fetching,
    /// A certificate is held; it is renewed at that time.
    Fresh {
        refresh: Instant,
    },
    /// The last attempt failed. The next one is at `retry`, or shortly after `failed` on demand.
    Failed {
        failed: Instant,
        retry: Instant,
        error: Arc<Error>,
    },
}

impl Book {
    pub(super) fn get(
        &mut self,
        identity: Spiffe,
        answer: oneshot::Sender<Answer>,
        wall: SystemTime,
        now: Instant,
    ) {
        let arrival = self.arrive();
        let entry = self.entry(identity.clone(), Priority::RealTime, arrival);
        let reply = match (&entry.svid, &entry.stage) {
            (Some(svid), _) if svid.is_valid_at(wall) => Some(Ok(Arc::clone(svid))),
            (_, Stage::Failed { failed, error, .. }) if now < *failed + BACKOFF_MIN => {
                Some(Err(Error::Unavailable(Arc::clone(error))))
            }
            _ => None,
        };
        if let Some(reply) = reply {
            // The waiter may be gone.
            let _ = answer.send(reply);
            return;
        }
        entry.raise(Priority::RealTime, arrival);
        if entry.waiters.len() >= WAITERS_MAX {
            entry.waiters.retain(|w| !w.is_closed());
        }
        if entry.waiters.len() >= WAITERS_MAX {
            let _ = answer.send(Err(Error::Busy(identity)));
        } else {
            entry.waiters.push(answer);
        }
    }

    pub(super) fn prefetch(&mut self, identity: Spiffe, priority: Priority) {
        let arrival = self.arrive();
        let entry = self.entry(identity, priority, arrival);
        if let Stage::Queued { priority: queued, .. } = &mut entry.stage {
            *queued = priority.max(*queued);
        }
    }

    pub(super) fn forget(&mut self, identity: &Spiffe) {
        self.entries.remove(identity);
    }

    /// Takes the most urgent queued fetch and marks it as running.
    pub(super) fn next_fetch(&mut self) -> Option<Spiffe> {
        let queued = self.entries.iter_mut().filter_map(|(identity, entry)| match entry.stage {
            Stage::Queued { priority, arrival } => {
                Some(((priority, std::cmp::Reverse(arrival)), identity, entry))
            }
            Stage::Fetching | Stage::Fresh { .. } | Stage::Failed { .. } => None,
        });
        let (_, identity, entry) = queued.max_by_key(|(urgency, _, _)| *urgency)?;
        entry.stage = Stage::Fetching;
        Some(identity.clone())
    }

    /// The time of the next call to [`Book::due`].
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter_map(Entry::due).min()
    }

    /// Queues due renewals and retries.
    pub(super) fn due(&mut self, now: Instant) {
        let arrival = self.arrive();
        for entry in self.entries.values_mut().filter(|e| e.due().is_some_and(|due| due <= now)) {
            entry.raise(Priority::Background, arrival);
        }
    }

    /// Answers all waiters. Returns the certificate if it should be held.
    pub(super) fn fetched(
        &mut self,
        identity: &Spiffe,
        outcome: Result<Svid, Error>,
        wall: SystemTime,
        now: Instant,
    ) -> Option<Arc<Svid>> {
        let entry = self.entries.get_mut(identity)?;
        let waiters = std::mem::take(&mut entry.waiters);
        match outcome {
            Ok(svid) => {
                let refresh = refresh_at(svid.not_before(), svid.not_after(), wall);
                entry.stage =
                    Stage::Fresh { refresh: now + refresh.duration_since(wall).unwrap_or_default() };
                entry.failures = 0;
                let svid = Arc::new(svid);
                entry.svid = Some(Arc::clone(&svid));
                for waiter in waiters {
                    let _ = waiter.send(Ok(Arc::clone(&svid)));
                }
                tracing::debug!(%identity, "Certificate issued");
                Some(svid)
            }
            Err(error) => {
                let error = Arc::new(error);
                entry.failures = entry.failures.saturating_add(1);
                let pause = backoff(entry.failures, rand::random());
                entry.stage = Stage::Failed { failed: now, retry: now + pause, error: Arc::clone(&error) };
                tracing::warn!(%identity, %error, retry_in = ?pause, "Certificate could not be issued");
                for waiter in waiters {
                    let _ = waiter.send(Err(Error::Unavailable(Arc::clone(&error))));
                }
                None
            }
        }
    }

    fn arrive(&mut self) -> u64 {
        self.arrivals = self.arrivals.wrapping_add(1);
        self.arrivals
    }

    fn entry(&mut self, identity: Spiffe, priority: Priority, arrival: u64) -> &mut Entry {
        self.entries.entry(identity).or_insert_with(|| Entry {
            stage: Stage::Queued { priority, arrival },
            svid: None,
            failures: 0,
            waiters: Vec::new(),
        })
    }
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Fresh { refresh } => Some(refresh),
            Stage::Failed { retry, .. } => Some(retry),
            Stage::Queued { .. } | Stage::Fetching => None,
        }
    }

    /// Queues the fetch, or raises its priority; a running fetch continues.
    fn raise(&mut self, priority: Priority, arrival: u64) {
        match &mut self.stage {
            Stage::Queued { priority: queued, .. } => *queued = priority.max(*queued),
            Stage::Fetching => {}
            Stage::Fresh { .. } | Stage::Failed { .. } => self.stage = Stage::Queued { priority, arrival },
        }
    }
}
