//! The lifecycle of waypoints: Gateway → observe → validate → desired → apply → status, and
//! removal.
//!
//! Everything except [`cache`], [`reader`], [`prune`] and [`driver`] consists of pure functions,
//! with the clock as an argument.

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
pub(crate) mod waypoint_request;

pub(crate) use observe::WaypointWorld;
