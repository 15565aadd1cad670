//! A service port that traffic can be sent to.

use crate::NamespacedName;

/// A service port, as routes and mirrors reference it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// `namespace/hostname` of the service.
    pub service: NamespacedName,
    /// Service port.
    pub port: u16,
}
