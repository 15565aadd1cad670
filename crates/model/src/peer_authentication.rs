//! PeerAuthentication as one total function.

/// Whether a workload port takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Only mTLS.
    Strict,
    /// mTLS or plaintext.
    Permissive,
}

/// The mode in force on one port: the most specific level that says something wins, and a mesh that says
/// nothing is permissive. `None` is UNSET; DISABLE is read as [`Mode::Permissive`], because a tunnel that
/// arrives is never refused.
pub fn effective_mode(
    mesh: Option<Mode>,
    namespace: Option<Mode>,
    workload: Option<Mode>,
    port: Option<Mode>,
) -> Mode {
    port.or(workload).or(namespace).or(mesh).unwrap_or(Mode::Permissive)
}
