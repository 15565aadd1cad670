//! Which endpoint takes a request, how many may be under way at once, and what is tried again.
//!
//! Everything here is shared by all worker threads. Invariant: no call waits, reads a clock or draws a random number;
//! the moment comes in as an `Instant`, randomness as a `u64`.
