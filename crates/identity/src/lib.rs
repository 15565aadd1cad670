//! Get, hold, rotate and check SVIDs, and sign them; the only place that says rustls.
//!
//! No private key and no token is ever printed: types that hold one have a `Debug` that leaves it out.

pub mod authority;
mod certificate;
pub mod channel;
pub mod client;
mod client_hello;
mod crowd;
pub mod csr;
pub mod error;
mod forward;
mod handshakes;
pub mod manager;
pub mod request;
pub mod server;
pub mod svid;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;
pub mod token;
pub mod web;

pub use authority::{Authority, Parts, ServerCertificate};
pub use channel::{ChannelConfig, OPERATOR_NAME};
pub use client::CaClient;
pub use client_hello::{ClientHello, client_hello};
pub use csr::CsrFacts;
pub use error::{Error, HandshakeError, SourceError};
pub use handshakes::Handshakes;
pub use manager::{Clock, Manager, Priority, Source};
pub use request::PrivateKey;
pub use svid::{ClientStream, ServerStream, Svid, accept, connect};
pub use token::Token;
