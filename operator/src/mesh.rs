//! The lifecycle of the `Mesh`: observe → validate → desired → apply → status, and removal.
//!
//! Everything except [`apply`], [`cache`], [`observe`] and [`reconcile`] consists of pure
//! functions, with the clock as an argument.

pub(crate) mod apply;
pub(crate) mod cache;
pub(crate) mod desired;
pub(crate) mod observe;
pub(crate) mod reconcile;
pub(crate) mod removal;
pub(crate) mod status;

pub(crate) use observe::MeshWorld;
