//! What stands beside a waypoint: who gets round it, and who is cut off by it.

use super::stage::Goal;

/// How many of a kind are named; more are counted.
const NAMED_MAX: usize = 5;

/// What a service's condition must say beside where its traffic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    /// Endpoints that anybody reaches without the waypoint, each with the reason.
    pub(crate) open: Vec<String>,
    /// Ports that are not TCP.
    pub(crate) not_tcp: Vec<String>,
    /// Ports at which its owner lets plaintext get past the waypoint, each with what says so.
    pub(crate) past: Vec<String>,
    /// Objects that make the API server, which is never in the mesh, call it at other ports.
    pub(crate) callers: Vec<String>,
    /// An annotation asks scrapers to come.
    pub(crate) is_scraped: bool,
}

impl Around {
    /// What is to be known although everything is as it should be.
    pub(crate) fn notes(&self, goal: &Goal) -> String {
        let mut notes = String::new();
        if !self.not_tcp.is_empty() {
            notes += &format!("; {} go past it: only TCP is proxied", list(&self.not_tcp));
        }
        // With failurePolicy Open nobody is refused.
        if !matches!(goal, Goal::Enforce(_) | Goal::Close(_)) {
            return notes;
        }
        if !self.past.is_empty() {
            notes += &format!(
                "; plaintext from outside the mesh gets past it, judged by policies at nodes alone, at port {}",
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

/// The first few, and how many more there are.
pub(crate) fn list(all: &[String]) -> String {
    let named = all.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
