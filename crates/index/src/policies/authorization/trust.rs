//! Trust domain aliases.
//!
//! Invariant: a policy that names the mesh's trust domain, one of its aliases, or `cluster.local`
//! (which Istio documents as the mesh's own domain, whatever its name) covers all of them; any
//! other trust domain stands for itself only.

use std::sync::Arc;

use ambit_model::{DEFAULT_TRUST_DOMAIN, Match, Policy, StringMatch};

/// The current trust domain and its aliases, which migrations leave in policies and identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustDomains(Vec<Arc<str>>);

impl TrustDomains {
    pub(crate) fn new(own: &Arc<str>, aliases: &[Arc<str>]) -> Self {
        let mut all = vec![own.clone()];
        all.extend(aliases.iter().filter(|alias| *alias != own).cloned());
        Self(all)
    }

    /// The policy with all names of the mesh's trust domain.
    pub(crate) fn spell_out(&self, policy: &Arc<Policy>) -> Arc<Policy> {
        if matches!(self.0.as_slice(), [only] if **only == *DEFAULT_TRUST_DOMAIN) {
            return policy.clone();
        }
        let mut policy = Policy::clone(policy);
        let clauses = policy.rules.iter_mut().flat_map(|rule| &mut rule.clauses);
        clauses.flat_map(|clause| &mut clause.matches).for_each(|found| self.expand(found));
        Arc::new(policy)
    }

    fn expand(&self, found: &mut Match) {
        for list in [&mut found.principals, &mut found.not_principals] {
            *list = list.iter().flat_map(|matching| self.principals(matching)).collect();
        }
        for list in [&mut found.trust_domains, &mut found.not_trust_domains] {
            *list = list.iter().flat_map(|matching| self.domains(matching)).collect();
        }
    }

    fn principals(&self, matching: &StringMatch) -> Vec<StringMatch> {
        let in_each = |text: &str, of: fn(Arc<str>) -> StringMatch| -> Option<Vec<StringMatch>> {
            let (_, rest) = text.split_once('/').filter(|(domain, _)| self.is_own(domain))?;
            Some(self.0.iter().map(|own| of(format!("{own}/{rest}").into())).collect())
        };
        let spelled = match matching {
            StringMatch::Exact(text) => in_each(text, StringMatch::Exact),
            StringMatch::Prefix(text) => in_each(text, StringMatch::Prefix),
            StringMatch::Suffix(text) => self.of_suffix(matching, text),
            StringMatch::Presence => None,
        };
        spelled.unwrap_or_else(|| vec![matching.clone()])
    }

    /// Expands a suffix pattern such as `*-domain/ns/a/sa/b`, if some of the mesh's trust domains
    /// match it.
    fn of_suffix(&self, matching: &StringMatch, text: &str) -> Option<Vec<StringMatch>> {
        let (end, rest) = text.split_once('/').filter(|(end, _)| !end.is_empty())?;
        let is_whole = rest.split('/').count() == 4;
        if !is_whole || !self.0.iter().any(|own| own.ends_with(end)) {
            return None;
        }
        let others = self.0.iter().filter(|own| !own.ends_with(end));
        let others = others.map(|own| StringMatch::Exact(format!("{own}/{rest}").into()));
        Some([matching.clone()].into_iter().chain(others).collect())
    }

    fn domains(&self, matching: &StringMatch) -> Vec<StringMatch> {
        if let StringMatch::Exact(text) = matching
            && self.0.contains(text)
        {
            return self.0.iter().cloned().map(StringMatch::Exact).collect();
        }
        vec![matching.clone()]
    }

    fn is_own(&self, domain: &str) -> bool {
        domain == DEFAULT_TRUST_DOMAIN || self.0.iter().any(|own| **own == *domain)
    }
}

#[cfg(test)]
mod tests {
    use ambit_model::{Action, Clause, NamespacedName, Rule, Scope};

    use super::*;

    fn spelled(trust: &TrustDomains, found: Match) -> Match {
        let rules = vec![Rule { clauses: vec![Clause { matches: vec![found] }] }];
        let key = NamespacedName::new("shop", "p");
        let policy = Policy { key, scope: Scope::Namespace, action: Action::Allow, rules, dry_run: false };
        trust.spell_out(&Arc::new(policy)).rules[0].clauses[0].matches[0].clone()
    }

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    #[test]
    fn the_meshes_own_names_stand_for_one_another_and_others_for_themselves() {
        let trust = TrustDomains::new(&"new.example".into(), &["old-td".into()]);
        let prefix = |text: &str| StringMatch::Prefix(text.into());
        let suffix = |text: &str| StringMatch::Suffix(text.into());
        let both = || vec![exact("new.example/ns/a/sa/b"), exact("old-td/ns/a/sa/b")];
        let table = [
            (exact("new.example/ns/a/sa/b"), both()),
            (exact("old-td/ns/a/sa/b"), both()),
            (exact("cluster.local/ns/a/sa/b"), both()),
            (exact("else.example/ns/a/sa/b"), vec![exact("else.example/ns/a/sa/b")]),
            (prefix("cluster.local/ns/a/"), vec![prefix("new.example/ns/a/"), prefix("old-td/ns/a/")]),
            (prefix("cluster.local"), vec![prefix("cluster.local")]),
            (suffix("/ns/a/sa/b"), vec![suffix("/ns/a/sa/b")]),
            (suffix("-td/ns/a/sa/b"), vec![suffix("-td/ns/a/sa/b"), exact("new.example/ns/a/sa/b")]),
            (suffix("-other/ns/a/sa/b"), vec![suffix("-other/ns/a/sa/b")]),
            (StringMatch::Presence, vec![StringMatch::Presence]),
        ];
        for (given, expected) in table {
            let found = spelled(&trust, Match { principals: vec![given.clone()], ..Match::default() });
            assert_eq!(found.principals, expected, "{given:?}");
            let found = spelled(&trust, Match { not_principals: vec![given.clone()], ..Match::default() });
            assert_eq!(found.not_principals, expected, "not {given:?}");
        }
        let domains = vec![exact("old-td"), exact("else.example")];
        let found = spelled(&trust, Match { trust_domains: domains, ..Match::default() });
        assert_eq!(found.trust_domains, [exact("new.example"), exact("old-td"), exact("else.example")]);
    }

    #[test]
    fn cluster_local_alone_changes_nothing() {
        let trust = TrustDomains::new(&DEFAULT_TRUST_DOMAIN.into(), &[]);
        let given = Match { principals: vec![exact("cluster.local/ns/a/sa/b")], ..Match::default() };
        assert_eq!(spelled(&trust, given.clone()), given);
    }
}
