//! Where the demo plays, who takes part, and how long anything may take.

use std::time::Duration;

use ambit_kind_tests::{outside::Outside, shop::Shop};

/// Namespace of the shop.
pub(crate) const SHOP: &str = "shop";
/// Label that takes pods into the mesh.
pub(crate) const MODE: &str = "istio.io/dataplane-mode";
/// Requests that must be answered before and after a change for "no request failed" to mean something.
pub(crate) const REQUESTS: u64 = 60;
/// How soon a policy must bite.
pub(crate) const POLICY: Duration = Duration::from_secs(1);
/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Who takes part: the shop, and a client outside the mesh.
pub(crate) struct Stage {
    pub(crate) shop: Shop,
    pub(crate) outside: Outside,
}
