//! Detects what a tunnel carries by its first bytes: the protocol, and the server name of a TLS client.
//!
//! Invariant: detection decides only for ports without a declared protocol and without rules about requests; a port with
//! such rules is HTTP whatever its first bytes are ([`crate::service::Port::protocol`]).

mod protocol;
mod server_name;

use std::time::Duration;

pub use protocol::{Protocol, tell};
pub use server_name::{ServerName, look};

/// How long a client may send nothing before its protocol counts as one in which the server speaks first.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client may take from its first byte until its protocol is detected.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(5);

/// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Empty lines before a request that are skipped (RFC 9112 2.2 demands at least one).
const EMPTY_LINES_MAX_BYTES: usize = 16;

/// Longest request line that detection waits for.
const REQUEST_LINE_MAX_BYTES: usize = 8 << 10;

/// The protocol of the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// HTTP/1
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything else.
    Opaque,
    /// Too few bytes to decide.
    More,
}

/// Detects the protocol: HTTP/1 begins with a request line, whose method may be any token (RFC 9110 9.1).
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let told = sniff_http(bytes);
    if told != Sniffed::Http1 {
        return told;
    }
    let empty = bytes.iter().take(EMPTY_LINES_MAX_BYTES).take_while(|byte| b"\r\n".contains(byte)).count();
    let line = bytes.get(empty..).unwrap_or_default();
    let short = if line.len() < REQUEST_LINE_MAX_BYTES { Sniffed::More } else { Sniffed::Opaque };
    let method = line.iter().take_while(|byte| is_of_token(**byte)).count();
    match line.get(method) {
        None => return short,
        Some(b' ') if method > 0 => {}
        Some(_) => return Sniffed::Opaque,
    }
    let target = line.get(method + 1..).unwrap_or_default();
    let length = target.iter().take_while(|byte| byte.is_ascii_graphic() || !byte.is_ascii()).count();
    match target.get(length) {
        // So far a valid request line, and longer than other protocols begin.
        None if line.len() >= REQUEST_LINE_MAX_BYTES => Sniffed::Http1,
        None => Sniffed::More,
        Some(b' ') if length > 0 => {
            const VERSION: &[u8] = b"HTTP/1.";
            let version = target.get(length + 1..).unwrap_or_default();
            match is_begun(version, VERSION) {
                true if version.len() >= VERSION.len() => Sniffed::Http1,
                true => Sniffed::More,
                false => Sniffed::Opaque,
            }
        }
        Some(_) => Sniffed::Opaque,
    }
}

/// Detects the version where only HTTP is allowed: everything that is not HTTP/2 counts as HTTP/1.
pub fn sniff_http(bytes: &[u8]) -> Sniffed {
    match is_begun(bytes, PREFACE) {
        true if bytes.len() >= PREFACE.len() => Sniffed::Http2,
        true => Sniffed::More,
        false => Sniffed::Http1,
    }
}

/// RFC 9110 5.6.2.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `bytes` begin with `by`, or are its beginning.
fn is_begun(bytes: &[u8], by: &[u8]) -> bool {
    bytes.iter().zip(by).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_http_from_anything_else_by_its_first_bytes() {
        let cases: [(&[u8], Sniffed); 29] = [
            (b"", Sniffed::More),
            (b"G", Sniffed::More),
            (b"GET ", Sniffed::More),
            (b"GET /", Sniffed::More),
            (b"GET / HTTP/", Sniffed::More),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http1),
            (b"OPTIONS * HTTP/1.1\r\n", Sniffed::Http1),
            (b"POST http://cart/ HTTP/1.0\r\n", Sniffed::Http1),
            (b"CONNECT cart:80 HTTP/1.1\r\n", Sniffed::Http1),
            // Rare methods, and one that does not exist.
            (b"PROPFIND /dav HTTP/1.1\r\n", Sniffed::Http1),
            (b"QUERY / HTTP/1.1\r\n", Sniffed::Http1),
            (b"m-search * HTTP/1.1\r\n", Sniffed::Http1),
            // Empty lines before it.
            (b"\r\n", Sniffed::More),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", Sniffed::Http1),
            (b"\nGET / HTTP/1.1\n", Sniffed::Http1),
            (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", Sniffed::Opaque),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Sniffed::More),
            (PREFACE, Sniffed::Http2),
            (b"PRI * HTTP/3.0", Sniffed::Opaque),
            // Redis and memcached, inline and framed; NATS.
            (b"GET key\r\n", Sniffed::Opaque),
            (b"get key\r\n", Sniffed::Opaque),
            (b"SET /key value\r\n", Sniffed::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::Opaque),
            (b"CONNECT {\"verbose\":false}\r\n", Sniffed::Opaque),
            (b"PUT\0", Sniffed::Opaque),
            // TLS, SMTP, PostgreSQL.
            (b"\x16\x03\x01\x02", Sniffed::Opaque),
            (b"EHLO example.com\r\n", Sniffed::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Sniffed::Opaque),
            (b" GET / HTTP/1.1", Sniffed::Opaque),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sniff(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_never_becomes_a_request_is_waited_for_up_to_a_limit() {
        let long = [b'x'; REQUEST_LINE_MAX_BYTES];
        assert_eq!(sniff(&long), Sniffed::Opaque);
        assert_eq!(sniff(&long[1..]), Sniffed::More);
        let target = [b"GET /", &long[..]].concat();
        assert_eq!(sniff(&target), Sniffed::Http1, "the head of a request may be longer");
    }

    #[test]
    fn where_only_http_is_spoken_one_byte_is_enough_to_tell_its_version() {
        for (bytes, expected) in [
            (&b""[..], Sniffed::More),
            (b"P", Sniffed::More),
            (b"PO", Sniffed::Http1),
            (b"\r\n", Sniffed::Http1),
            (b"\x16\x03", Sniffed::Http1),
            (PREFACE, Sniffed::Http2),
        ] {
            assert_eq!(sniff_http(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
