//! Continuous requests during a change, and their results.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{kubectl, wait};

/// Successful requests after which a load counts as settled: more than two seconds' worth.
const SETTLED: u64 = 50;

/// How long a request of the load may stay open (`requestMax` of the shop), doubled for a busy
/// machine.
const ENDED: Duration = Duration::from_secs(15);

/// Requests of a load that started before some time and have ended since; later requests are not
/// included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were started.
    pub sent: u64,
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// One line of output: `at` seconds have passed, and `totals` covers the requests that started in
/// the first `through` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    at: u64,
    through: u64,
    totals: Totals,
}

/// A load in a pod: a Deployment whose only process prints its progress each second.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Namespace of the Deployment.
    pub namespace: &'static str,
    /// Name of the Deployment.
    pub deployment: &'static str,
}

impl Load {
    /// The start of a measurement: all requests counted here have ended, and requests started from
    /// now on are counted later.
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

    /// Waits until `more` requests that started since `before` have succeeded and everything
    /// started so far has ended; returns the results since `before`.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn since(&self, before: Totals, more: u64, limit: Duration) -> Result<Totals> {
        // The newest line is up to a second old, so the current second ends two later.
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

    /// Totals once the load has recovered: requests succeed again and none has failed recently.
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

    /// The log lines about failed requests, newest last.
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
