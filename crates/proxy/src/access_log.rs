//! The access log: one line for each record, as text or JSON, in Istio's fields.
//!
//! Invariant: a worker never waits for the log (see [`ambit_runtime::lines`]). Fields are written in the order in which a record
//! puts them, and no value can end the line.

use std::{
    fmt::{self, Write as _},
    io,
};

use ambit_runtime::{
    lines::{self, Lines, Logged, Sink, quote},
    telemetry::Format,
};
use prometheus_client::metrics::counter::Counter;
use tracing::Level;

use crate::{ProxyConfig, StartError};

/// The log scope of these lines, also the target that `RUST_LOG` filters.
const SCOPE: &str = "access";
/// Usual length of a line, in bytes.
const LINE_BYTES: usize = 768;

/// A connection or request that is over.
pub trait Record {
    /// How it ended.
    fn severity(&self) -> Severity;
    /// The sentence that is the same for all records of its kind.
    fn message(&self) -> &'static str;
    /// Puts its fields.
    fn fields(&self, line: &mut Line);
}

/// How a connection or request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Well.
    Info,
    /// It was refused before more than its addresses was known.
    Warn,
    /// It failed.
    Error,
}

/// A value and how it is written.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Quoted.
    Text(&'a str),
    /// Quoted; consists of characters that need no escape.
    Name(&'a dyn fmt::Display),
    /// Bare in text, quoted in JSON; consists of characters that need no escape.
    Word(&'a dyn fmt::Display),
    /// Bare in text, quoted in JSON.
    Bare(&'a str),
    /// Bare.
    Number(u64),
    /// Quoted, with its unit.
    Millis(u128),
}

/// A line that is being written. Writing to a `String` cannot fail, hence the ignored results.
#[derive(Debug)]
pub struct Line {
    out: String,
    format: Format,
    is_first: bool,
}

/// Takes records. Clone one per worker.
#[derive(Clone, Debug)]
pub struct AccessLog {
    logged: Logged,
    format: Format,
    lines: Lines,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Whether `RUST_LOG` lets it through.
    fn is_enabled(self) -> bool {
        match self {
            Self::Info => tracing::enabled!(target: SCOPE, Level::INFO),
            Self::Warn => tracing::enabled!(target: SCOPE, Level::WARN),
            Self::Error => tracing::enabled!(target: SCOPE, Level::ERROR),
        }
    }
}

impl Line {
    /// The whole line of a record, with its newline. `time` is RFC 3339.
    pub fn of(record: &impl Record, format: Format, time: &str) -> String {
        let (level, message) = (record.severity().as_str(), record.message());
        let mut out = String::with_capacity(LINE_BYTES);
        let _ = match format {
            Format::Text => write!(out, "{time}\t{level}\t{SCOPE}\t{message}\t"),
            Format::Json => write!(
                out,
                "{{\"level\":\"{level}\",\"time\":\"{time}\",\"scope\":\"{SCOPE}\",\"message\":\"{message}\""
            ),
        };
        let mut line = Self { out, format, is_first: true };
        record.fields(&mut line);
        line.out.push_str(match format {
            Format::Text => "\n",
            Format::Json => "}\n",
        });
        line.out
    }

    /// Writes a field.
    pub fn put(&mut self, name: &str, value: Value<'_>) {
        let out = &mut self.out;
        let _ = match self.format {
            Format::Text if self.is_first => write!(out, "{name}="),
            Format::Text => write!(out, " {name}="),
            Format::Json => write!(out, ",\"{name}\":"),
        };
        self.is_first = false;
        let _ = match (self.format, value) {
            (_, Value::Number(number)) => write!(out, "{number}"),
            (_, Value::Millis(millis)) => write!(out, "\"{millis}ms\""),
            (_, Value::Name(value)) | (Format::Json, Value::Word(value)) => write!(out, "\"{value}\""),
            (Format::Text, Value::Word(value)) => write!(out, "{value}"),
            (Format::Text, Value::Bare(text)) => write!(out, "{}", text.escape_debug()),
            (_, Value::Text(text)) | (Format::Json, Value::Bare(text)) => {
                quote(out, text);
                Ok(())
            }
        };
    }

    /// Writes a text, unless it is absent or empty.
    pub fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.put(name, Value::Text(text));
        }
    }
}

impl AccessLog {
    /// Starts the writer. `dropped` counts lines for which its queue has no room.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(logged: Logged, format: Format, dropped: Counter, sink: Sink) -> io::Result<Self> {
        Ok(Self { logged, format, lines: Lines::start("access-log", dropped, sink)? })
    }

    /// The log of the process, on standard output.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn to_stdout(config: &ProxyConfig, dropped: Counter) -> Result<Self, StartError> {
        Self::start(config.access_log, config.log_format, dropped, lines::stdout())
            .map_err(StartError::io("the access log cannot be started"))
    }

    /// Writes the line of a record, if lines of its kind are wanted.
    pub fn put(&self, record: &impl Record) {
        let severity = record.severity();
        let is_wanted = match self.logged {
            Logged::Off => false,
            Logged::Errors => severity != Severity::Info,
            Logged::All => true,
        };
        if is_wanted && severity.is_enabled() {
            self.lines.put(Line::of(record, self.format, &lines::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Ended(Severity);

    impl Record for Ended {
        fn severity(&self) -> Severity {
            self.0
        }

        fn message(&self) -> &'static str {
            "over"
        }

        fn fields(&self, line: &mut Line) {
            line.put("number", Value::Number(7));
            line.text("absent", Some(""));
            line.put("target", Value::Bare("a\nb"));
        }
    }

    /// Lines written after three kinds of records with the given setting.
    fn written(logged: Logged) -> usize {
        let lines = Arc::new(Mutex::new(String::new()));
        let copy = lines.clone();
        let sink: Sink = Box::new(move |text| copy.lock().unwrap().push_str(text));
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).finish();
        tracing::subscriber::with_default(subscriber, || {
            let log = AccessLog::start(logged, Format::Text, Counter::default(), sink).unwrap();
            for severity in [Severity::Info, Severity::Error, Severity::Warn] {
                log.put(&Ended(severity));
            }
        });
        let text = lines.lock().unwrap();
        text.lines().count()
    }

    #[test]
    fn writes_what_is_wanted_before_it_is_dropped() {
        assert_eq!([Logged::Off, Logged::Errors, Logged::All].map(written), [0, 2, 3]);
    }

    #[test]
    fn a_value_does_not_end_the_line_in_either_format() {
        let line = |format| Line::of(&Ended(Severity::Warn), format, "T");
        assert_eq!(line(Format::Text), "T\twarn\taccess\tover\tnumber=7 target=a\\nb\n");
        assert_eq!(
            line(Format::Json),
            "{\"level\":\"warn\",\"time\":\"T\",\"scope\":\"access\",\"message\":\"over\",\"number\":7,\"target\":\"a\\nb\"}\n"
        );
    }
}
