use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ambit_model::bound::{ClaimHeader, TokenLocation};
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::request::Parts;
use serde_json::{Value, json};

use super::{
    limits::{CLAIMS_MAX, DEPTH_MAX},
    *,
};

mod several;

const ISSUER: &str = "https://issuer.example";
/// The current time, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// Signs a message.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key that signs, and its public half.
struct Signer {
    sign: Sign,
    algorithm: &'static str,
    jwk: Value,
}

impl Signer {
    fn ed25519(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(pair.public_key())});
        Self { sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()), algorithm: "EdDSA", jwk }
    }

    fn ecdsa(id: &str, curve: &str) -> Self {
        let (kind, algorithm, bytes) = match curve {
            "P-256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", 32),
            _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", 48),
        };
        let pair = EcdsaKeyPair::generate(kind).unwrap();
        // The first byte indicates that both coordinates follow (SEC 1 §2.3.3).
        let (x, y) = pair.public_key().as_ref()[1..].split_at(bytes);
        let jwk = json!({"kty": "EC", "crv": curve, "kid": id, "x": encode(x), "y": encode(y)});
        let sign = move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Self { sign: Box::new(sign), algorithm, jwk }
    }

    fn rsa(id: &str, algorithm: &'static str, padding: &'static dyn RsaEncoding) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let (n, e) = (public.modulus().big_endian_without_leading_zero(), public.exponent());
        let e = e.big_endian_without_leading_zero();
        let jwk = json!({"kty": "RSA", "kid": id, "n": encode(n), "e": encode(e)});
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        Self { sign: Box::new(sign), algorithm, jwk }
    }

    fn kid(&self) -> Value {
        self.jwk["kid"].clone()
    }

    fn token(&self, claims: &Value) -> String {
        self.with_header(&json!({"alg": self.algorithm, "kid": self.kid(), "typ": "JWT"}), claims)
    }

    fn with_header(&self, header: &Value, claims: &Value) -> String {
        self.signed(&format!("{}.{}", encode(header.to_string()), encode(claims.to_string())))
    }

    fn signed(&self, message: &str) -> String {
        format!("{message}.{}", encode((self.sign)(message.as_bytes())))
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": ["shop", "other"], "exp": NOW + 60, "nbf": NOW - 60})
}

/// The default claims, with one changed.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn provider(keys: &[&Signer]) -> JwtProvider {
    let keys: Vec<_> = keys.iter().map(|signer| signer.jwk.clone()).collect();
    JwtProvider {
        issuer: ISSUER.into(),
        audiences: vec!["shop".into()],
        jwks: Some(json!({ "keys": keys }).to_string().into()),
        locations: vec![],
        forward: true,
        payload_header: None,
        claim_headers: vec![],
        space_delimited: vec![],
    }
}

fn bearing(token: &str) -> Parts {
    request(&[("authorization", &format!("Bearer {token}"))])
}

