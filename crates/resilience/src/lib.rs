//! Which endpoint takes a request, how many may be under way at once, and what is tried again.
//!
//! Everything here is shared by all worker threads. Invariant: no call waits, reads a clock or draws a random number;
//! the moment comes in as an `Instant`, randomness as a `u64`.

pub mod breaker;
pub mod budget;
pub mod deadline;
pub mod endpoints;
pub mod fault;
pub mod hash;
mod latency;
pub mod outlier;
pub mod rate;
pub mod retry;

pub use breaker::{Breaker, Overflow, Permit, Resource};
pub use deadline::{Deadlines, Late};
pub use endpoints::{Choice, Endpoint, Endpoints, Member, Outcome, UnderWay};
pub use fault::{Injection, inject, is_drawn};
pub use hash::{hash, score};
pub use rate::{Limited, RateLimits};
