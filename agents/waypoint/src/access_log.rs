//! One line for each request and stream, as text or JSON.
//!
//! Invariant: a line holds no header but the host:
//! tokens, cookies and queries cannot get into it.

mod line;

pub use line::{End, Heard, Record};
pub(crate) use line::{rbac_details, shown_host, shown_path};

/// From this status on a request failed.
pub(crate) const FAILED_FROM: u16 = 500;

#[cfg(test)]
mod tests;
