//! HBONE: TCP streams inside HTTP/2 CONNECT, client and server.
//!
//! Independent of TLS and Kubernetes: both ends work over any byte stream. Only this crate uses
//! `h2`, so that another framing could replace it. No future here is required to be `Send`; all
//! except the pool's are if their stream is.

mod authority;
pub mod client;
pub mod copy;
pub mod error;
mod headers;
mod keepalive;
pub mod pool;
pub mod server;
pub mod settings;
mod slot;
pub mod stream;
pub mod tunnel;

pub use authority::{Authority, Host, InvalidAuthority};
pub use client::{SendConnect, handshake};
pub use copy::{Counters, Transferred, copy};
pub use error::{ConnectError, CopyError, Error};
pub use headers::{Baggage, ConnectHeaders, Forwarded, TraceParent};
pub use pool::{Checkout, CheckoutError, Pool};
pub use server::{ConnectRequest, Responder, serve};
pub use settings::Settings;
pub use stream::TunnelStream;
pub use tunnel::Tunnel;

#[cfg(test)]
mod tests;
