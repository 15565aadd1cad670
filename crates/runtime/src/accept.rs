//! Accepting connections while file descriptors may run out.
//!
//! Invariant: a listener that cannot accept is tried again after [`PAUSE`], and never spins.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::sleep;

/// Pause after `accept` failed.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Calls `accept` until it returns a connection. As cancel safe as `accept`; a new call does not wait for the rest of the pause.
pub async fn next<C, E, F>(listener: &str, mut accept: impl FnMut() -> F) -> C
where
    E: Display,
    F: Future<Output = Result<C, E>>,
{
    loop {
        match accept().await {
            Ok(connection) => return connection,
            Err(error) => pause(listener, &error).await,
        }
    }
}

/// Logs why a connection was not accepted, and waits for [`PAUSE`].
pub async fn pause(listener: &str, error: &impl Display) {
    tracing::warn!(listener, %error, "A connection cannot be accepted");
    sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_after_each_failure_and_returns_the_first_connection() {
        let (begun, mut tries) = (Instant::now(), 0);
        let connection = next("test", || {
            tries += 1;
            std::future::ready(if tries < 3 { Err("too many open files") } else { Ok(tries) })
        });
        assert_eq!(connection.await, 3);
        assert_eq!(begun.elapsed(), PAUSE * 2);
    }
}
