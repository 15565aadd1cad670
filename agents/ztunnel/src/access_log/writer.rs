//! From the workers to standard output, without waiting.
//!
//! Invariant: a worker never blocks on the log; lines beyond [`LINES_MAX`] are dropped and counted.

use std::{
    fmt,
    io::Write as _,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use prometheus_client::metrics::counter::Counter;
use tracing::Level;

use super::{
    Which,
    line::{Format, Record, SCOPE},
};

/// Lines waiting for a slow reader of standard output.
const LINES_MAX: usize = 8192;
/// Bytes written at once.
const BATCH_BYTES: usize = 64 << 10;

/// Where lines go.
pub type Sink = Box<dyn FnMut(&str) + Send>;

/// Takes the records of finished connections. Clone one per worker.
#[derive(Clone)]
pub struct AccessLog {
    which: Which,
    format: Format,
    lines: SyncSender<String>,
    dropped: Counter,
    // Last, so that the channel is closed before the last clone waits for the thread.
    _thread: Arc<Thread>,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("which", &self.which).field("format", &self.format).finish()
    }
}

/// Joins the writer once every sender is gone, so that the last lines are written before the process ends.
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic in the writer was already reported by its own thread.
            let _ = thread.join();
        }
    }
}

impl AccessLog {
    /// Starts the writer. Lines that cannot be kept are counted in `dropped`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(which: Which, format: Format, dropped: Counter, sink: Sink) -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(move || write(&waiting, sink))?;
        Ok(Self { which, format, lines, dropped, _thread: Arc::new(Thread(Some(thread))) })
    }

    /// Standard output, whole lines at a time.
    pub fn stdout() -> Sink {
        Box::new(|lines| {
            // Nobody is left to tell when standard output is gone.
            let _ = std::io::stdout().lock().write_all(lines.as_bytes());
        })
    }

    /// Logs a connection that ended.
    pub fn finished(&self, record: &Record) {
        let wanted = match (self.which, &record.error) {
            (Which::Off, _) | (Which::Errors, None) => false,
            (_, Some(_)) => tracing::enabled!(target: SCOPE, Level::ERROR),
            (Which::All, None) => tracing::enabled!(target: SCOPE, Level::INFO),
        };
        if wanted {
            self.put(record.line(self.format, &now()));
        }
    }

    /// Logs a connection that was refused before more than its addresses was known.
    pub fn refused(&self, record: &Record) {
        if self.which != Which::Off && tracing::enabled!(target: SCOPE, Level::WARN) {
            self.put(record.early(self.format, &now()));
        }
    }

    fn put(&self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.inc();
            }
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Until every sender is gone.
fn write(waiting: &Receiver<String>, mut sink: Sink) {
    let mut batch = String::with_capacity(BATCH_BYTES);
    while let Ok(line) = waiting.recv() {
        batch.push_str(&line);
        while batch.len() < BATCH_BYTES
            && let Ok(line) = waiting.try_recv()
        {
            batch.push_str(&line);
        }
        sink(&batch);
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::access_log::{Direction, End};

    fn record(error: Option<&str>) -> Record {
        let error = error.map(str::to_owned);
        Record { error, ..Record::between(Direction::Inbound, End::default(), End::default()) }
    }

    /// Lines written after three kinds of records with the given setting.
    fn written(which: Which) -> usize {
        let lines = Arc::new(Mutex::new(String::new()));
        let copy = lines.clone();
        let sink: Sink = Box::new(move |text| copy.lock().unwrap().push_str(text));
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).finish();
        tracing::subscriber::with_default(subscriber, || {
            let log = AccessLog::start(which, Format::Text, Counter::default(), sink).unwrap();
            log.finished(&record(None));
            log.finished(&record(Some("broken")));
            log.refused(&record(Some("refused")));
        });
        let text = lines.lock().unwrap();
        text.lines().count()
    }

    #[test]
    fn writes_what_is_wanted_before_it_is_dropped() {
        assert_eq!([Which::Off, Which::Errors, Which::All].map(written), [0, 2, 3]);
    }
}
