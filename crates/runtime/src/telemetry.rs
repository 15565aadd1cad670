//! Logging: one line per event on standard output, as text or JSON.

use std::str::FromStr;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Human-readable text.
    #[default]
    Text,
    /// JSON objects.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" | "plain" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// Starts logging at `filter` (the syntax of `RUST_LOG`). An invalid filter logs a warning and
/// counts as `info`.
pub fn init(filter: &str, format: Format) {
    let (parsed, error) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let registry = tracing_subscriber::registry().with(parsed);
    let installed = match format {
        Format::Text => registry.with(fmt::layer().with_ansi(false)).try_init(),
        Format::Json => registry.with(fmt::layer().json().flatten_event(true)).try_init(),
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "Logging was already started");
    }
    if let Some(error) = error {
        tracing::warn!(filter, %error, "RUST_LOG cannot be parsed, logging at info");
    }
}
