//! What requests are compared with, and fractions of requests.

use ambit_model::bound::{Fraction, HeaderMatch, HttpMatch, PathMatch, QueryMatch, ValueMatch};
use ambit_proto::waypoint as wire;

use crate::field::{self, Invalid, list, text};

pub(super) fn encode_match(m: &HttpMatch) -> wire::HttpMatch {
    use wire::path_match::Kind;
    let path = match &m.path {
        PathMatch::Exact(path) => Kind::Exact(path.to_string()),
        PathMatch::Prefix(path) => Kind::Prefix(path.to_string()),
        PathMatch::Regex(regex) => Kind::Regex(regex.to_string()),
    };
    wire::HttpMatch {
        path: Some(wire::PathMatch { kind: Some(path) }),
        method: text(m.method.as_ref()),
        headers: m.headers.iter().map(encode_header_match).collect(),
        query: m.query.iter().map(|query| encode_value(&query.name, &query.value)).collect(),
    }
}

pub(super) fn decode_match(message: wire::HttpMatch) -> Result<HttpMatch, Invalid> {
    use wire::path_match::Kind;
    let query = |m: wire::NamedMatch| {
        Ok(QueryMatch {
            name: field::required("matches.query", m.name)?,
            value: decode_value("matches.query", m.value)?,
        })
    };
    let path = message.path.and_then(|path| path.kind);
    let method = message.method.map(|method| field::required("matches.method", method));
    Ok(HttpMatch {
        path: match field::present("matches.path", path)? {
            Kind::Exact(path) => PathMatch::Exact(path.into()),
            Kind::Prefix(path) => PathMatch::Prefix(path.into()),
            Kind::Regex(regex) => PathMatch::Regex(regex.into()),
        },
        method: method.transpose()?,
        headers: list(message.headers, |m| decode_header_match("matches.headers", m))?,
        query: list(message.query, query)?,
    })
}

pub(super) fn encode_header_match(m: &HeaderMatch) -> wire::NamedMatch {
    encode_value(&m.name, &m.value)
}

pub(super) fn decode_header_match(
    field: &'static str,
    message: wire::NamedMatch,
) -> Result<HeaderMatch, Invalid> {
    Ok(HeaderMatch { name: field::header(field, message.name)?, value: decode_value(field, message.value)? })
}

fn encode_value(name: &str, value: &ValueMatch) -> wire::NamedMatch {
    use wire::named_match::Value;
    let value = match value {
        ValueMatch::Exact(text) => Value::Exact(text.to_string()),
        ValueMatch::Regex(regex) => Value::Regex(regex.to_string()),
    };
    wire::NamedMatch { name: name.to_owned(), value: Some(value) }
}

fn decode_value(field: &'static str, value: Option<wire::named_match::Value>) -> Result<ValueMatch, Invalid> {
    use wire::named_match::Value;
    Ok(match field::present(field, value)? {
        Value::Exact(text) => ValueMatch::Exact(text.into()),
        Value::Regex(regex) => ValueMatch::Regex(regex.into()),
    })
}

pub(super) fn encode_fraction(fraction: Fraction) -> wire::Fraction {
    wire::Fraction { numerator: fraction.numerator, denominator: fraction.denominator }
}

pub(super) fn decode_fraction(
    field: &'static str,
    message: Option<wire::Fraction>,
) -> Result<Fraction, Invalid> {
    let wire::Fraction { numerator, denominator } = field::present(field, message)?;
    if denominator == 0 || numerator > denominator {
        return Err(Invalid::new(field, format!("{numerator}/{denominator} is not a share")));
    }
    Ok(Fraction { numerator, denominator })
}
