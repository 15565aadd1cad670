//! Requests that keep running while something is changed, and what became of them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{kubectl, wait};

/// Requests answered without a failure that show a load has settled: more than two seconds' worth.
const SETTLED: u64 = 50;

/// Totals of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests begun.
    pub sent: u64,
    /// Requests that were answered well.
    pub ok: u64,
    /// Requests that were not.
    pub failed: u64,
}

/// A load that runs in a pod: a Deployment whose only process prints its totals each second.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Namespace of the Deployment.
    pub namespace: &'static str,
    /// Its name.
    pub deployment: &'static str,
}

impl Load {
    /// The newest totals.
    ///
    /// # Errors
    /// When the pod has printed none yet.
    pub fn totals(&self) -> Result<Totals> {
        let target = format!("deploy/{}", self.deployment);
        let log = kubectl::run(&["logs", "-n", self.namespace, &target, "--tail=20"])?;
        let line = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = line.context("the load has printed no totals yet")?;
        let number = |name: &str| line.get(name).and_then(Value::as_u64);
        match (number("sent"), number("ok"), number("failed")) {
            (Some(sent), Some(ok), Some(failed)) => Ok(Totals { sent, ok, failed }),
            _ => bail!("the load printed {line}"),
        }
    }

    /// Waits until `more` further requests were answered, and returns what happened since `before`.
    ///
    /// # Errors
    /// When that takes over `limit`.
    pub fn since(&self, before: Totals, more: u64, limit: Duration) -> Result<Totals> {
        let (now, _) = wait::until("further requests", limit, || {
            let now = self.totals()?;
            Ok((now.ok >= before.ok + more).then_some(now))
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
}