fn request(headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn check(provider: JwtProvider, request: &Parts) -> Result<Accepted, Refusal> {
    Validator::new(&[provider]).check(&RequestHead::from(request), now())
}

fn refused(provider: JwtProvider, token: &str) -> Option<Refusal> {
    check(provider, &bearing(token)).err()
}

#[test]
fn a_token_signed_with_any_algorithm_of_a_private_key_is_accepted() {
    let signers = [
        Signer::ed25519("a"),
        Signer::ecdsa("b", "P-256"),
        Signer::ecdsa("c", "P-384"),
        Signer::rsa("d", "RS256", &signature::RSA_PKCS1_SHA256),
        Signer::rsa("e", "RS384", &signature::RSA_PKCS1_SHA384),
        Signer::rsa("f", "RS512", &signature::RSA_PKCS1_SHA512),
        Signer::rsa("g", "PS256", &signature::RSA_PSS_SHA256),
        Signer::rsa("h", "PS384", &signature::RSA_PSS_SHA384),
        Signer::rsa("i", "PS512", &signature::RSA_PSS_SHA512),
    ];
    let all: Vec<_> = signers.iter().collect();
    let validator = Validator::new(&[provider(&all)]);
    for signer in &signers {
        let request = bearing(&signer.token(&claims()));
        let accepted = validator.check(&RequestHead::from(&request), now()).unwrap();
        assert_eq!(&*accepted.token.unwrap().subject, "alice", "{}", signer.algorithm);
        // Without a key id, every matching key is tried.
        let request = bearing(&signer.with_header(&json!({"alg": signer.algorithm}), &claims()));
        assert!(validator.check(&RequestHead::from(&request), now()).is_ok(), "{}", signer.algorithm);
    }
}

#[test]
fn a_request_without_token_passes_and_proves_nobody() {
    let signer = Signer::ed25519("a");
    assert_eq!(check(provider(&[&signer]), &request(&[])), Ok(Accepted::default()));
    assert_eq!(
        check(provider(&[&signer]), &request(&[("authorization", "Basic YTpi")])),
        Ok(Accepted::default())
    );
    let none = Validator::new(&[]);
    assert_eq!(none.check(&RequestHead::from(&bearing("junk")), now()), Ok(Accepted::default()));
}

#[test]
fn what_a_verified_token_says_is_what_policies_see() {
    let signer = Signer::ed25519("a");
    let mut claims = claims();
    claims["azp"] = json!("web");
    claims["groups"] = json!(["a", "b"]);
    claims["realm"] = json!({"roles": ["c"], "level": 7});
    claims["scope"] = json!("read write");
    claims["mixed"] = json!(["d", 1]);
    let token = check(provider(&[&signer]), &bearing(&signer.token(&claims))).unwrap().token.unwrap();
    let path = |path: &[&str]| path.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let expected: BTreeMap<_, _> = [
        (path(&["iss"]), path(&[ISSUER])),
        (path(&["sub"]), path(&["alice"])),
        (path(&["aud"]), path(&["shop", "other"])),
        (path(&["azp"]), path(&["web"])),
        (path(&["groups"]), path(&["a", "b"])),
        (path(&["mixed"]), path(&["d"])),
        (path(&["realm", "roles"]), path(&["c"])),
        (path(&["scope"]), path(&["read", "write"])),
    ]
    .into();
    let Token { issuer, subject, presenters, audiences, claims } = token;
    assert_eq!((&*issuer, &*subject, presenters), (ISSUER, "alice", path(&["web"])));
    assert_eq!((audiences, claims), (path(&["shop", "other"]), expected));
}

#[test]
fn a_token_that_says_something_else_than_it_must_is_refused() {
    let signer = Signer::ed25519("a");
    let nested = |depth| (0..depth).fold(json!("x"), |inner, _| json!({ "a": inner }));
    let cases = [
        ("as it must be", claims(), None),
        ("expired", but("exp", json!(NOW - 60)), Some(Refusal::Expired)),
        ("expired within the skew of clocks", but("exp", json!(NOW - 59)), None),
        ("expired, in fractions", but("exp", json!(NOW as f64 - 60.5)), Some(Refusal::Expired)),
        ("an expiry that is no number", but("exp", json!("2100")), Some(Refusal::Malformed)),
        ("an expiry of null", but("exp", Value::Null), Some(Refusal::Malformed)),
        ("not yet valid", but("nbf", json!(NOW + 61)), Some(Refusal::NotYetValid)),
        ("not yet valid within the skew of clocks", but("nbf", json!(NOW + 60)), None),
        ("another audience", but("aud", json!("cart")), Some(Refusal::WrongAudience)),
        ("no audience", but("aud", json!([])), Some(Refusal::WrongAudience)),
        ("an audience that is no text", but("aud", json!(["shop", 1])), Some(Refusal::Malformed)),
        ("the audience alone", but("aud", json!("shop")), None),
        ("another issuer", but("iss", json!("https://evil.example")), Some(Refusal::UnknownIssuer)),
        ("an issuer that is no text", but("iss", json!([ISSUER])), Some(Refusal::UnknownIssuer)),
        ("claims as deep as may be", but("x", nested(DEPTH_MAX)), None),
        ("claims too deep", but("x", nested(DEPTH_MAX + 1)), Some(Refusal::TooManyClaims)),
        ("too many claims", but("x", json!(vec![1; CLAIMS_MAX])), Some(Refusal::TooManyClaims)),
        ("claims that are no object", json!(["iss"]), Some(Refusal::Malformed)),
    ];
    for (name, claims, expected) in cases {
        assert_eq!(refused(provider(&[&signer]), &signer.token(&claims)), expected, "{name}");
    }
}

#[test]
fn a_token_without_an_end_is_believed_and_told_apart() {
    let signer = Signer::ed25519("a");
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    for (claims, expected) in [(claims(), false), (endless, true)] {
        let accepted = check(provider(&[&signer]), &bearing(&signer.token(&claims))).unwrap();
        assert_eq!(accepted.is_endless, expected, "{claims}");
    }
}

#[test]
fn a_token_that_nobody_of_the_issuer_signed_is_refused() {
    let (signer, stranger) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let header = |header: Value| signer.with_header(&header, &claims());
    let (message, signature) = {
        let token = signer.token(&claims());
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.to_owned(), signature.to_owned())
    };
    let (head, payload) = message.split_once('.').unwrap();
    let root = encode(but("sub", json!("root")).to_string());
    let cases = [
        ("another key of the same id", stranger.token(&claims()), Refusal::Signature),
        ("another payload", format!("{head}.{root}.{signature}"), Refusal::Signature),
        ("no signature", format!("{message}."), Refusal::Signature),
        ("an unknown key", header(json!({"alg": "EdDSA", "kid": "z"})), Refusal::UnknownKey),
        ("an algorithm the key is not for", header(json!({"alg": "ES256", "kid": "a"})), Refusal::UnknownKey),
        ("none", format!("{}.{payload}.", encode(r#"{"alg":"none"}"#)), Refusal::Algorithm),
        ("NONE", format!("{}.{payload}.", encode(r#"{"alg":"NONE"}"#)), Refusal::Algorithm),
        ("a critical extension", header(json!({"alg": "EdDSA", "crit": ["b64"]})), Refusal::Critical),
        ("no algorithm", header(json!({"kid": "a"})), Refusal::Malformed),
        ("a cut token", message.clone(), Refusal::Malformed),
        ("a token of five parts", format!("{message}.{payload}.{signature}"), Refusal::Malformed),
        ("padding", format!("{head}.{payload}==.{signature}"), Refusal::Malformed),
        ("garbage", "!!!.???.###".to_owned(), Refusal::Malformed),
        ("a word", "token".to_owned(), Refusal::Malformed),
        ("a header that is no JSON", format!("{}.{payload}.{signature}", encode("{")), Refusal::Malformed),
        ("a huge token", signer.token(&but("x", json!("y".repeat(TOKEN_BYTES_MAX)))), Refusal::TooLong),
    ];
    for (name, token, expected) in cases {
        assert_eq!(refused(provider(&[&signer]), &token), Some(expected), "{name}");
    }
}

#[test]
fn a_public_key_never_serves_as_a_shared_secret() {
    let signer = Signer::rsa("a", "RS256", &signature::RSA_PKCS1_SHA256);
    let message = format!("{}.{}", encode(r#"{"alg":"HS256","kid":"a"}"#), encode(claims().to_string()));
    let jwks = provider(&[&signer]).jwks.unwrap();
    let modulus = signer.jwk["n"].as_str().unwrap();
    let decoded = URL_SAFE_NO_PAD.decode(modulus).unwrap();
    for secret in [decoded.as_slice(), modulus.as_bytes(), jwks.as_bytes(), signer.jwk.to_string().as_bytes()]
    {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let token = format!("{message}.{}", encode(tag));
        assert_eq!(refused(provider(&[&signer]), &token), Some(Refusal::Algorithm));
    }
    // Not even if the issuer publishes a shared secret.
    let mut shared = provider(&[&signer]);
    shared.jwks =
        Some(json!({"keys": [{"kty": "oct", "alg": "HS256", "k": encode("secret")}]}).to_string().into());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), message.as_bytes());
    assert_eq!(refused(shared.clone(), &format!("{message}.{}", encode(tag))), Some(Refusal::Algorithm));
    assert_eq!(Validator::new(&[shared]).unusable().next().unwrap().1, &UnusableKeys::NoneUsable);
}

#[test]
fn keys_that_cannot_be_read_refuse_every_token_and_only_tokens() {
    let signer = Signer::ed25519("a");
    let keys = |text: &str| JwtProvider { jwks: Some(text.into()), ..provider(&[]) };
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk.clone();
        jwk[name] = value;
        keys(&json!({ "keys": [jwk] }).to_string())
    };
    let many = vec![&signer; keys::KEYS_MAX + 1];
    let cases = [
        ("not fetched", JwtProvider { jwks: None, ..provider(&[]) }, "could not be fetched"),
        ("no JSON", keys("<html>"), "not a JWK set"),
        ("no set", keys("[]"), "not a JWK set"),
        ("no keys", keys(r#"{"keys":[]}"#), "none of its keys"),
        ("too many keys", provider(&many), "33 keys"),
        ("a key for encryption", with("use", json!("enc")), "none of its keys"),
        ("a key for signing alone", with("key_ops", json!(["sign"])), "none of its keys"),
        ("a key of another algorithm", with("alg", json!("ES256")), "none of its keys"),
        ("a key of an unknown curve", with("crv", json!("P-521")), "none of its keys"),
        ("a key that is cut", with("x", json!("!")), "none of its keys"),
    ];
    for (name, provider, expected) in cases {
        let validator = Validator::new(&[provider]);
        let reason = validator.unusable().next().unwrap().1.to_string();
        assert!(reason.contains(expected), "{name}: {reason}");
        let with_token = bearing(&signer.token(&claims()));
        assert_eq!(validator.check(&RequestHead::from(&with_token), now()), Err(Refusal::NoKeys), "{name}");
        assert_eq!(
            validator.check(&RequestHead::from(&request(&[])), now()),
            Ok(Accepted::default()),
            "{name}"
        );
    }
}

#[test]
fn a_key_that_is_not_understood_is_passed_over() {
    let signer = Signer::ed25519("a");
    let odd = json!({"kty": "EC", "crv": "P-521", "x": 1, "kid": ["b"]});
    let mut provider = provider(&[]);
    provider.jwks = Some(json!({ "keys": [odd, signer.jwk] }).to_string().into());
    assert_eq!(refused(provider, &signer.token(&claims())), None);
}

#[test]
fn the_issuer_chooses_the_provider_and_only_one_that_looks_there() {
    let (signer, other) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let elsewhere = JwtProvider {
        issuer: "https://other.example".into(),
        locations: vec![TokenLocation::Header { name: "x-token".into(), prefix: "".into() }],
        ..provider(&[&other])
    };
    let validator = Validator::new(&[provider(&[&signer]), elsewhere]);
    let check = |name: &str, token: &str| {
        let request = request(&[(name, token)]);
        validator.check(&RequestHead::from(&request), now()).map(|accepted| accepted.token.unwrap().issuer)
    };
    let of_other = other.token(&but("iss", json!("https://other.example")));
    let of_first = signer.token(&claims());
    assert_eq!(check("x-token", &of_other).as_deref(), Ok("https://other.example"));
    assert_eq!(check("authorization", &format!("Bearer {of_first}")).as_deref(), Ok(ISSUER));
    assert_eq!(check("authorization", &format!("Bearer {of_other}")), Err(Refusal::UnknownIssuer));
    assert_eq!(check("x-token", &of_first), Err(Refusal::UnknownIssuer));
    // Signed by one issuer in the name of the other.
    let forged = signer.token(&but("iss", json!("https://other.example")));
    assert_eq!(check("x-token", &forged), Err(Refusal::UnknownKey));
}

#[test]
fn of_two_providers_of_one_issuer_either_may_accept() {
    let (old, new) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let validator = Validator::new(&[provider(&[&old]), provider(&[&new])]);
    for signer in [&old, &new] {
        assert!(validator.check(&RequestHead::from(&bearing(&signer.token(&claims()))), now()).is_ok());
    }
}

#[test]
fn different_tokens_in_one_request_are_refused_though_each_holds() {
    let signer = Signer::ed25519("a");
    let (one, two) = (signer.token(&claims()), signer.token(&but("sub", json!("bob"))));
    let both =
        request(&[("authorization", &format!("Bearer {one}")), ("authorization", &format!("Bearer {two}"))]);
    assert_eq!(check(provider(&[&signer]), &both), Err(Refusal::SeveralTokens));
}

#[test]
fn headers_that_only_a_token_may_fill_are_cleared_and_filled() {
    let signer = Signer::ed25519("a");
    let claim = |header: &str, claim: &str| ClaimHeader { header: header.into(), claim: claim.into() };
    let provider = JwtProvider {
        forward: false,
        payload_header: Some("x-payload".into()),
        claim_headers: vec![
            claim("x-sub", "sub"),
            claim("x-level", "realm.level"),
            claim("x-role", "https://a.b/role"),
            claim("x-list", "aud"),
            claim("x-split", "evil"),
            claim("x-missing", "missing"),
            claim("content-length", "sub"),
        ],
        ..provider(&[&signer])
    };
    let claimed = ["x-payload", "x-sub", "x-level", "x-role", "x-list", "x-split", "x-missing"];
    let mut spoofed: Vec<_> = claimed.iter().map(|name| (*name, "spoofed")).collect();
    spoofed.push(("content-length", "3"));

    let mut without = request(&spoofed);
    for edit in check(provider.clone(), &without).unwrap().edits {
        edit.apply(&mut without);
    }
    assert_eq!(without.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-length"]);

    let mut claims = but("realm", json!({"level": 7}));
    claims["https://a.b/role"] = json!("admin");
    claims["evil"] = json!("a\r\nb: c");
    let token = signer.token(&claims);
    let authorization = format!("Bearer {token}");
    spoofed.push(("authorization", &authorization));
    let mut with = request(&spoofed);
    for edit in check(provider, &with).unwrap().edits {
        edit.apply(&mut with);
    }
    let mut left: Vec<_> = with.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    left.sort_unstable();
    let payload = token.split('.').nth(1).unwrap();
    let expected = [
        ("content-length", "3"),
        ("x-level", "7"),
        ("x-payload", payload),
        ("x-role", "admin"),
        ("x-sub", "alice"),
    ];
    assert_eq!(left, expected);
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_the_validator_and_none_are_a_token(
        token in "[!-~]{0,60}",
        parts in proptest::collection::vec("[ -~]{0,20}", 3),
        jwks in ".{0,60}",
    ) {
        let signer = Signer::ed25519("a");
        let validator = Validator::new(&[provider(&[&signer]), JwtProvider { jwks: Some(jwks.into()), ..provider(&[]) }]);
        let encoded: Vec<_> = parts.iter().map(encode).collect();
        for token in [token, encoded.join("."), signer.signed(&encoded[..2].join("."))] {
            let accepted = validator.check(&RequestHead::from(&bearing(&token)), now());
            proptest::prop_assert!(accepted.is_err() || token.is_empty(), "{}", token);
        }
    }
}

#[test]
fn a_header_for_claims_is_taken_away_from_clients_in_every_spelling() {
    for (one, other, expected) in [
        ("x-user", "x-user", true),
        ("x_user", "x-user", true),
        ("x-user_id", "x_user-id", true),
        ("x-users", "x-user", false),
        ("xuser", "x-user", false),
    ] {
        let (one, other) = (HeaderName::from_static(one), HeaderName::from_static(other));
        assert_eq!(reads_as(&one, &other), expected, "{one} {other}");
    }
}
