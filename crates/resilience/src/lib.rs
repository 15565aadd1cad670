//! Load balancing, circuit breaking, rate limiting, retries and fault injection.
//!
//! Everything here is shared by all worker threads. Invariant: no call waits, reads a clock or
//! draws a random number; time is passed as an `Instant`, randomness as a `u64`.

pub mod breaker;
mod budget;
mod deadline;
mod endpoints;
mod fault;
pub mod hash;
mod latency;
mod outlier;
mod rate;
pub mod retry;

pub use breaker::{Breaker, Overflow, Permit, Resource};
pub use deadline::{Deadlines, Late};
pub use endpoints::{Choice, Endpoint, Endpoints, Member, Outcome, UnderWay};
pub use fault::{Injection, inject, is_drawn};
pub use hash::{hash, score};
pub use rate::{Limited, RateLimits};
