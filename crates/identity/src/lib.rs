//! Obtaining, holding, rotating, verifying and signing SVIDs; the only crate that uses rustls.
//!
//! Private keys and tokens are never printed: the `Debug` implementation of types that hold one
//! omits it.

pub mod authority;
mod certificate;
pub mod channel;
pub mod client;
mod client_hello;
pub mod csr;
mod error;
mod forward;
mod handshakes;
mod manager;
mod pending_peers;
pub mod request;
pub mod server;
pub mod svid;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;
mod token;
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
