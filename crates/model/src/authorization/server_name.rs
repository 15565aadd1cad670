//! Policies for connections whose TLS server name is known but whose requests are not.
//!
//! Invariant: the reduced policy gives the same verdict for every request as the full policy does
//! for that request and server name.

use super::{Attribute, Clause, Match, Policy, Rule};

impl Policy {
    /// Whether any rule has a condition on the server name.
    pub fn asks_server_name(&self) -> bool {
        let matches = self.rules.iter().flat_map(|rule| &rule.clauses).flat_map(|clause| &clause.matches);
        matches
            .filter_map(|m| m.request.as_ref())
            .any(|request| request.attributes.iter().any(|attribute| attribute.attribute == Attribute::Sni))
    }

    /// The policy with its server name conditions evaluated. `None`: the client sent no server
    /// name.
    pub fn with_server_name(&self, name: Option<&str>) -> Self {
        let rules = self.rules.iter().filter_map(|rule| rule.with_server_name(name)).collect();
        Self { rules, ..self.clone() }
    }
}

impl Rule {
    /// `None` when the rule can no longer match.
    fn with_server_name(&self, name: Option<&str>) -> Option<Self> {
        let mut clauses = Vec::with_capacity(self.clauses.len());
        for clause in &self.clauses {
            let left: Vec<_> = clause.matches.iter().filter_map(|m| m.with_server_name(name)).collect();
            // An alternative without further conditions now always holds, and so does the clause.
            if left.contains(&None) {
                continue;
            }
            if left.is_empty() && !clause.matches.is_empty() {
                return None;
            }
            clauses.push(Clause { matches: left.into_iter().flatten().collect() });
        }
        Some(Self { clauses })
    }
}

impl Match {
    /// `None` when it does not match; `Some(None)` when it matches regardless of anything else.
    fn with_server_name(&self, name: Option<&str>) -> Option<Option<Self>> {
        let mut left = self.clone();
        let Some(request) = &mut left.request else { return Some(Some(left)) };
        let asked = request.attributes.len();
        let about_name = |attribute: &Attribute| *attribute == Attribute::Sni;
        if !request
            .attributes
            .iter()
            .filter(|a| about_name(&a.attribute))
            .all(|a| a.holds_for_server_name(name))
        {
            return None;
        }
        request.attributes.retain(|a| !about_name(&a.attribute));
        let was_answered = request.attributes.len() < asked;
        Some(if was_answered && left.is_empty() { None } else { Some(left) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        Action, Connection, NamespacedName, Scope, StringMatch,
        authorization::{AttributeMatch, RequestMatch},
    };

    /// Alternatives, server name, port, and the expected results for ALLOW and DENY.
    type Case = (Vec<Match>, Option<&'static str>, u16, [bool; 2]);

    fn about(values: &[&str], not_values: &[&str]) -> RequestMatch {
        let exact = |names: &[&str]| names.iter().map(|name| StringMatch::Exact((*name).into())).collect();
        let (values, not_values) = (exact(values), exact(not_values));
        let attributes = vec![AttributeMatch { attribute: Attribute::Sni, values, not_values }];
        RequestMatch { attributes, ..RequestMatch::default() }
    }

    fn policy(action: Action, matches: Vec<Match>) -> Policy {
        Policy {
            key: NamespacedName::new("shop", "names"),
            scope: Scope::WorkloadSelector,
            action,
            rules: vec![Rule { clauses: vec![Clause { matches }] }],
            dry_run: false,
        }
    }

    fn of(request: RequestMatch) -> Match {
        Match { request: Some(Box::new(request)), ..Match::default() }
    }

    fn connection(port: u16) -> Connection {
        let nowhere = std::net::Ipv4Addr::UNSPECIFIED.into();
        Connection { source: None, source_ip: nowhere, destination_ip: nowhere, destination_port: port }
    }

    #[test]
    fn conditions_about_the_name_are_answered_and_others_stay() {
        let named = |names: &[&str]| of(about(names, &[]));
        let not = |names: &[&str]| of(about(&[], names));
        let at_port = |m: Match| Match { destination_ports: vec![443], ..m };
        let with_method = |m: Match| {
            let mut m = m;
            let methods = vec![StringMatch::Exact("GET".into())];
            m.request.as_mut().unwrap().methods = methods;
            m
        };
        let cases: [Case; 13] = [
            (vec![named(&["a.example"])], Some("a.example"), 443, [true, true]),
            (vec![named(&["a.example"])], Some("A.Example"), 443, [true, true]),
            (vec![named(&["a.example"])], Some("b.example"), 443, [false, false]),
            (vec![named(&["a.example"])], None, 443, [false, false]),
            (vec![not(&["a.example"])], Some("a.example"), 443, [false, false]),
            (vec![not(&["a.example"])], Some("b.example"), 443, [true, true]),
            (vec![not(&["a.example"])], None, 443, [true, true]),
            (vec![at_port(named(&["a.example"]))], Some("a.example"), 443, [true, true]),
            (vec![at_port(named(&["a.example"]))], Some("a.example"), 80, [false, false]),
            (vec![named(&["b.example"]), named(&["a.example"])], Some("a.example"), 443, [true, true]),
            // Request conditions stay in doubt, unless the server name already decided.
            (vec![with_method(named(&["a.example"]))], Some("a.example"), 443, [false, true]),
            (vec![with_method(named(&["a.example"]))], Some("b.example"), 443, [false, false]),
            // An alternative without conditions never matches.
            (vec![Match::default()], Some("a.example"), 443, [false, false]),
        ];
        for (matches, name, port, expected) in cases {
            let said = [Action::Allow, Action::Deny].map(|action| {
                policy(action, matches.clone()).with_server_name(name).matches(&connection(port))
            });
            assert_eq!(said, expected, "{matches:?} {name:?} {port}");
        }
    }

    #[test]
    fn only_policies_about_names_ask_for_one() {
        assert!(policy(Action::Deny, vec![of(about(&["a"], &[]))]).asks_server_name());
        assert!(
            !policy(Action::Deny, vec![of(RequestMatch::default()), Match::default()]).asks_server_name()
        );
        let everything = Policy { rules: vec![Rule::default()], ..policy(Action::Deny, Vec::new()) };
        assert!(everything.with_server_name(None).matches(&connection(1)));
        assert_eq!(Arc::new(everything.clone()).with_server_name(Some("a")), everything);
    }
}
