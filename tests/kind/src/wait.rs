//! Waiting on a condition, never on the clock.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Looks until `condition` gives a value; says how long that took.
///
/// # Errors
/// After `limit`, naming `what` and the last reason why not.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    let mut last = String::from("not yet");
    while start.elapsed() < limit {
        match condition() {
            Ok(Some(value)) => return Ok((value, start.elapsed())),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        pause(LOOK);
    }
    bail!("waited {}s for {what}: {last}", limit.as_secs())
}

/// Lets a bounded time pass between two looks at a condition, or while a load runs.
pub fn pause(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that sleeps, between two looks at a condition"
    )]
    std::thread::sleep(time);
}
