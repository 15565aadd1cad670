//! The byte streams that policy admitted, judged again whenever their service changes.
//!
//! Invariant: judging and registering is one step without a pause, and whoever changes a service publishes before it
//! tells; so no stream that the present policy denies stays open.

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

/// Judges a stream by the policies of its service.
type Judge = Box<dyn Fn(&Service) -> Result<(), Verdict>>;

struct Entry {
    judge: Judge,
    /// The service as it last admitted the stream.
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
    /// Judges a stream to `service` and, when it may proceed, keeps an eye on it.
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

    /// Judges every stream whose service changed, and cuts those that are no longer allowed. A service that is no longer
    /// bound here guards nothing any more.
    pub fn judge_again(&self, bound: &Bound) {
        let mut entries = self.entries.borrow_mut();
        let denied: Vec<(u64, Verdict)> =
            entries.iter_mut().filter_map(|(id, entry)| Some((*id, entry.judge_again(bound)?))).collect();
        for (id, verdict) in denied {
            if let Some(entry) = entries.remove(&id) {
                // The stream may be ending by itself this very moment.
                let _ = entry.cut.send(verdict);
            }
        }
    }
}

impl Entry {
    /// The verdict, when it denies.
    fn judge_again(&mut self, bound: &Bound) -> Option<Verdict> {
        let service = bound.get(&self.service.bound.key).filter(|now| !Arc::ptr_eq(now, &self.service))?;
        self.service = service.clone();
        (self.judge)(&self.service).err()
    }
}

/// Judges a connection of which no request is known, and says in the log what was only to be said.
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
    // Of what carries no request nobody can be asked, and whether it would meet the policy is in doubt.
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
