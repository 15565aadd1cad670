//! File descriptors: every connection takes two, and container runtimes often start with a soft limit of 1024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one; keeps what there is when that is not allowed.
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
