//! CPU time of this thread.

use std::time::Duration;

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};

/// The CPU time that `work` took, in user and kernel, and what it made.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> Result<(Duration, T)> {
    let before = spent()?;
    let made = work();
    Ok((spent()?.saturating_sub(before), made))
}

/// CPU time of this thread since it began, to the microsecond.
fn spent() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let times = [usage.user_time(), usage.system_time()];
    let microseconds: i64 = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Ok(Duration::from_micros(microseconds.try_into()?))
}
