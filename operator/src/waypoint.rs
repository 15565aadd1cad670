//! The life of waypoints: Gateway → observe → validate → desired → apply → status, and their end.
//!
//! Everything but [`cache`], [`reader`], [`prune`] and [`driver`] is plain functions over plain data, the clock
//! included.

pub(crate) mod cache;
pub(crate) mod classes;
pub(crate) mod create;
pub(crate) mod desired;
pub(crate) mod driver;
pub(crate) mod observe;
pub(crate) mod parameters;
pub(crate) mod prune;
pub(crate) mod reader;
pub(crate) mod status;
pub(crate) mod validate;
pub(crate) mod wish;

pub(crate) use observe::World;
