//! The byte streams that policy admitted, re-evaluated whenever their service changes.
//!
//! Invariant: a stream of a service that is no longer bound here goes on.

use std::{fmt, rc::Rc, sync::Arc};

use ambit_model::{Connection, Verdict};
use ambit_proxy::admitted::{self, AdmittedList};

use crate::{detect::ServerName, service::Service, services::Bound};

/// All admitted streams of one worker.
#[derive(Debug, Default)]
pub struct Streams(Rc<AdmittedList<StreamCheck>>);

/// An admitted stream; leaves the list when dropped.
pub type Admitted = admitted::Admitted<StreamCheck>;

/// Evaluates a stream by the policies of its service.
type Judge = Box<dyn Fn(&Service) -> Result<(), Verdict>>;

/// What decides about a stream, and the service that it goes to.
pub struct StreamCheck {
    judge: Judge,
    /// The version of the service that admitted the stream last.
    service: Arc<Service>,
}

impl Streams {
    /// Evaluates a stream to `service`; if it is allowed, re-evaluates it on every policy change until it ends.
    ///
    /// # Errors
    /// The verdict that denies it.
    pub fn admit(
        &self,
        service: &Arc<Service>,
        judge: impl Fn(&Service) -> Result<(), Verdict> + 'static,
    ) -> Result<Admitted, Verdict> {
        let stream = StreamCheck { judge: Box::new(judge), service: service.clone() };
        self.0.admit(stream, |stream| (stream.judge)(&stream.service))
    }

    /// Re-evaluates every stream whose service changed, and cuts those that are no longer allowed.
    pub fn judge_again(&self, bound: &Bound) {
        self.0.evaluate_again(|stream| stream.judge_again(bound));
    }
}

impl StreamCheck {
    fn judge_again(&mut self, bound: &Bound) -> Result<(), Verdict> {
        let current = bound.get(&self.service.bound.key);
        match current.filter(|current| !Arc::ptr_eq(current, &self.service)) {
            Some(changed) => {
                self.service = changed.clone();
                (self.judge)(&self.service)
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StreamCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCheck").field("service", &self.service.bound.key).finish_non_exhaustive()
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
