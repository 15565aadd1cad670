//! Authentication of bearer tokens by TokenReview.
//!
//! Invariant: a token is accepted only for [`TOKEN_AUDIENCE`], never longer than it is valid, and
//! at most [`CACHE_TIME_MAX`] after the API server confirmed it. Tokens are stored only as hashes.
//! Tokens that cannot be valid are not sent to the API server, and callers with only valid tokens
//! never wait behind others.

mod lanes;
mod not_believed;
mod token;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use ambit_identity::{Clock, server::Peer};
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use tonic::{Extensions, Status, metadata::MetadataMap};

use self::{
    lanes::{Lanes, Shower},
    not_believed::NotBelieved,
};
use crate::names::TOKEN_AUDIENCE;

/// How long the API server's confirmation is cached.
pub(crate) const CACHE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the API server's rejection is cached.
pub(crate) const REFUSED_TIME: Duration = Duration::from_secs(10);
/// Number of cached tokens.
pub(crate) const CACHE_ENTRIES_MAX: usize = 4096;
/// How long a review may take, waiting included.
pub(crate) const REVIEW_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest token that is considered.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 << 10;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The caller, from its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Namespace of the service account.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
    /// Pod that the token is bound to.
    pub pod: Option<CallerPod>,
    /// Node that the pod is bound to.
    pub node: Option<Arc<str>>,
    /// Expiry of the token.
    pub expires: Option<SystemTime>,
}

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallerPod {
    /// Name, in the namespace of the service account.
    pub name: Arc<str>,
    /// Kubernetes uid.
    pub uid: Arc<str>,
}

impl Caller {
    /// Whether this is the given account in the mesh's own namespace.
    pub(crate) fn is_system(&self, service_account: &str) -> bool {
        &*self.namespace == ambit_api::labels::SYSTEM_NAMESPACE && &*self.service_account == service_account
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pod = self.pod.as_ref().map_or("?", |pod| &pod.name);
        let node = self.node.as_deref().unwrap_or("?");
        write!(f, "{}/{} (pod {pod}, node {node})", self.namespace, self.service_account)
    }
}

/// Reviews tokens.
pub(crate) trait TokenReviewer: Send + Sync + 'static {
    /// The API server's result for a token.
    fn review(&self, token: String) -> BoxFuture<'_, Result<TokenReviewStatus, kube::Error>>;
}

/// Reviews by the API server.
#[derive(Clone)]
pub(crate) struct KubeReviewer(Api<TokenReview>);

impl KubeReviewer {
    /// Uses this client.
    pub(crate) fn new(client: Client) -> Self {
        Self(Api::all(client))
    }
}

impl TokenReviewer for KubeReviewer {
    fn review(&self, token: String) -> BoxFuture<'_, Result<TokenReviewStatus, kube::Error>> {
        let spec = TokenReviewSpec { audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]), token };
        let review = TokenReview { spec, ..TokenReview::default() };
        Box::pin(async move {
            let reviewed = self.0.create(&PostParams::default(), &review).await?;
            Ok(reviewed.status.unwrap_or_default())
        })
    }
}

/// Metrics of rejected callers.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerMetrics {
    refused: Family<Reason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl CallerMetrics {
    /// Registers `ambit_callers_refused_total{reason}`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Calls whose token was rejected, by reason";
        registry.register("ambit_callers_refused", help, self.refused.clone());
    }
}

type TokenHash = [u8; 32];

/// Authenticates callers by their tokens.
pub(crate) struct Authenticator {
    reviewer: Box<dyn TokenReviewer>,
    clock: Clock,
    lanes: Lanes,
    remembered: Mutex<HashMap<TokenHash, Remembered>>,
    metrics: CallerMetrics,
}

#[derive(Clone)]
struct Remembered {
    said: Result<Arc<Caller>, NotBelieved>,
    until: Instant,
}

impl Authenticator {
    /// Reviews with `reviewer`; `clock` is used for expiry.
    pub(crate) fn new(reviewer: impl TokenReviewer, clock: Clock, metrics: CallerMetrics) -> Self {
        let (lanes, remembered) = (Lanes::new(), Mutex::default());
        Self { reviewer: Box::new(reviewer), clock, lanes, remembered, metrics }
    }

