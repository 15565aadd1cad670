//! What the first bytes of a stream say about its protocol. Pure.
//!
//! Invariant: only what cannot be anything but a request is taken for HTTP; a client that is silent or says anything
//! else gets its bytes through as they are, where policy allows that.

use std::time::Duration;

/// How long a client may be silent before it is taken for one whose server speaks first.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(5);

/// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods of RFC 9110, RFC 5789 and WebDAV.
const METHODS: [&[u8]; 14] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
];

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// HTTP/1
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything else.
    Opaque,
    /// Not enough to tell.
    More,
}

/// Tells the protocol by its first bytes.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    if is_begun(bytes, PREFACE) {
        return if bytes.len() >= PREFACE.len() { Sniffed::Http2 } else { Sniffed::More };
    }
    let mut more = false;
    for method in METHODS {
        if !is_begun(bytes, method) {
            continue;
        }
        // A space, and the target in one of its forms (RFC 9112 3.2): a path, a URI, or `*`.
        match (bytes.get(method.len()), bytes.get(method.len() + 1)) {
            (None, _) | (Some(b' '), None) => more = true,
            (Some(b' '), Some(b'/' | b'*' | b'h' | b'H')) => return Sniffed::Http1,
            (Some(b' '), Some(_)) if method == b"CONNECT" => return Sniffed::Http1,
            (Some(_), _) => {}
        }
    }
    if more { Sniffed::More } else { Sniffed::Opaque }
}

/// Whether one begins with the other, whichever is longer.
fn is_begun(bytes: &[u8], by: &[u8]) -> bool {
    bytes.iter().zip(by).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_http_from_anything_else_by_its_first_bytes() {
        let cases: [(&[u8], Sniffed); 18] = [
            (b"", Sniffed::More),
            (b"G", Sniffed::More),
            (b"GET ", Sniffed::More),
            (b"GET /", Sniffed::Http1),
            (b"OPTIONS *", Sniffed::Http1),
            (b"POST http://cart/", Sniffed::Http1),
            (b"CONNECT cart:80", Sniffed::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Sniffed::More),
            (PREFACE, Sniffed::Http2),
            (b"PRI * HTTP/1.1", Sniffed::Opaque),
            // Redis and memcached, inline and framed.
            (b"GET key\r\n", Sniffed::Opaque),
            (b"get key\r\n", Sniffed::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::Opaque),
            (b"PUT\0", Sniffed::Opaque),
            // TLS, SMTP, PostgreSQL.
            (b"\x16\x03\x01\x02", Sniffed::Opaque),
            (b"EHLO example.com", Sniffed::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Sniffed::Opaque),
            (b"GETX /", Sniffed::Opaque),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sniff(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
