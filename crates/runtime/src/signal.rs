//! Handling of SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};

/// Exit code after a second signal during the drain.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// Returns at the first SIGTERM or SIGINT. A second one then ends the process immediately.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub async fn shutdown() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "Shutting down");
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("Second signal, exiting without draining");
        std::process::exit(EXIT_SECOND_SIGNAL);
    });
    Ok(())
}
