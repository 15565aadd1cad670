//! Checks of a token before the API server is called: enough to reject what it would reject.
//!
//! Invariant: pure; nothing here is verified, so it only ever rejects.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::not_believed::NotBelieved;
use crate::names::TOKEN_AUDIENCE;

/// How far this clock may be behind the API server's.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// The claims of a service account token (KEP-1205).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) issuer: Arc<str>,
    pub(super) expires: SystemTime,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Payload {
    iss: String,
    sub: String,
    aud: OneOrMany,
    exp: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Parses a token that may be valid now.
pub(super) fn claims(token: &str, now: SystemTime) -> Result<Claims, NotBelieved> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(NotBelieved::Malformed);
    };
    let header: Header = read(header)?;
    let is_signed = URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| !signature.is_empty());
    if !is_signed || header.alg.is_empty() || header.alg.eq_ignore_ascii_case("none") {
        return Err(NotBelieved::Malformed);
    }
    let Payload { iss, sub, aud, exp } = read(payload)?;
    let is_meant_for_us = match &aud {
        OneOrMany::One(audience) => audience == TOKEN_AUDIENCE,
        OneOrMany::Many(audiences) => audiences.iter().any(|audience| audience == TOKEN_AUDIENCE),
    };
    if !is_meant_for_us {
        return Err(NotBelieved::Audience);
    }
    if !sub.starts_with("system:serviceaccount:") {
        return Err(NotBelieved::Malformed);
    }
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(exp)).ok_or(NotBelieved::Malformed)?;
    // Within the tolerance the API server decides.
    if now.duration_since(expires).is_ok_and(|over| over > CLOCK_SKEW_MAX) {
        return Err(NotBelieved::Expired);
    }
    Ok(Claims { issuer: iss.into(), expires })
}

fn read<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, NotBelieved> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| NotBelieved::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| NotBelieved::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::jwt;

    #[test]
    fn refuses_what_the_api_server_would_refuse() {
        let good = || json!({"iss": "https://k8s", "sub": "system:serviceaccount:a:b", "aud": ["x", TOKEN_AUDIENCE], "exp": 1000});
        let with = |field: &str, value: serde_json::Value| {
            let mut claims = good();
            claims[field] = value;
            jwt(&claims)
        };
        let unsigned = |token: String| token.rsplit_once('.').unwrap().0.to_owned();
        let none = |token: String| format!("eyJhbGciOiJub25lIn0.{}", token.split_once('.').unwrap().1);
        let malformed = || Err(NotBelieved::Malformed);
        for (what, token, expected) in [
            ("as kubelets get them", jwt(&good()), Ok("https://k8s")),
            ("one audience", with("aud", json!(TOKEN_AUDIENCE)), Ok("https://k8s")),
            ("just over", with("exp", json!(950)), Ok("https://k8s")),
            ("long over", with("exp", json!(900)), Err(NotBelieved::Expired)),
            ("for ever", with("exp", json!(null)), malformed()),
            ("beyond all time", with("exp", json!(u64::MAX)), malformed()),
            ("for others", with("aud", json!(["https://k8s"])), Err(NotBelieved::Audience)),
            ("for nobody", with("aud", json!([])), Err(NotBelieved::Audience)),
            ("of a user", with("sub", json!("admin")), malformed()),
            ("of no issuer", with("iss", json!(null)), malformed()),
            ("without a signature", unsigned(jwt(&good())), malformed()),
            ("with an empty one", format!("{}.", unsigned(jwt(&good()))), malformed()),
            ("signed by none", none(jwt(&good())), malformed()),
            ("one part more", format!("{}.x", jwt(&good())), malformed()),
            ("words", "hello".into(), malformed()),
            ("no base64", "a+b.c/d.e".into(), malformed()),
            ("nothing", String::new(), malformed()),
        ] {
            let found = claims(&token, UNIX_EPOCH + Duration::from_secs(1000));
            assert_eq!(found.map(|claims| claims.issuer), expected.map(Arc::from), "{what}");
        }
    }
}
