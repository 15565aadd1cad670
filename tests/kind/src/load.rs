//! Requests that keep running while something is changed, and what became of them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{kubectl, wait};

/// Requests answered without a failure that show a load has settled: more than two seconds' worth.
const SETTLED: u64 = 50;

/// How long a request of the load may stay open (`requestMax` of the shop), and as much again for a busy machine.
const ENDED: Duration = Duration::from_secs(15);

/// Requests of a load that began before a moment and have ended since: what began later is in no part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests begun.
    pub sent: u64,
    /// Requests that were answered well.
    pub ok: u64,
    /// Requests that were not.
    pub failed: u64,
}

/// One line of a load: `at` seconds have passed, and `totals` are of the requests that began in the first `through` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    at: u64,
    through: u64,
    totals: Totals,
}

/// A load that runs in a pod: a Deployment whose only process prints its progress each second.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Namespace of the Deployment.
    pub namespace: &'static str,
    /// Its name.
    pub deployment: &'static str,
}

impl Load {
    /// The beginning of a window: every request that it counts has ended, and what is begun from now on comes after it.
    ///
    /// # Errors
    /// When the pod prints no progress, or requests stay open for [`ENDED`].
    pub fn totals(&self) -> Result<Totals> {
        let begun = self.progress()?.at;
        let (now, _) = wait::until("the requests under way to end", ENDED, || {
            Ok(Some(self.progress()?).filter(|now| now.through >= begun))
        })?;
        Ok(now.totals)
    }

    /// Waits until `more` requests that began since `before` were answered, and everything that began up to now has
    /// ended; returns what became of them.
    ///
    /// # Errors
    /// When that takes over `limit`.
    pub fn since(&self, before: Totals, more: u64, limit: Duration) -> Result<Totals> {
        // The newest line is up to a second old, so the second under way ends two later.
        let called = self.progress()?.at + 2;
        let (now, _) = wait::until("further requests", limit, || {
            let now = self.progress()?;
            let enough = now.through >= called && now.totals.ok >= before.ok + more;
            Ok(enough.then_some(now.totals))
        })?;
        Ok(Totals {
            sent: now.sent - before.sent,
            ok: now.ok - before.ok,
            failed: now.failed - before.failed,
        })
    }

    /// Totals once what happened before is over: requests were answered and none failed since a moment ago.
    ///
    /// # Errors
    /// When requests keep failing for `limit`.
    pub fn settled(&self, limit: Duration) -> Result<Totals> {
        let (totals, _) = wait::until("the load to settle", limit, || {
            let before = self.totals()?;
            let since = self.since(before, SETTLED, limit)?;
            Ok((since.failed == 0).then_some(self.totals()?))
        })?;
        Ok(totals)
    }

    /// The lines that say why requests failed, newest last.
    ///
    /// # Errors
    /// When the pod's log cannot be read.
    pub fn failures(&self) -> Result<Vec<String>> {
        let target = format!("deploy/{}", self.deployment);
        let log = kubectl::run(&["logs", "-n", self.namespace, &target])?;
        Ok(log.lines().filter(|line| line.starts_with("failed ")).map(str::to_owned).collect())
    }

    fn progress(&self) -> Result<Progress> {
        let target = format!("deploy/{}", self.deployment);
        let log = kubectl::run(&["logs", "-n", self.namespace, &target, "--tail=20"])?;
        newest(&log).context("the load has printed no progress yet")
    }
}

/// The newest progress in a log.
fn newest(log: &str) -> Option<Progress> {
    log.lines().rev().find_map(|line| {
        let line = serde_json::from_str::<Value>(line).ok()?;
        let number = |name: &str| line.get(name).and_then(Value::as_u64);
        let totals = Totals { sent: number("sent")?, ok: number("ok")?, failed: number("failed")? };
        Some(Progress { at: number("at")?, through: number("through")?, totals })
    })
}

#[cfg(test)]
mod tests;
