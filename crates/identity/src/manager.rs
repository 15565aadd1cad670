//! Holds the certificates of this node's workloads and renews them halfway through their lifetime.
//!
//! Invariant: what [`Manager::get`] returns is valid at that moment. A certificate that cannot be
//! renewed is kept until it expires. One task owns all state; readers use a snapshot and take no
//! lock. Requests for the same identity share one call to the CA.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_model::Spiffe;
use arc_swap::ArcSwap;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::{Error, PrivateKey, SourceError, Svid, request::csr};

mod book;
mod schedule;

pub use book::Priority;

use book::{Answer, Book};

/// Concurrent calls to the CA.
pub(crate) const FETCHES_MAX: usize = 8;
/// The longest wait for one response of the CA.
pub(crate) const ISSUE_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands queued for the task.
const COMMANDS_MAX: usize = 1024;

/// Wall clock time; tests replace it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Issues certificates.
pub trait Source: Send + Sync + 'static {
    /// Certifies the request's key for `identity`. Returns leaf, intermediates, and last the roots,
    /// each as PEM.
    fn issue(
        &self,
        identity: &Spiffe,
        csr: &str,
    ) -> impl Future<Output = Result<Vec<String>, SourceError>> + Send;
}

/// Handle to the certificate manager. Clones share its state.
#[derive(Clone)]
pub struct Manager {
    held: Arc<Held>,
    commands: mpsc::Sender<Command>,
    clock: Clock,
}

type Held = ArcSwap<HashMap<Spiffe, Arc<Svid>>>;

enum Command {
    Get(Spiffe, oneshot::Sender<Answer>),
    Prefetch(Spiffe, Priority),
    Forget(Spiffe),
}

impl Manager {
    /// Returns the handle, and the future of the task that owns the state: spawn it. It ends when
    /// the last handle is dropped.
    pub fn new<S: Source>(source: S, clock: Clock) -> (Self, impl Future<Output = ()> + Send + use<S>) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let held = Arc::new(Held::default());
        let manager = Self { held: Arc::clone(&held), commands, clock: Arc::clone(&clock) };
        (manager, run(inbox, held, Arc::new(source), clock))
    }

    /// The certificate of an identity, fetched if necessary.
    ///
    /// # Errors
    /// If the CA does not issue it, if too many wait for it, or if the task has ended.
    pub async fn get(&self, identity: &Spiffe) -> Result<Arc<Svid>, Error> {
        if let Some(svid) = self.held(identity) {
            return Ok(svid);
        }
        let (answer, asked) = oneshot::channel();
        self.tell(Command::Get(identity.clone(), answer)).await?;
        asked.await.map_err(|_| Error::Stopped)?
    }

    /// The current certificate if it is valid, without waiting.
    pub fn held(&self, identity: &Spiffe) -> Option<Arc<Svid>> {
        self.held.load().get(identity).filter(|svid| svid.is_valid_at((self.clock)())).cloned()
    }

    /// Fetches the certificate of an identity and renews it until [`Self::forget`]. Waits for space
    /// in the queue, never for the CA.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the task has ended.
    pub async fn prefetch(&self, identity: &Spiffe, priority: Priority) -> Result<(), Error> {
        self.tell(Command::Prefetch(identity.clone(), priority)).await
    }

    /// Drops the certificate of an identity that left the node, and stops its renewal.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the task has ended.
    pub async fn forget(&self, identity: &Spiffe) -> Result<(), Error> {
        self.tell(Command::Forget(identity.clone())).await
    }

    async fn tell(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopped)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("held", &self.held.load().len()).finish_non_exhaustive()
    }
}

type Fetch = BoxFuture<'static, (Spiffe, Result<Svid, Error>)>;

async fn run<S: Source>(mut inbox: mpsc::Receiver<Command>, held: Arc<Held>, source: Arc<S>, clock: Clock) {
    let mut book = Book::default();
    let mut fetches: FuturesUnordered<Fetch> = FuturesUnordered::new();
    loop {
        while fetches.len() < FETCHES_MAX
            && let Some(identity) = book.next_fetch()
        {
            fetches.push(Box::pin(fetch(Arc::clone(&source), identity, Arc::clone(&clock))));
        }
        let due = book.next_due();
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Get(identity, answer)) => book.get(identity, answer, (clock)(), Instant::now()),
                Some(Command::Prefetch(identity, priority)) => book.prefetch(identity, priority),
                Some(Command::Forget(identity)) => {
                    book.forget(&identity);
                    publish(&held, &identity, None);
                }
                None => return,
            },
            Some((identity, outcome)) = fetches.next(), if !fetches.is_empty() => {
                if let Some(svid) = book.fetched(&identity, outcome, (clock)(), Instant::now()) {
                    publish(&held, &identity, Some(svid));
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => book.due(Instant::now()),
        }
    }
}

/// Only the task writes, so nothing can change between reading and storing.
fn publish(held: &Held, identity: &Spiffe, svid: Option<Arc<Svid>>) {
    let mut next = HashMap::clone(&held.load());
    match svid {
        Some(svid) => next.insert(identity.clone(), svid),
        None => next.remove(identity),
    };
    held.store(Arc::new(next));
}

async fn fetch<S: Source>(source: Arc<S>, identity: Spiffe, clock: Clock) -> (Spiffe, Result<Svid, Error>) {
    let outcome = certify(source.as_ref(), &identity, &clock).await;
    (identity, outcome)
}

async fn certify<S: Source>(source: &S, identity: &Spiffe, clock: &Clock) -> Result<Svid, Error> {
    let key = PrivateKey::generate()?;
    let request = csr(&key, identity)?;
    let issued = timeout(ISSUE_TIMEOUT, source.issue(identity, &request)).await;
    let chain = issued
        .unwrap_or(Err(SourceError::Timeout))
        .map_err(|source| Error::Issue { identity: identity.clone(), source })?;
    Svid::new(&key, &chain, identity, (clock)())
}

#[cfg(test)]
mod tests;
