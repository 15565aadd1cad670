//! Readiness: a set of named reasons why the program cannot serve yet; ready when empty.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The pending reasons.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Readiness {
    /// Adds a reason until the guard is dropped.
    pub fn block(&self, reason: &'static str) -> Blocker {
        *self.lock().entry(reason).or_default() += 1;
        Blocker { readiness: self.clone(), reason }
    }

    /// The pending reasons; empty means ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.pending()).finish()
    }
}

/// Keeps the program unready until dropped.
#[derive(Debug)]
#[must_use = "readiness is held back only while this lives"]
pub struct Blocker {
    readiness: Readiness,
    reason: &'static str,
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let mut reasons = self.readiness.lock();
        if let Some(count) = reasons.get_mut(self.reason) {
            *count -= 1;
            if *count == 0 {
                reasons.remove(self.reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_once_every_blocker_of_every_reason_is_gone() {
        let readiness = Readiness::default();
        let (first, second, other) = (readiness.block("xds"), readiness.block("xds"), readiness.block("zds"));
        drop(first);
        assert_eq!(readiness.pending(), ["xds", "zds"]);
        drop((second, other));
        assert!(readiness.pending().is_empty());
    }
}
