//! Reading the server name (SNI) from the first bytes of a TLS connection.
//!
//! Invariant: stateless. The caller buffers and limits the bytes, and passes all of them at each
//! call.

use rustls::server::Acceptor;

/// Result of reading the first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHello {
    /// More bytes are needed.
    More,
    /// A TLS ClientHello, with its server name in lower case if it has one.
    Tls(Option<String>),
    /// It starts like TLS, but this parser rejects it; another one might not.
    Unreadable,
    /// Not TLS.
    NotTls,
}

/// Content type of a handshake record (RFC 8446 5.1).
const HANDSHAKE: u8 = 22;

/// Parses the first bytes of a connection. The ClientHello may span several records and arrive in
/// pieces.
pub fn client_hello(mut bytes: &[u8]) -> ClientHello {
    match bytes.first() {
        None => return ClientHello::More,
        Some(&HANDSHAKE) => {}
        Some(_) => return ClientHello::NotTls,
    }
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        // Reading from memory cannot fail, so a full buffer means a malformed message.
        if acceptor.read_tls(&mut bytes).is_err() {
            return ClientHello::Unreadable;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                // RFC 6066 3: the name has no trailing dot, but servers may accept one.
                let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
                return ClientHello::Tls(name);
            }
            Ok(None) => {}
            Err(_) => return ClientHello::Unreadable,
        }
    }
    ClientHello::More
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use super::*;

    /// A ClientHello for `name`.
    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut said = Vec::new();
        connection.write_tls(&mut said).unwrap();
        said
    }

    /// The same message split into records of `length` bytes.
    fn in_records(hello: &[u8], length: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1], &length[..], part].concat()
        };
        hello[5..].chunks(length).flat_map(record).collect()
    }

    #[test]
    fn a_name_is_found_however_the_first_message_is_cut() {
        let whole = hello("Shop.Example");
        let named = ClientHello::Tls(Some("shop.example".to_owned()));
        assert_eq!(client_hello(&whole), named);
        for cut in 0..whole.len() {
            assert_eq!(client_hello(&whole[..cut]), ClientHello::More, "{cut}");
        }
        for length in [1, 7, 100] {
            assert_eq!(client_hello(&in_records(&whole, length)), named, "{length}");
        }
        // Bytes after the ClientHello are ignored.
        assert_eq!(client_hello(&[whole, vec![0; 100]].concat()), named);
    }

    #[test]
    fn a_client_may_name_nobody() {
        assert_eq!(client_hello(&hello("192.0.2.1")), ClientHello::Tls(None));
    }

    #[test]
    fn anything_else_is_no_tls() {
        for bytes in [&b"GET / HTTP/1.1"[..], b"\0"] {
            assert_eq!(client_hello(bytes), ClientHello::NotTls, "{bytes:?}");
        }
        for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], &[22; 64]] {
            assert_eq!(client_hello(bytes), ClientHello::Unreadable, "{bytes:?}");
        }
        assert_eq!(client_hello(b""), ClientHello::More);
    }
}
