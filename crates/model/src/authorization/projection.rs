//! The L4 projection of a policy, for proxies that see only connections.
//!
//! Invariant: whatever request a connection carries, the projections of a set of policies allow it
//! only if the full policies do.

use super::{Action, Clause, Match, Policy, RequestMatch, Rule};

impl Policy {
    /// The policy without its L7 conditions. An ALLOW rule with L7 conditions is dropped. A DENY
    /// rule keeps its other conditions; a DENY rule with only L7 conditions therefore denies
    /// everything. `None` when the rest has no effect: AUDIT, or DENY without rules. An ALLOW
    /// policy without rules is kept, because it denies everything.
    pub fn l4(&self) -> Option<Self> {
        let rules: Vec<Rule> = self.rules.iter().filter_map(|rule| rule.l4(self.action)).collect();
        let decides = match self.action {
            Action::Allow => true,
            Action::Deny => !rules.is_empty(),
            Action::Audit => false,
        };
        let Self { key, scope, action, rules: _, dry_run } = self;
        decides.then(|| Self { key: key.clone(), scope: *scope, action: *action, rules, dry_run: *dry_run })
    }

    /// Whether any rule has a condition on the client address behind proxies.
    pub fn asks_remote_ip(&self) -> bool {
        let asks =
            |request: &RequestMatch| !(request.remote_ips.is_empty() && request.not_remote_ips.is_empty());
        let matches = self.rules.iter().flat_map(|rule| &rule.clauses).flat_map(|clause| &clause.matches);
        matches.filter_map(|found| found.request.as_deref()).any(asks)
    }

    /// Sets the number of trusted proxies in front of the waypoint.
    pub fn trust_proxies(&mut self, trusted_proxies: Option<u32>) {
        let clauses = self.rules.iter_mut().flat_map(|rule| &mut rule.clauses);
        for request in clauses.flat_map(|clause| &mut clause.matches).filter_map(|m| m.request.as_mut()) {
            request.trusted_proxies = trusted_proxies;
        }
    }

    /// Whether any rule has an L7 condition.
    pub fn is_l7(&self) -> bool {
        self.rules.iter().any(Rule::is_l7)
    }
}

impl Rule {
    /// The rule of an `action` without L7 conditions; `None` for an ALLOW rule that has any.
    pub fn l4(&self, action: Action) -> Option<Self> {
        match action {
            _ if !self.is_l7() => Some(self.clone()),
            Action::Allow => None,
            Action::Deny | Action::Audit => {
                Some(Self { clauses: self.clauses.iter().filter_map(Clause::l4).collect() })
            }
        }
    }

    /// The DENY rules that a node enforces in place of this rule: each combination of alternatives
    /// becomes a rule of its own, without its L7 conditions. A combination of only L7 conditions is
    /// dropped, because what remains would deny everything. Empty when there is no other
    /// combination.
    pub fn deny_at_node(&self) -> Vec<Self> {
        let limits = |rule: &Self| rule.clauses.iter().any(|clause| !clause.matches.is_empty());
        let whole = self.l4(Action::Deny).filter(|rule| !self.is_l7() || limits(rule));
        // Every clause has an alternative with only L7 conditions. Together they leave every other
        // alternative as a rule of its own.
        let single = |clause: &Clause| {
            let matches: Vec<Match> = clause.matches.iter().filter_map(Match::l4).collect();
            (!matches.is_empty()).then(|| Self { clauses: vec![Clause { matches }] })
        };
        whole.map_or_else(|| self.clauses.iter().filter_map(single).collect(), |rule| vec![rule])
    }

    /// Whether it has an L7 condition.
    pub fn is_l7(&self) -> bool {
        self.clauses.iter().flat_map(|clause| &clause.matches).any(Match::is_l7)
    }
}

impl Clause {
    /// `None` when one alternative has only L7 conditions: it counts as met, and so does the
    /// clause.
    fn l4(&self) -> Option<Self> {
        Some(Self { matches: self.matches.iter().map(Match::l4).collect::<Option<_>>()? })
    }
}

impl Match {
    /// `None` when it has only L7 conditions.
    fn l4(&self) -> Option<Self> {
        let l4 = Self { request: None, ..self.clone() };
        (!self.is_l7() || !l4.is_empty()).then_some(l4)
    }

    /// Whether it has an L7 condition.
    pub fn is_l7(&self) -> bool {
        self.request.as_ref().is_some_and(|request| !request.is_empty())
    }
}
