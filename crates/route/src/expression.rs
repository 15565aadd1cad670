//! Regular expressions that must match the whole value.
//!
//! Invariant: an expression is validated before it is wrapped in anchors, so it cannot escape them.
//! Matching takes linear time for any expression (`regex` crate).

use std::sync::Arc;

use crate::Invalid;

/// Largest compiled size of one expression.
pub(crate) const EXPRESSION_BYTES_MAX: usize = 1 << 20;
/// Largest compiled size of a set of expressions; larger sets are split.
const SET_BYTES_MAX: usize = 8 << 20;

/// Compiles an expression for header and query values.
pub(crate) fn whole(expression: &Arc<str>) -> Result<regex::bytes::Regex, Invalid> {
    let invalid = |reason: regex::Error| Invalid::Expression {
        expression: expression.clone(),
        reason: reason.to_string().lines().last().unwrap_or_default().to_owned(),
    };
    let build = |text: &str| regex::bytes::RegexBuilder::new(text).size_limit(EXPRESSION_BYTES_MAX).build();
    build(expression).map_err(invalid)?;
    build(&anchored(expression)).map_err(invalid)
}

/// Expressions for paths, each with its index in the table.
#[derive(Debug)]
pub(crate) struct Expressions {
    /// Each set with the table indexes of its expressions, ascending over all sets.
    sets: Vec<(regex::bytes::RegexSet, Vec<usize>)>,
}

impl Expressions {
    /// Compiles expressions that [`whole`] accepts, in ascending order of index. Also returns the
    /// indexes of those that fit into no set.
    pub(crate) fn compile(expressions: &[(usize, Arc<str>)]) -> (Self, Vec<usize>) {
        Self::compile_within(expressions, SET_BYTES_MAX)
    }

    fn compile_within(expressions: &[(usize, Arc<str>)], set_bytes_max: usize) -> (Self, Vec<usize>) {
        let mut sets = Vec::new();
        let mut rejected = Vec::new();
        let mut waiting = vec![expressions];
        while let Some(part) = waiting.pop() {
            if part.is_empty() {
                continue;
            }
            let texts = part.iter().map(|(_, expression)| anchored(expression));
            match regex::bytes::RegexSetBuilder::new(texts).size_limit(set_bytes_max).build() {
                Ok(set) => sets.push((set, part.iter().map(|(place, _)| *place).collect())),
                Err(_) if part.len() > 1 => {
                    let (low, high) = part.split_at(part.len() / 2);
                    waiting.extend([high, low]);
                }
                Err(_) => rejected.extend(part.iter().map(|(place, _)| *place)),
            }
        }
        (Self { sets }, rejected)
    }

    /// Indexes below `below` whose expressions match the whole path, ascending.
    pub(crate) fn matching<'a>(&'a self, path: &'a str, below: usize) -> impl Iterator<Item = usize> + 'a {
        let worth = move |places: &Vec<usize>| places.first().is_some_and(|first| *first < below);
        self.sets.iter().take_while(move |(_, places)| worth(places)).flat_map(move |(set, places)| {
            set.matches(path.as_bytes())
                .into_iter()
                .filter_map(|index| places.get(index).copied())
                .collect::<Vec<_>>()
        })
    }
}

fn anchored(expression: &str) -> String {
    format!(r"\A(?:{expression})\z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_the_whole_value_and_cannot_escape_its_anchors() {
        let cases = [
            ("a|ab", "ab", true),
            ("a", "ab", false),
            ("b", "ab", false),
            ("(?i)AB", "ab", true),
            ("(?m)^a$", "b\na", false),
            ("", "", true),
        ];
        for (expression, value, expected) in cases {
            assert_eq!(
                whole(&expression.into()).unwrap().is_match(value.as_bytes()),
                expected,
                "{expression}"
            );
        }
        for expression in ["a)|(?:b", "(", r"\z)|(?:.*", "[", "a{1000}{1000}{1000}"] {
            let error = whole(&expression.into()).unwrap_err().to_string();
            assert!(error.contains(&format!("{expression:?}")), "{error}");
        }
    }

    #[test]
    fn expressions_too_many_for_one_set_are_split_and_stay_in_order() {
        let all: Vec<_> = (0..64).map(|n| (n, Arc::from(format!("/{n}/[a-z]+")))).collect();
        let (expressions, rejected) = Expressions::compile_within(&all, 16 << 10);
        assert!(expressions.sets.len() > 1, "{}", expressions.sets.len());
        assert_eq!(rejected, Vec::<usize>::new());
        for n in [0, 31, 63] {
            assert_eq!(expressions.matching(&format!("/{n}/ab"), usize::MAX).collect::<Vec<_>>(), [n]);
        }
        assert_eq!(expressions.matching("/63/ab", 3).count(), 0);
        let (expressions, rejected) = Expressions::compile_within(&all, 8);
        assert!(expressions.sets.is_empty());
        assert_eq!(rejected, (0..64).collect::<Vec<_>>());
    }
}
