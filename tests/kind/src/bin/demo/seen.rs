//! Checks of the acts, one table row each: a value on success, an error on failure.

use std::time::Duration;

use ambit_kind_tests::{Result, load::Totals, shop::Shop};
use anyhow::{bail, ensure};

use crate::stage::{LIMIT, REQUESTS};

/// Requests continued since `before`, and none failed.
pub(crate) fn none_failed(shop: &Shop, before: Totals) -> Result<String> {
    let since = shop.load().since(before, REQUESTS, LIMIT)?;
    if since.failed > 0 {
        let why = shop.load().failures()?;
        bail!("{} of {} failed: {}", since.failed, since.sent, why.last().map_or("", String::as_str));
    }
    Ok(format!("{} answered, 0 failed", since.ok))
}

/// No pod was restarted or replaced.
pub(crate) fn same(before: &[String], after: &[String]) -> Result<String> {
    ensure!(before == after, "before {before:?}, after {after:?}");
    Ok(format!("{} pods, same uid, same restart count", after.len()))
}

/// It succeeded within the limit.
pub(crate) fn within<T>(took: Result<(T, Duration)>, limit: Duration) -> Result<String> {
    let (_, took) = took?;
    ensure!(took <= limit, "took {:.1}s", took.as_secs_f64());
    Ok(format!("after {:.1}s", took.as_secs_f64()))
}
