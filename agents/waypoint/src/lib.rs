//! waypoint: the proxy of a namespace, L7.
//!
//! A tunnel connection comes in, each of its streams names a service that is bound here, and what it carries is judged,
//! routed and sent on through a tunnel of our own. Invariant: what is not bound here, not known or not allowed is
//! refused.

pub mod config;
pub mod run;
