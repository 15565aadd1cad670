//! The life of the `Mesh`: observe → validate → desired → apply → status, and its end.
//!
//! Everything but [`observe`] and [`reconcile`] is plain functions over plain data, the clock included.

pub mod desired;
pub mod observe;
pub mod reconcile;
pub mod removal;
pub mod settings;
pub mod status;
pub mod trust;
pub mod validate;

pub use observe::World;
