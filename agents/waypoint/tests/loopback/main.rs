//! The whole program but for its operator, over loopback sockets with real TLS: a client's tunnel in, an endpoint's
//! tunnel out.

mod bad_input;
mod drain;
mod endpoint;
mod fixture;
mod judging;
mod routing;
mod streams;
mod upgrade;
