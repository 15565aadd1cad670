//! The byte streams that policy admitted, re-evaluated whenever their service changes.
//!
//! Invariant: a stream is checked and registered without an `await` in between, and a changed service is stored before
//! workers are notified; so no stream that the current policy denies stays open.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::Arc,
};

use ambit_model::{Connection, Verdict};
use tokio::sync::oneshot;

use crate::{detect::ServerName, service::Service, services::Bound};

/// All admitted streams of one worker.
#[derive(Default)]
pub struct Streams {
    entries: RefCell<HashMap<u64, Entry>>,
    next: Cell<u64>,
}

/// Evaluates a stream by the policies of its service.
type Judge = Box<dyn Fn(&Service) -> Result<(), Verdict>>;

struct Entry {
    judge: Judge,
    /// The version of the service that admitted the stream last.
    service: Arc<Service>,
    cut: oneshot::Sender<Verdict>,
}

/// An admitted stream; leaves the list when dropped.
pub struct Admitted {
    streams: Rc<Streams>,
    id: u64,
    denied: oneshot::Receiver<Verdict>,
}

impl Streams {
    /// Evaluates a stream to `service`; if it is allowed, re-evaluates it on every policy change until it ends.
    ///
    /// # Errors
    /// The verdict that denies it.
    pub fn admit(
        self: &Rc<Self>,
        service: &Arc<Service>,
        judge: impl Fn(&Service) -> Result<(), Verdict> + 'static,
    ) -> Result<Admitted, Verdict> {
        judge(service)?;
        let (cut, denied) = oneshot::channel();
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        let entry = Entry { judge: Box::new(judge), service: service.clone(), cut };
        self.entries.borrow_mut().insert(id, entry);
        Ok(Admitted { streams: self.clone(), id, denied })
    }

    /// Re-evaluates every stream whose service changed, and cuts those that are no longer allowed. Streams of a service
    /// that is no longer bound here go on.
    pub fn judge_again(&self, bound: &Bound) {
        let mut entries = self.entries.borrow_mut();
        let denied: Vec<(u64, Verdict)> =
            entries.iter_mut().filter_map(|(id, entry)| Some((*id, entry.judge_again(bound)?))).collect();
        for (id, verdict) in denied {
            if let Some(entry) = entries.remove(&id) {
                // The stream may be ending by itself at this moment.
                let _ = entry.cut.send(verdict);
            }
        }
    }
}

impl Entry {
    /// The verdict if it denies.
    fn judge_again(&mut self, bound: &Bound) -> Option<Verdict> {
        let service = bound.get(&self.service.bound.key).filter(|now| !Arc::ptr_eq(now, &self.service))?;
        self.service = service.clone();
        (self.judge)(&self.service).err()
    }
}

/// Evaluates a connection whose requests are not visible, and logs the verdicts of policies in dry run.
///
/// # Errors
/// The verdict that denies it.
pub fn judge(service: &Service, connection: &Connection, name: &ServerName) -> Result<(), Verdict> {
    let policies = service.policies_at(name);
    if let Some(verdict) = policies.rehearse(connection) {
        tracing::info!(service = %service.bound.key, %verdict, "Policies in dry run would decide");
    }
    for policy in policies.audited_by(connection, None) {
        tracing::info!(service = %service.bound.key, %policy, source.ip = %connection.source_ip, "Audited");
    }
    // Without a request no provider can be asked, and whether the policy matches is in doubt: deny.
    if let Some(unasked) = service.checks.iter().find(|one| one.check.policy.matches(connection)) {
        return Err(Verdict::DeniedBy(unasked.check.policy.key.clone()));
    }
    let verdict = policies.evaluate(connection);
    if verdict.is_allowed() { Ok(()) } else { Err(verdict) }
}

impl Admitted {
    /// Returns once policy denies the stream. Cancel safe.
    pub async fn denied(&mut self) -> Verdict {
        match (&mut self.denied).await {
            Ok(verdict) => verdict,
            // The sender is dropped only together with this stream's entry.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.streams.entries.borrow_mut().remove(&self.id);
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("admitted", &self.entries.borrow().len()).finish()
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("id", &self.id).finish_non_exhaustive()
    }
}
