//! Warnings about a waypoint: traffic that bypasses it, and callers that it cuts off.

use super::stage::Goal;

/// How many items of a kind are listed; more are only counted.
const NAMED_MAX: usize = 5;

/// Warnings for the condition of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    /// Endpoints that can be reached without the waypoint, each with the reason.
    pub(crate) open: Vec<String>,
    /// Ports that are not TCP.
    pub(crate) not_tcp: Vec<String>,
    /// Ports at which the owner lets plaintext bypass the waypoint, each with the
    /// PeerAuthentication.
    pub(crate) past: Vec<String>,
    /// Objects that make the API server, which is never in the mesh, call other ports of the
    /// service.
    pub(crate) callers: Vec<String>,
    /// An annotation invites metrics scrapers.
    pub(crate) is_scraped: bool,
}

impl Around {
    /// Warnings that appear even when everything works.
    pub(crate) fn notes(&self, goal: &Goal) -> String {
        let mut notes = String::new();
        if !self.not_tcp.is_empty() {
            notes += &format!("; {} bypass it: only TCP is proxied", list(&self.not_tcp));
        }
        // With failurePolicy Open no caller is refused.
        if !matches!(goal, Goal::Enforce(_) | Goal::Close(_)) {
            return notes;
        }
        if !self.past.is_empty() {
            notes += &format!(
                "; plaintext from outside the mesh bypasses it, subject only to policies of node proxies, at port {}",
                list(&self.past)
            );
        }
        if !self.callers.is_empty() {
            notes += &format!("; the API server, which calls it for {}, is refused", list(&self.callers));
        }
        if self.is_scraped {
            notes += match self.past.is_empty() {
                true => "; scrapers outside the mesh are refused",
                false => "; scrapers outside the mesh are refused at every other port",
            };
        }
        notes
    }
}

/// The first few items, and the number of others.
pub(crate) fn list(all: &[String]) -> String {
    let named = all.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
