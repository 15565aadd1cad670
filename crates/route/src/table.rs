//! The routes of a port, compiled: which rule takes a request.
//!
//! Invariant: the answer is that of trying every match in order, and it costs the same however many matches there are
//! for other paths. What cannot be told because a match is invalid counts as matching, and is answered 500.

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
    /// By rule.
    actions: Vec<Result<Actions, Invalid>>,
}

/// The filters of a rule.
#[derive(Debug, Default)]
pub struct Actions {
    /// Those of the rule itself.
    pub rule: Filters,
    /// Those of its backends, in their order; they come after those of the rule.
    pub backends: Vec<Filters>,
}

/// The rule that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its place in [`HttpTable::rules`].
    pub index: usize,
    /// The rule.
    pub rule: &'a HttpRule,
    /// The match that held, for a replacement of its prefix.
    pub matched: &'a HttpMatch,
    /// Its filters, or why the rule cannot be executed: then the answer is 500.
    pub actions: Result<&'a Actions, &'a Invalid>,
}

impl Table {
    /// Compiles a table. It never fails: what is invalid is invalid for the requests of its rule only.
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

    /// The cross-origin rules that a request comes under. A preflight is about a request to come: where no rule takes the
    /// preflight, those count of the rule that would take that request.
    pub fn cross_origin(&self, head: &RequestHead<'_>, asked: &CrossOriginRequest) -> Option<&CrossOrigin> {
        let found = self.find(head).or_else(|| {
            let method = asked.announced()?;
            self.find(&RequestHead { method: &method, ..*head })
        });
        let actions = found?.actions.ok()?;
        // Of several backends none is chosen yet.
        let of_backend = || match actions.backends.as_slice() {
            [only] => only.cross_origin(),
            _ => None,
        };
        actions.rule.cross_origin().or_else(of_backend)
    }

    /// The rule of the first match that holds. None: no match does, and the answer is 404.
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
