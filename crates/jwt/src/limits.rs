//! Limits on tokens.

use std::time::Duration;

/// Tolerated clock difference between an issuer and a waypoint.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// Largest token.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Number of values in a token, including those in lists and objects.
pub(crate) const CLAIMS_MAX: usize = 512;
/// Nesting depth of values.
pub(crate) const DEPTH_MAX: usize = 8;
