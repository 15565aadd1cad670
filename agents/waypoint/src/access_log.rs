//! One line for each request and stream, as text or JSON.
//!
//! Invariant: a worker never waits for the log (see [`ambit_runtime::lines`]), and a line holds no header but the host:
//! tokens, cookies and queries cannot get into it.

mod line;

use ambit_runtime::{
    lines::{self, Lines, Logged, Sink},
    telemetry::Format,
};
use prometheus_client::metrics::counter::Counter;
use tracing::Level;

pub use line::{End, Heard, Record};
pub(crate) use line::{rbac_details, shown_host, shown_path};

/// The log scope of these lines, also the target that `RUST_LOG` filters.
const SCOPE: &str = "access";
/// From this status on a request failed.
pub(crate) const FAILED_FROM: u16 = 500;

/// Takes the records of finished requests and streams. Clone one per worker.
#[derive(Clone, Debug)]
pub struct AccessLog {
    logged: Logged,
    format: Format,
    lines: Lines,
}

impl AccessLog {
    /// Starts the writer. `dropped` counts lines for which its queue has no room.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(logged: Logged, format: Format, dropped: Counter, sink: Sink) -> std::io::Result<Self> {
        Ok(Self { logged, format, lines: Lines::start("access-log", dropped, sink)? })
    }

    /// Logs a finished request or stream.
    pub fn put(&self, record: &Record<'_>) {
        let failed = record.failed();
        let enabled = match failed {
            true => tracing::enabled!(target: SCOPE, Level::ERROR),
            false => tracing::enabled!(target: SCOPE, Level::INFO),
        };
        let wanted = match self.logged {
            Logged::Off => false,
            Logged::Errors => failed,
            Logged::All => true,
        };
        if wanted && enabled {
            self.lines.put(record.line(self.format, &lines::now()));
        }
    }
}

#[cfg(test)]
mod tests;
