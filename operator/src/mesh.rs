//! The life of the `Mesh`: observe → validate → desired → apply → status, and its end.
//!
//! Everything but [`apply`], [`cache`], [`observe`] and [`reconcile`] is plain functions over plain data, the clock included.

pub mod apply;
pub mod cache;
pub mod desired;
pub mod observe;
pub mod reconcile;
pub mod removal;
pub mod status;

pub use observe::World;
