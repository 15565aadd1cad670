//! A line log that never blocks its writers, for access logs.
//!
//! Invariant: a line is written completely or not at all. Lines beyond [`LINES_MAX`] are dropped
//! and counted; all others are written before the last clone is dropped.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    str::FromStr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

/// Lines queued for a slow reader.
pub const LINES_MAX: usize = 8192;
/// Size of one write.
const BATCH_BYTES: usize = 64 << 10;
/// Pause between two batches, so that a busy thread wakes the writer a hundred times per second
/// instead of once per line.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// Which requests or connections are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logged {
    /// None.
    Off,
    /// Only those that failed.
    Errors,
    /// All.
    #[default]
    All,
}

impl FromStr for Logged {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "Off" => Ok(Self::Off),
            "Errors" => Ok(Self::Errors),
            "All" => Ok(Self::All),
            _ => Err("expected Off, Errors or All"),
        }
    }
}

/// Writes a batch of lines.
pub type Sink = Box<dyn FnMut(&str) + Send>;

/// Handle for writing lines. Clone one per thread.
#[derive(Clone)]
pub struct Lines {
    lines: SyncSender<String>,
    dropped: Counter,
    // The last field, so that the channel is closed before the last clone waits for the thread.
    _thread: Arc<Thread>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("dropped", &self.dropped.get()).finish_non_exhaustive()
    }
}

/// Joins the writer thread when dropped, after all senders.
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic of the writer was already reported by its own thread.
            let _ = thread.join();
        }
    }
}

impl Lines {
    /// Starts the writer thread with this name. Dropped lines are counted in `dropped`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(name: &str, dropped: Counter, sink: Sink) -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || write(&waiting, sink))?;
        Ok(Self { lines, dropped, _thread: Arc::new(Thread(Some(thread))) })
    }

    /// Queues a line, which must end with a newline.
    pub fn put(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.dropped.inc();
        }
    }
}

/// Runs until every sender is dropped.
fn write(waiting: &Receiver<String>, mut sink: Sink) {
    let mut batch = String::with_capacity(BATCH_BYTES);
    while let Ok(line) = waiting.recv() {
        batch.push_str(&line);
        while batch.len() < BATCH_BYTES
            && let Ok(line) = waiting.try_recv()
        {
            batch.push_str(&line);
        }
        let is_full = batch.len() >= BATCH_BYTES;
        sink(&batch);
        batch.clear();
        if !is_full {
            gather();
        }
    }
}

/// Waits for more lines while no writer has to wake this thread.
#[expect(clippy::disallowed_methods, reason = "the writer is a thread of its own and may sleep")]
fn gather() {
    std::thread::sleep(GATHER_TIME);
}

/// Writes to standard output.
pub fn stdout() -> Sink {
    Box::new(|lines| {
        // If standard output fails, there is no place left to report it.
        let _ = std::io::stdout().lock().write_all(lines.as_bytes());
    })
}

/// The current time as lines start with it (RFC 3339, microseconds).
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Appends `text` as a JSON string (RFC 8259, 7); text lines use the same quoting.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    #[test]
    fn everything_taken_is_written_before_the_last_clone_is_gone() {
        let written = Arc::new(Mutex::new(String::new()));
        let copy = written.clone();
        let sink: Sink = Box::new(move |lines| copy.lock().unwrap().push_str(lines));
        let lines = Lines::start("test", Counter::default(), sink).unwrap();
        let clone = lines.clone();
        (0..1000).for_each(|i| lines.put(format!("{i}\n")));
        drop(lines);
        clone.put("end\n".to_owned());
        drop(clone);
        let written = written.lock().unwrap();
        assert!(written.lines().count() == 1001 && written.ends_with("999\nend\n"), "{written}");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_not_time() {
        let (release, held) = mpsc::channel::<()>();
        let dropped = Counter::default();
        // Blocks the first batch until released.
        let sink: Sink = Box::new(move |_| {
            let _ = held.recv();
        });
        let lines = Lines::start("test", dropped.clone(), sink).unwrap();
        // Sized so that every batch is full.
        let line = "x".repeat(BATCH_BYTES / 64);
        let count = LINES_MAX + 1000;
        (0..count).for_each(|_| lines.put(line.clone()));
        // The queued lines, and at most one batch in the writer.
        assert!((1000 - 64..=1000).contains(&(dropped.get() as usize)), "{}", dropped.get());
        drop(release);
    }

    #[test]
    fn quoted_text_stays_on_its_line() {
        let mut out = String::new();
        quote(&mut out, "a \"b\"\n\\\u{1}ü");
        assert_eq!(out, "\"a \\\"b\\\"\\n\\\\\\u0001ü\"");
    }
}
