//! One kind of condition of a match.

/// One kind of condition: a positive value matches (or none is given), and no negated value does.
pub(super) fn holds<T>(positive: &[T], negated: &[T], test: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&test)) && !negated.iter().any(&test)
}
