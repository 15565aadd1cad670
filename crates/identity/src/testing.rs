//! A certificate authority in memory, for tests of this and of other crates.
//!
//! It signs for anyone who asks: never use it outside of tests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_model::Spiffe;

use crate::{Authority, Clock, Error, PrivateKey, SourceError, Svid, manager::Source, request::csr};

/// A day, as the mesh's certificates live.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const CA_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Signs at once, in this process.
#[derive(Clone, Debug)]
pub struct FakeCa {
    /// To sign other things, or to read the roots.
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
    /// A new root of its own, certificates of a day, the system's time.
    pub fn new(trust_domain: &str) -> Result<Self, Error> {
        Self::with_clock(trust_domain, TTL, Arc::new(SystemTime::now))
    }

    /// With another lifetime of certificates and another clock.
    pub fn with_clock(trust_domain: &str, ttl: Duration, clock: Clock) -> Result<Self, Error> {
        let authority = Arc::new(Authority::self_signed(trust_domain, CA_TTL, (clock)())?);
        Ok(Self { authority, clock: Time(clock), ttl })
    }

    /// A certificate in use.
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
        // Yields once, as a call over the network does.
        tokio::task::yield_now().await;
        signed.map_err(|e| SourceError::Local(e.to_string()))
    }
}
