//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a process ended by a second signal while it drains.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// Returns at the first SIGTERM or SIGINT; from then on a second one ends the process at once.
///
/// # Errors
/// When the handlers cannot be installed.
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
