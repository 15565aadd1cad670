//! Waiting for a condition, never for a fixed time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Interval between checks of a condition.
const LOOK: Duration = Duration::from_millis(200);

/// Checks `condition` until it returns a value; also returns how long that took.
///
/// # Errors
/// After `limit`, with `what` and the last error.
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

/// Sleeps between two checks of a condition, or while a load runs.
pub fn pause(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that sleeps, between two looks at a condition"
    )]
    std::thread::sleep(time);
}
