//! One line for each connection, in Istio's fields and order, as text or JSON.
//!
//! Invariant: a line is written whole or not at all, and a log that cannot keep up loses lines, never connections.

mod line;
mod writer;

use std::str::FromStr;

pub use line::{Direction, End, Format, Record};
pub use writer::AccessLog;

/// Which connections are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// None.
    Off,
    /// Those that failed.
    Errors,
    /// All.
    #[default]
    All,
}

impl FromStr for Which {
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