    /// The caller of a request. `extensions` contain its connection.
    ///
    /// # Errors
    /// UNAUTHENTICATED, RESOURCE_EXHAUSTED, or UNAVAILABLE when the API server cannot be reached.
    /// The reason is counted, and logged if a review took place.
    pub(crate) async fn caller(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Arc<Caller>, Status> {
        let peer = extensions.get::<Peer>();
        let believed = match bearer(metadata) {
            Ok(token) => self.believe(token, peer).await,
            Err(reason) => Err(reason),
        };
        let believed = believed.and_then(|caller| match peer.is_none_or(Peer::set_authenticated) {
            true => Ok(caller),
            false => Err(NotBelieved::Crowded),
        });
        believed.map_err(|reason| {
            self.metrics.refused.get_or_create(&Reason { reason: reason.label() }).inc();
            let address = peer.map(Peer::address);
            // Not logged at a higher level, because anyone can cause it at no cost; rejected
            // reviews are.
            tracing::debug!(?address, %reason, "A caller was rejected");
            reason.into()
        })
    }

    async fn believe(&self, token: &str, peer: Option<&Peer>) -> Result<Arc<Caller>, NotBelieved> {
        let hash: TokenHash = Sha256::digest(token).into();
        if let Some(said) = self.remembered(&hash) {
            return said;
        }
        let claims = token::claims(token, (self.clock)())?;
        // Connections without an address share one budget.
        let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), Peer::address);
        let shower = Shower { address, is_known: peer.is_some_and(Peer::is_known) };
        let review = async {
            let turn = self.lanes.turn(shower, &claims.issuer, Instant::now()).await?;
            if let Some(said) = self.remembered(&hash) {
                return said;
            }
            let unavailable = |error: kube::Error| {
                tracing::warn!(%address, %error, "A token cannot be reviewed");
                NotBelieved::Unavailable(error.to_string())
            };
            let status = self.reviewer.review(token.to_owned()).await.map_err(unavailable)?;
            let expires = claims.expires;
            let said = caller(&status).map(|caller| Arc::new(Caller { expires: Some(expires), ..caller }));
            let said = self.remember(hash, said, expires);
            match &said {
                Ok(_) => turn.believed(&claims.issuer),
                Err(reason) => {
                    tracing::warn!(%address, %reason, "A caller could not be authenticated");
                    turn.refused(Instant::now());
                }
            }
            said
        };
        let elapsed = || {
            tracing::warn!(%address, waited = ?REVIEW_TIME_MAX, "A token was not reviewed in time");
            NotBelieved::Unavailable(format!("no answer within {REVIEW_TIME_MAX:?}"))
        };
        timeout(REVIEW_TIME_MAX, review).await.unwrap_or_else(|_| Err(elapsed()))
    }

    fn remembered(&self, hash: &TokenHash) -> Option<Result<Arc<Caller>, NotBelieved>> {
        let now = Instant::now();
        self.lock().get(hash).filter(|known| known.until > now).map(|known| known.said.clone())
    }

    fn remember(
        &self,
        hash: TokenHash,
        said: Result<Arc<Caller>, NotBelieved>,
        expires: SystemTime,
    ) -> Result<Arc<Caller>, NotBelieved> {
        let left = expires.duration_since((self.clock)()).ok().filter(|left| !left.is_zero());
        let said = said.and_then(|caller| left.map(|_| caller).ok_or(NotBelieved::Expired));
        let time = match &said {
            Ok(_) => left.unwrap_or_default().min(CACHE_TIME_MAX),
            Err(_) => REFUSED_TIME,
        };
        let now = Instant::now();
        let mut remembered = self.lock();
        if remembered.len() >= CACHE_ENTRIES_MAX {
            remembered.retain(|_, entry| entry.until > now);
        }
        if remembered.len() >= CACHE_ENTRIES_MAX {
            let soonest = remembered.iter().min_by_key(|(_, entry)| entry.until).map(|(hash, _)| *hash);
            soonest.map(|hash| remembered.remove(&hash));
        }
        remembered.insert(hash, Remembered { said: said.clone(), until: now + time });
        said
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("remembered", &self.lock().len()).finish_non_exhaustive()
    }
}

fn bearer(metadata: &MetadataMap) -> Result<&str, NotBelieved> {
    let value = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(NotBelieved::Missing)?;
    if token.len() > TOKEN_BYTES_MAX { Err(NotBelieved::TooLong) } else { Ok(token) }
}

/// The caller that a review confirms; the review does not contain the expiry.
fn caller(status: &TokenReviewStatus) -> Result<Caller, NotBelieved> {
    if status.authenticated != Some(true) {
        return Err(NotBelieved::Refused(status.error.clone().unwrap_or_else(|| "not authenticated".into())));
    }
    if !status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(NotBelieved::Audience);
    }
    let user = status.user.as_ref();
    let username = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    let account = username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let is_part = |part: &str| !part.is_empty() && !part.contains(':');
    let Some((namespace, service_account)) = account.filter(|(n, a)| is_part(n) && is_part(a)) else {
        return Err(NotBelieved::Account(username.to_owned()));
    };
    let extra = |key: &str| -> Option<Arc<str>> {
        let values = user?.extra.as_ref()?.get(key)?;
        // A missing or repeated value is not acceptable.
        match values.as_slice() {
            [value] if !value.is_empty() => Some(value.as_str().into()),
            _ => None,
        }
    };
    Ok(Caller {
        namespace: namespace.into(),
        service_account: service_account.into(),
        pod: extra(POD_NAME).zip(extra(POD_UID)).map(|(name, uid)| CallerPod { name, uid }),
        node: extra(NODE_NAME),
        expires: None,
    })
}

#[cfg(test)]
mod tests;
