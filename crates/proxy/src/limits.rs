//! The limit of open files: a proxied connection takes two, and container runtimes often start with a soft limit of 1024.
//!
//! Invariant: the hard limit stays as it is.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit, and goes on with the old limit if that is not allowed.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok((soft, hard))
    });
    match raised {
        Ok((from, to)) => tracing::debug!(from, to, "Raised the limit of open files"),
        Err(error) => tracing::warn!(%error, "The limit of open files cannot be raised"),
    }
}
