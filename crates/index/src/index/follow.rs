//! Updates derived state after facts changed, in the order of [`Dirty`](super::dirty::Dirty).

use super::{Index, dirty::Work};
use crate::changes::Changes;

impl Index {
    /// Updates everything that is marked, until nothing is left.
    pub(super) fn follow(&mut self, changes: &mut Changes) {
        while let Some(work) = self.layer7.dirty.next(self.layer7.is_serving) {
            match work {
                Work::Derived => self.refresh_derived(changes),
                Work::NodeEnrollment => self.refresh_node_enrollment(changes),
                Work::Slice(name) => self.refresh_slice(&name, changes),
                Work::Binding(subject) => self.refresh_binding(&subject, changes),
                Work::Pod(name) => self.refresh_pod(&name, changes),
                Work::Closing(subject) => self.refresh_closing(&subject, changes),
                Work::Compiled(name) => self.refresh_compiled(&name, changes),
            }
        }
    }
}
