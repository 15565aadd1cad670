//! The whole program except its operator, over loopback sockets with real TLS: a client's tunnel
//! in, an endpoint's tunnel out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests are not in a test module; a failure here is a failed test"
)]

mod abuse;
mod bad_input;
mod bodies;
mod browsers;
mod consumers;
mod drain;
mod endpoint;
mod external;
mod fixture;
mod judging;
mod meaning;
mod pending;
mod pods;
mod routing;
mod server_names;
mod streams;
mod telling;
mod upgrade;
