//! SPIFFE ids in the format of the mesh: `spiffe://<trust domain>/ns/<namespace>/sa/<service
//! account>`.
//!
//! Invariant: no part of a parsed [`Spiffe`] is empty or contains `/`, NUL, white space or a
//! control character.

use std::{fmt, str::FromStr, sync::Arc};

/// A workload identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spiffe {
    /// Trust domain, e.g. `cluster.local`.
    pub trust_domain: Arc<str>,
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Kubernetes service account.
    pub service_account: Arc<str>,
}

/// The string is not a SPIFFE id of this mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct InvalidSpiffe(pub String);

impl fmt::Display for Spiffe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for Spiffe {
    type Err = InvalidSpiffe;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffe> {
        let invalid = || InvalidSpiffe(text.to_owned());
        let path = text.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [domain, "ns", namespace, "sa", account]
                if [domain, namespace, account].iter().all(|p| is_part(p)) =>
            {
                Ok(Self {
                    trust_domain: (*domain).into(),
                    namespace: (*namespace).into(),
                    service_account: (*account).into(),
                })
            }
            _ => Err(invalid()),
        }
    }
}

/// SPIFFE-ID 2.1 and 2.2: letters, digits, dots, dashes and underscores.
fn is_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_and_nothing_else() {
        let id = "spiffe://cluster.local/ns/shop/sa/cart";
        assert_eq!(id.parse::<Spiffe>().unwrap().to_string(), id);
        for bad in [
            "",
            "spiffe://",
            "spiffe://td/ns/a/sa/",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/sa/b\0",
            "spiffe://td/ns/a b/sa/c",
            "SPIFFE://td/ns/a/sa/b",
            "https://td/ns/a/sa/b",
        ] {
            assert_eq!(bad.parse::<Spiffe>(), Err(InvalidSpiffe(bad.to_owned())), "{bad:?}");
        }
    }
}
