//! An in-memory certificate authority, for tests of this and other crates.
//!
//! It signs for every requester: never use it outside of tests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_model::Spiffe;

use crate::{Authority, Clock, Error, PrivateKey, SourceError, Svid, manager::Source, request::csr};

/// One day, the lifetime of the mesh's certificates.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const CA_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Signs immediately, in this process.
#[derive(Clone, Debug)]
pub struct FakeCa {
    /// For signing other certificates, or reading the roots.
    pub authority: Arc<Authority>,
    clock: Time,
    ttl: Duration,
}

#[derive(Clone)]
struct Time(Clock);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl FakeCa {
    /// Uses a new root, certificates of one day, and the system clock.
    ///
    /// # Errors
    /// If no key or certificate can be made.
    pub fn new(trust_domain: &str) -> Result<Self, Error> {
        Self::with_clock(trust_domain, TTL, Arc::new(SystemTime::now))
    }

    /// Uses another certificate lifetime and clock.
    ///
    /// # Errors
    /// If no key or certificate can be made.
    pub fn with_clock(trust_domain: &str, ttl: Duration, clock: Clock) -> Result<Self, Error> {
        let authority = Arc::new(Authority::self_signed(trust_domain, CA_TTL, (clock)())?);
        Ok(Self { authority, clock: Time(clock), ttl })
    }

    /// An SVID that is ready for use.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn svid(&self, identity: &Spiffe) -> Result<Arc<Svid>, Error> {
        let now = (self.clock.0)();
        let key = PrivateKey::generate()?;
        let chain = self.authority.sign(&csr(&key, identity)?, identity, self.ttl, now)?;
        Ok(Arc::new(Svid::new(&key, &chain, identity, now)?))
    }
}

impl Source for FakeCa {
    async fn issue(&self, identity: &Spiffe, csr: &str) -> Result<Vec<String>, SourceError> {
        let signed = self.authority.sign(csr, identity, self.ttl, (self.clock.0)());
        // Yields once, as a network call would.
        tokio::task::yield_now().await;
        signed.map_err(|e| SourceError::Local(e.to_string()))
    }
}
