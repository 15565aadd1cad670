//! The life of waypoints: Gateway → observe → validate → desired → apply → status, and their end.
//!
//! Everything but [`cache`], [`reader`], [`prune`] and [`driver`] is plain functions over plain data, the clock
//! included.

pub mod cache;
pub mod classes;
pub mod create;
pub mod desired;
pub mod driver;
pub mod observe;
pub mod parameters;
pub mod prune;
pub mod reader;
pub mod status;
pub mod validate;
pub mod wish;

pub use observe::World;
