//! The keys of an issuer (RFC 7517), and signature verification.
//!
//! Invariant: a key verifies only algorithms of its own kind, so a public key can never be used as
//! a shared secret. Symmetric keys are ignored.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use crate::{Refusal, claims::decode, limits::TOKEN_BYTES_MAX};

/// Keys per issuer; a token without `kid` is tried with all that fit.
pub(crate) const KEYS_MAX: usize = 32;

/// Public keys for signatures.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why every token of an issuer is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKeys {
    /// The key set was not fetched.
    #[error("its keys could not be fetched")]
    Missing,
    /// Not a key set.
    #[error("its keys are not a JWK set (RFC 7517 §5): {0}")]
    Malformed(String),
    /// More keys than the limit.
    #[error("it has {0} keys, and at most {KEYS_MAX} are taken")]
    TooMany(usize),
    /// No key can verify signatures.
    #[error("none of its keys is a public RSA, P-256, P-384 or Ed25519 key for signatures")]
    NoneUsable,
}

/// Checks that a key set contains usable keys.
///
/// # Errors
/// Why every token of its issuer would be rejected.
pub fn check_keys(jwks: &str) -> Result<(), UnusableKeys> {
    KeySet::parse(Some(jwks)).map(drop)
}

/// The parts of a token, before verification.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    /// Header and payload, as signed.
    message: &'a str,
    signature: &'a str,
    /// The encoded payload.
    pub(crate) payload: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<serde_json::Value>,
}

impl<'a> Signed<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Refusal::Malformed)?;
        if payload.contains('.') {
            return Err(Refusal::Malformed);
        }
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Malformed)?;
        if header.crit.is_some() {
            return Err(Refusal::Critical);
        }
        let algorithm = algorithm(&header.alg).ok_or(Refusal::Algorithm)?;
        Ok(Self { message, signature, payload, algorithm, key_id: header.kid })
    }
}

impl KeySet {
    pub(crate) fn parse(jwks: Option<&str>) -> Result<Self, UnusableKeys> {
        let text = jwks.ok_or(UnusableKeys::Missing)?;
        let Keys { keys } =
            serde_json::from_str(text).map_err(|error| UnusableKeys::Malformed(error.to_string()))?;
        if keys.len() > KEYS_MAX {
            return Err(UnusableKeys::TooMany(keys.len()));
        }
        // RFC 7517 §5: unknown keys are ignored.
        let usable: Vec<_> =
            keys.into_iter().filter_map(|key| Key::parse(serde_json::from_value(key).ok()?)).collect();
        if usable.is_empty() { Err(UnusableKeys::NoneUsable) } else { Ok(Self(usable)) }
    }

    pub(crate) fn verify(&self, signed: &Signed<'_>) -> Result<(), Refusal> {
        let fits = |key: &&Key| {
            let named = key.id.is_none() || signed.key_id.is_none() || key.id == signed.key_id;
            named && key.algorithms.contains(&signed.algorithm)
        };
        let mut refusal = Refusal::UnknownKey;
        for Key { key, .. } in self.0.iter().filter(fits) {
            match jsonwebtoken::crypto::verify(
                signed.signature,
                signed.message.as_bytes(),
                key,
                signed.algorithm,
            ) {
                Ok(true) => return Ok(()),
                Ok(false) | Err(_) => refusal = Refusal::Signature,
            }
        }
        Err(refusal)
    }
}

impl Key {
    fn parse(key: Jwk) -> Option<Self> {
        let signs = match &key.common.public_key_use {
            None | Some(PublicKeyUse::Signature) => true,
            Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => false,
        };
        let verifies =
            key.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let mut algorithms = algorithms(&key.algorithm);
        if let Some(only) = key.common.key_algorithm {
            algorithms.retain(|algorithm| only == (*algorithm).into());
        }
        if !signs || !verifies || algorithms.is_empty() {
            return None;
        }
        Some(Self { id: key.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(&key).ok()? })
    }
}

/// Algorithms that a key can verify: none for symmetric keys, other curves, and unknown kinds.
fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    if let AlgorithmParameters::RSA(_) = parameters {
        return vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ];
    }
    let of_curve = if let AlgorithmParameters::EllipticCurve(key) = parameters {
        [(EllipticCurve::P256, Algorithm::ES256), (EllipticCurve::P384, Algorithm::ES384)]
            .into_iter()
            .find(|(curve, _)| *curve == key.curve)
            .map(|(_, algorithm)| algorithm)
    } else if let AlgorithmParameters::OctetKeyPair(key) = parameters {
        (key.curve == EllipticCurve::Ed25519).then_some(Algorithm::EdDSA)
    } else {
        None
    };
    of_curve.into_iter().collect()
}

/// Only asymmetric signatures: neither `none` nor shared secrets.
fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "RS384" => Some(Algorithm::RS384),
        "RS512" => Some(Algorithm::RS512),
        "PS256" => Some(Algorithm::PS256),
        "PS384" => Some(Algorithm::PS384),
        "PS512" => Some(Algorithm::PS512),
        "ES256" => Some(Algorithm::ES256),
        "ES384" => Some(Algorithm::ES384),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}
