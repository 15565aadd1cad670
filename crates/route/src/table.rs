//! The compiled routes of a port: selects the rule for a request.
//!
//! Invariant: the result equals trying every match in order, and its cost does not depend on the
//! number of matches for other paths. An invalid match counts as matching, and its requests get
//! 500.

mod paths;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ambit_model::bound::{Filter, HttpMatch, HttpRule, HttpTable, PathChange, PathMatch};

use self::paths::{Path, Paths};
use crate::{
    Filters, Invalid, RequestHead,
    criteria::Criteria,
    expression,
    filter::{CrossOrigin, CrossOriginRequest},
    head::normalized,
};

/// The routes of a port.
#[derive(Debug)]
pub struct Table {
    source: Arc<HttpTable>,
    paths: Paths,
    criteria: Vec<Criteria>,
    /// Indexed by rule.
    actions: Vec<Result<Actions, Invalid>>,
}

/// The filters of a rule.
#[derive(Debug, Default)]
pub struct Actions {
    /// Filters of the rule itself.
    pub rule: Filters,
    /// Filters of its backends, in their order; applied after those of the rule.
    pub backends: Vec<Filters>,
}

/// The rule selected for a request.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its index in [`HttpTable::rules`].
    pub index: usize,
    /// The rule.
    pub rule: &'a HttpRule,
    /// The match that was used, for replacing its prefix.
    pub matched: &'a HttpMatch,
    /// Its filters, or why the rule cannot be executed; then answer 500.
    pub actions: Result<&'a Actions, &'a Invalid>,
}

impl Table {
    /// Compiles a table. Never fails: an invalid rule only affects its own requests.
    pub fn compile(source: Arc<HttpTable>) -> Self {
        let mut actions: Vec<_> = source.rules.iter().map(compile_actions).collect();
        let mut criteria = Vec::with_capacity(source.matches.len());
        let mut paths = Vec::with_capacity(source.matches.len());
        for (matched, rule) in &source.matches {
            let path = compile_path(&matched.path);
            let rest = Criteria::compile(matched);
            let prefix =
                needs_prefix(source.rules.get(*rule)) && !matches!(matched.path, PathMatch::Prefix(_));
            let wrong =
                [path.as_ref().err(), rest.as_ref().err(), prefix.then_some(&Invalid::PrefixNotMatched)];
            if let (Some(invalid), Some(slot)) = (wrong.into_iter().flatten().next(), actions.get_mut(*rule))
            {
                *slot = Err(invalid.clone());
            }
            paths.push(path.unwrap_or(Path::Any));
            criteria.push(rest.unwrap_or_default());
        }
        Self { paths: Paths::index(paths), source, criteria, actions }
    }

    /// The CORS filter for a request. If no rule matches a preflight, the filter comes from the
    /// rule that would match the announced request.
    pub fn cross_origin(&self, head: &RequestHead<'_>, asked: &CrossOriginRequest) -> Option<&CrossOrigin> {
        let found = self.find(head).or_else(|| {
            let method = asked.announced()?;
            self.find(&RequestHead { method: &method, ..*head })
        });
        let actions = found?.actions.ok()?;
        // With several backends, none has been selected yet.
        let of_backend = || match actions.backends.as_slice() {
            [only] => only.cross_origin(),
            _ => None,
        };
        actions.rule.cross_origin().or_else(of_backend)
    }

    /// The rule of the first match. `None`: nothing matches; answer 404.
    pub fn find(&self, head: &RequestHead<'_>) -> Option<Found<'_>> {
        let holds = |place: usize| self.criteria.get(place).is_some_and(|criteria| criteria.hold(head));
        let place = self.paths.first(&head.normalized_path(), holds)?;
        let (matched, index) = self.source.matches.get(place)?;
        Some(Found {
            index: *index,
            rule: self.source.rules.get(*index)?,
            matched,
            actions: self.actions.get(*index)?.as_ref(),
        })
    }

    /// Rules that cannot be executed, with the reason.
    pub fn invalid(&self) -> impl Iterator<Item = (&HttpRule, &Invalid)> {
        self.source
            .rules
            .iter()
            .zip(&self.actions)
            .filter_map(|(rule, actions)| Some((rule, actions.as_ref().err()?)))
    }
}

fn compile_actions(rule: &HttpRule) -> Result<Actions, Invalid> {
    let backends = rule.backends.iter().map(|backend| Filters::compile(&backend.filters));
    Ok(Actions { rule: Filters::compile(&rule.filters)?, backends: backends.collect::<Result<_, _>>()? })
}

fn compile_path(path: &PathMatch) -> Result<Path, Invalid> {
    match path {
        PathMatch::Exact(path) => Ok(Path::Exact(normalized(path).into())),
        PathMatch::Prefix(prefix) => {
            let prefix = normalized(prefix);
            Ok(match prefix.strip_suffix('/').unwrap_or(&prefix) {
                "" => Path::Any,
                prefix => Path::Prefix(prefix.into()),
            })
        }
        PathMatch::Regex(text) => expression::whole(text).map(|_| Path::Expression(text.clone())),
    }
}

fn needs_prefix(rule: Option<&HttpRule>) -> bool {
    let replaces = |filter: &Filter| match filter {
        Filter::Redirect(redirect) => matches!(redirect.path, Some(PathChange::Prefix(_))),
        Filter::Rewrite(rewrite) => matches!(rewrite.path, Some(PathChange::Prefix(_))),
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Mirror(_) | Filter::Cors(_) => false,
    };
    rule.is_some_and(|rule| {
        let of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
        rule.filters.iter().chain(of_backends).any(replaces)
    })
}
