//! The effective PeerAuthentication mode of a port.

/// Whether a workload port accepts plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// mTLS only.
    Strict,
    /// mTLS or plaintext.
    Permissive,
}

/// The mode in force on one port: the most specific level that sets one wins, and the default is
/// permissive. `None` is UNSET. DISABLE is treated as [`Mode::Permissive`], because an incoming
/// tunnel is never refused.
pub fn effective_mode(
    mesh: Option<Mode>,
    namespace: Option<Mode>,
    workload: Option<Mode>,
    port: Option<Mode>,
) -> Mode {
    port.or(workload).or(namespace).or(mesh).unwrap_or(Mode::Permissive)
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*, sample::select};

    use super::*;

    fn level() -> impl Strategy<Value = Option<Mode>> {
        option::of(select(vec![Mode::Strict, Mode::Permissive]))
    }

    proptest! {
        #[test]
        fn the_most_specific_level_that_speaks_decides(levels in proptest::array::uniform4(level())) {
            let [mesh, namespace, workload, port] = levels;
            let decided = effective_mode(mesh, namespace, workload, port);
            let mut expected = Mode::Permissive;
            for mode in levels.into_iter().flatten() {
                expected = mode;
            }
            prop_assert_eq!(decided, expected);
        }

        #[test]
        fn a_level_that_says_nothing_changes_nothing(levels in proptest::array::uniform3(level())) {
            let [a, b, c] = levels;
            let decided = effective_mode(a, b, c, None);
            prop_assert_eq!(effective_mode(None, a, b, c), decided);
            prop_assert_eq!(effective_mode(a, None, b, c), decided);
            prop_assert_eq!(effective_mode(a, b, None, c), decided);
        }
    }
}
