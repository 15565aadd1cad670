//! What the `Mesh` asks for, as far as it can be understood: checked, as settings of the index, as the authority it names.
//!
//! Invariant: plain functions over plain data, the clock included; both reconciles stand on it.

pub(crate) mod settings;
pub(crate) mod trust;
pub(crate) mod validate;
