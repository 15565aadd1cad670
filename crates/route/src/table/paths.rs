//! Path matching: exact paths by hash, prefixes by a tree of path segments, expressions by sets.
//!
//! Invariant: a lookup reads each byte of the path once for the hash, once for the tree and once
//! per set. Indexes in every list keep the order of the table.

use std::{collections::HashMap, sync::Arc};

use crate::expression::Expressions;

/// A compiled path condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Matches every path.
    Any,
    Exact(Arc<str>),
    /// A prefix of whole segments; not empty, without trailing slash.
    Prefix(Arc<str>),
    Expression(Arc<str>),
}

/// Table indexes by path.
#[derive(Debug)]
pub(super) struct Paths {
    exact: HashMap<Arc<str>, Vec<usize>>,
    any: Vec<usize>,
    /// Nodes of the tree; the first is its root.
    elements: Vec<Element>,
    expressions: Expressions,
}

/// One segment of a prefix.
#[derive(Debug, Default)]
struct Element {
    /// Table indexes of the prefixes that end here.
    places: Vec<usize>,
    children: HashMap<Box<str>, usize>,
}

impl Paths {
    /// Builds the index for paths in table order.
    pub(super) fn index(paths: Vec<Path>) -> Self {
        let mut index = Self {
            exact: HashMap::new(),
            any: Vec::new(),
            elements: vec![Element::default()],
            expressions: Expressions::compile(&[]).0,
        };
        let mut expressions = Vec::new();
        for (place, path) in paths.into_iter().enumerate() {
            match path {
                Path::Any => index.any.push(place),
                Path::Exact(path) => index.exact.entry(path).or_default().push(place),
                Path::Prefix(prefix) => index.plant(&prefix, place),
                Path::Expression(expression) => expressions.push((place, expression)),
            }
        }
        let (expressions, rejected) = Expressions::compile(&expressions);
        index.expressions = expressions;
        // Valid one by one but rejected as a set: unknown what they match, so they count as
        // matching every path.
        index.any.extend(rejected);
        index.any.sort_unstable();
        index
    }

    /// The lowest index whose path matches and for which `holds` returns true.
    pub(super) fn first(&self, path: &str, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = usize::MAX;
        let consider = |places: &[usize], best: &mut usize| {
            let mut better = places.iter().copied().take_while(|place| *place < *best);
            if let Some(place) = better.find(|place| holds(*place)) {
                *best = place;
            }
        };
        if let Some(places) = self.exact.get(path) {
            consider(places, &mut best);
        }
        consider(&self.any, &mut best);
        let mut node = self.elements.first();
        for element in path.split('/') {
            node =
                node.and_then(|node| node.children.get(element)).and_then(|child| self.elements.get(*child));
            let Some(node) = node else { break };
            consider(&node.places, &mut best);
        }
        if let Some(place) = self
            .expressions
            .matching(path, best)
            .take_while(|place| *place < best)
            .find(|place| holds(*place))
        {
            best = place;
        }
        (best != usize::MAX).then_some(best)
    }

    fn plant(&mut self, prefix: &str, place: usize) {
        let mut at = 0;
        for element in prefix.split('/') {
            let fresh = self.elements.len();
            let Some(node) = self.elements.get_mut(at) else { return };
            at = *node.children.entry(element.into()).or_insert(fresh);
            if at == fresh {
                self.elements.push(Element::default());
            }
        }
        if let Some(node) = self.elements.get_mut(at) {
            node.places.push(place);
        }
    }
}
