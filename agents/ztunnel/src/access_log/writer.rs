//! Which records become lines.
//!
//! Invariant: a worker never blocks on the log; see [`ambit_runtime::lines`].

use ambit_runtime::{
    lines::{self, Lines, Logged, Sink},
    telemetry::Format,
};
use prometheus_client::metrics::counter::Counter;
use tracing::Level;

use super::line::{Record, SCOPE};

/// Takes the records of finished connections. Clone one per worker.
#[derive(Clone, Debug)]
pub struct AccessLog {
    logged: Logged,
    format: Format,
    lines: Lines,
}

impl AccessLog {
    /// Starts the writer. Lines that cannot be kept are counted in `dropped`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(logged: Logged, format: Format, dropped: Counter, sink: Sink) -> std::io::Result<Self> {
        Ok(Self { logged, format, lines: Lines::start("access-log", dropped, sink)? })
    }

    /// Logs a connection that ended.
    pub fn finished(&self, record: &Record) {
        let wanted = match (self.logged, &record.error) {
            (Logged::Off, _) | (Logged::Errors, None) => false,
            (_, Some(_)) => tracing::enabled!(target: SCOPE, Level::ERROR),
            (Logged::All, None) => tracing::enabled!(target: SCOPE, Level::INFO),
        };
        if wanted {
            self.lines.put(record.line(self.format, &lines::now()));
        }
    }

    /// Logs a connection that was refused before more than its addresses was known.
    pub fn refused(&self, record: &Record) {
        if self.logged != Logged::Off && tracing::enabled!(target: SCOPE, Level::WARN) {
            self.lines.put(record.early(self.format, &lines::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::access_log::{Direction, End};

    fn record(error: Option<&str>) -> Record {
        let error = error.map(str::to_owned);
        Record { error, ..Record::between(Direction::Inbound, End::default(), End::default()) }
    }

    /// Lines written after three kinds of records with the given setting.
    fn written(logged: Logged) -> usize {
        let lines = Arc::new(Mutex::new(String::new()));
        let copy = lines.clone();
        let sink: Sink = Box::new(move |text| copy.lock().unwrap().push_str(text));
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).finish();
        tracing::subscriber::with_default(subscriber, || {
            let log = AccessLog::start(logged, Format::Text, Counter::default(), sink).unwrap();
            log.finished(&record(None));
            log.finished(&record(Some("broken")));
            log.refused(&record(Some("refused")));
        });
        let text = lines.lock().unwrap();
        text.lines().count()
    }

    #[test]
    fn writes_what_is_wanted_before_it_is_dropped() {
        assert_eq!([Logged::Off, Logged::Errors, Logged::All].map(written), [0, 2, 3]);
    }
}
