//! The life of the `Mesh`: observe → validate → desired → apply → status, and its end.
//!
//! Everything but [`apply`], [`cache`], [`observe`] and [`reconcile`] is plain functions over plain data, the clock included.

pub(crate) mod apply;
pub(crate) mod cache;
pub(crate) mod desired;
pub(crate) mod observe;
pub(crate) mod reconcile;
pub(crate) mod removal;
pub(crate) mod status;

pub(crate) use observe::World;
