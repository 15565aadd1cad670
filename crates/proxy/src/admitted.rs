//! The connections of one worker that policy admitted, re-evaluated whenever policy changes.
//!
//! Invariant: a connection is evaluated and registered without an `await` in between, and a changed policy is stored before
//! workers are notified; so no connection that the current policy denies stays open.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
};

use ambit_model::Verdict;
use tokio::sync::oneshot;

/// All admitted connections of one worker. `C` is what the evaluation of a connection needs.
pub struct AdmittedList<C> {
    entries: RefCell<HashMap<u64, Entry<C>>>,
    next: Cell<u64>,
}

struct Entry<C> {
    connection: C,
    cut: oneshot::Sender<Verdict>,
}

/// An admitted connection; leaves the list when dropped.
pub struct Admitted<C> {
    list: Rc<AdmittedList<C>>,
    id: u64,
    denied: oneshot::Receiver<Verdict>,
}

impl<C> Default for AdmittedList<C> {
    fn default() -> Self {
        Self { entries: RefCell::default(), next: Cell::default() }
    }
}

impl<C> AdmittedList<C> {
    /// Evaluates a connection; if it is allowed, lists it until it ends.
    ///
    /// # Errors
    /// The verdict that denies it.
    pub fn admit(
        self: &Rc<Self>,
        connection: C,
        evaluate: impl FnOnce(&C) -> Result<(), Verdict>,
    ) -> Result<Admitted<C>, Verdict> {
        evaluate(&connection)?;
        let (cut, denied) = oneshot::channel();
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        self.entries.borrow_mut().insert(id, Entry { connection, cut });
        Ok(Admitted { list: self.clone(), id, denied })
    }

    /// Evaluates every connection again, and cuts those that are no longer allowed.
    pub fn evaluate_again(&self, mut evaluate: impl FnMut(&mut C) -> Result<(), Verdict>) {
        let mut entries = self.entries.borrow_mut();
        let denied: Vec<(u64, Verdict)> = entries
            .iter_mut()
            .filter_map(|(id, entry)| Some((*id, evaluate(&mut entry.connection).err()?)))
            .collect();
        for (id, verdict) in denied {
            if let Some(entry) = entries.remove(&id) {
                // The connection may be ending by itself at this moment.
                let _ = entry.cut.send(verdict);
            }
        }
    }

    /// Number of admitted connections.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there is no admitted connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<C> Admitted<C> {
    /// Returns once policy denies the connection. Cancel safe.
    pub async fn denied(&mut self) -> Verdict {
        match (&mut self.denied).await {
            Ok(verdict) => verdict,
            // The sender is dropped only together with this connection's entry.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<C> Drop for Admitted<C> {
    fn drop(&mut self) {
        self.list.entries.borrow_mut().remove(&self.id);
    }
}

impl<C> fmt::Debug for AdmittedList<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmittedList").field("admitted", &self.len()).finish()
    }
}

impl<C> fmt::Debug for Admitted<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn only_even(port: &u16) -> Result<(), Verdict> {
        if port.is_multiple_of(2) { Ok(()) } else { Err(Verdict::PoliciesNotReceived) }
    }

    #[test]
    fn only_an_allowed_connection_is_listed_and_only_a_denied_one_is_cut() {
        let list = Rc::new(AdmittedList::default());
        assert_eq!(list.admit(81, only_even).err(), Some(Verdict::PoliciesNotReceived));
        let mut admitted = [80, 82].map(|port| list.admit(port, only_even).unwrap());
        list.evaluate_again(|port| only_even(if *port == 82 { &83 } else { port }));
        let denied = admitted.each_mut().map(|one| one.denied().now_or_never());
        assert_eq!(denied, [None, Some(Verdict::PoliciesNotReceived)]);
        assert_eq!(list.len(), 1);
        drop(admitted);
        assert!(list.is_empty());
    }
}
