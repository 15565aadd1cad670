//! Who a bearer token belongs to, as the API server says.
//!
//! Invariant: a token is believed only for [`TOKEN_AUDIENCE`], never longer than it is valid, and at most
//! [`CACHE_TIME_MAX`] after the API server vouched for it. Tokens are kept only as hashes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ambit_identity::Clock;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tonic::{Status, metadata::MetadataMap};

use crate::names::TOKEN_AUDIENCE;

/// How long the API server's word is taken for.
pub const CACHE_TIME_MAX: Duration = Duration::from_secs(60);
/// Tokens remembered at a time.
pub const CACHE_ENTRIES_MAX: usize = 4096;
/// Reviews under way at a time.
pub const REVIEWS_MAX: usize = 32;
/// How long a review may take, waiting for its turn included.
pub const REVIEW_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest token looked at.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Who calls, as far as the token says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the service account.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
    /// Pod the token is bound to.
    pub pod: Option<CallerPod>,
    /// Node that pod is bound to.
    pub node: Option<Arc<str>>,
    /// When the token ends.
    pub expires: Option<SystemTime>,
}

/// The pod a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPod {
    /// Name, in the namespace of the service account.
    pub name: Arc<str>,
    /// Kubernetes uid.
    pub uid: Arc<str>,
}

impl Caller {
    /// Whether this is the given account of the mesh's own namespace.
    pub fn is_system(&self, service_account: &str) -> bool {
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

/// Asks the API server about a token.
pub trait TokenReviewer: Send + Sync + 'static {
    /// What the API server says.
    fn review(&self, token: String) -> BoxFuture<'_, Result<TokenReviewStatus, kube::Error>>;
}

/// The API server.
#[derive(Clone)]
pub struct KubeReviewer(Api<TokenReview>);

impl KubeReviewer {
    /// Reviews through this client.
    pub fn new(client: Client) -> Self {
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

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBelieved {
    /// No `authorization: Bearer`.
    #[error("the request carries no bearer token")]
    Missing,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// The API server says no.
    #[error("the API server does not accept the token: {0}")]
    Refused(String),
    /// Made for someone else.
    #[error("the token is not meant for audience {TOKEN_AUDIENCE}")]
    Audience,
    /// Not a service account.
    #[error("{0:?} is not a service account")]
    Account(String),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// The API server cannot be asked.
    #[error("the token cannot be reviewed now: {0}")]
    Unavailable(String),
}

impl From<NotBelieved> for Status {
    fn from(reason: NotBelieved) -> Self {
        match reason {
            NotBelieved::Unavailable(_) => Self::unavailable("tokens cannot be reviewed now, try again"),
            NotBelieved::Missing
            | NotBelieved::TooLong
            | NotBelieved::Refused(_)
            | NotBelieved::Audience
            | NotBelieved::Account(_)
            | NotBelieved::Expired => Self::unauthenticated("the token was not accepted"),
        }
    }
}

type TokenHash = [u8; 32];

/// Turns tokens into callers.
pub struct Authenticator {
    reviewer: Box<dyn TokenReviewer>,
    clock: Clock,
    reviews: Semaphore,
    believed: Mutex<HashMap<TokenHash, Believed>>,
}

#[derive(Clone)]
struct Believed {
    caller: Arc<Caller>,
    until: Instant,
}

impl Authenticator {
    /// Asks `reviewer`; `clock` tells whether a token has ended.
    pub fn new(reviewer: impl TokenReviewer, clock: Clock) -> Self {
        let reviews = Semaphore::new(REVIEWS_MAX);
        Self { reviewer: Box::new(reviewer), clock, reviews, believed: Mutex::default() }
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// UNAUTHENTICATED, or UNAVAILABLE when the API server cannot be asked; the reason is logged here.
    pub async fn caller(&self, metadata: &MetadataMap) -> Result<Arc<Caller>, Status> {
        let believed = match bearer(metadata) {
            Ok(token) => self.believe(token).await,
            Err(reason) => Err(reason),
        };
        believed.map_err(|reason| {
            tracing::warn!(%reason, "A caller could not be authenticated");
            reason.into()
        })
    }

    async fn believe(&self, token: &str) -> Result<Arc<Caller>, NotBelieved> {
        let hash: TokenHash = Sha256::digest(token).into();
        if let Some(caller) = self.remembered(&hash) {
            return Ok(caller);
        }
        let review = async {
            // Never closed; without a permit the review goes on all the same.
            let _permit = self.reviews.acquire().await;
            if let Some(caller) = self.remembered(&hash) {
                return Ok(caller);
            }
            let unavailable = |error: kube::Error| NotBelieved::Unavailable(error.to_string());
            let status = self.reviewer.review(token.to_owned()).await.map_err(unavailable)?;
            let mut caller = caller(&status)?;
            caller.expires = expiry(token);
            self.remember(hash, caller)
        };
        let elapsed = || NotBelieved::Unavailable(format!("no answer within {REVIEW_TIME_MAX:?}"));
        timeout(REVIEW_TIME_MAX, review).await.unwrap_or_else(|_| Err(elapsed()))
    }

    fn remembered(&self, hash: &TokenHash) -> Option<Arc<Caller>> {
        let now = Instant::now();
        self.lock().get(hash).filter(|believed| believed.until > now).map(|believed| believed.caller.clone())
    }

    fn remember(&self, hash: TokenHash, caller: Caller) -> Result<Arc<Caller>, NotBelieved> {
        let left = match caller.expires {
            Some(expires) => expires.duration_since((self.clock)()).map_err(|_| NotBelieved::Expired)?,
            None => CACHE_TIME_MAX,
        };
        let now = Instant::now();
        let caller = Arc::new(caller);
        let mut believed = self.lock();
        if believed.len() >= CACHE_ENTRIES_MAX {
            believed.retain(|_, entry| entry.until > now);
        }
        if believed.len() >= CACHE_ENTRIES_MAX {
            let soonest = believed.iter().min_by_key(|(_, entry)| entry.until).map(|(hash, _)| *hash);
            soonest.map(|hash| believed.remove(&hash));
        }
        believed.insert(hash, Believed { caller: caller.clone(), until: now + left.min(CACHE_TIME_MAX) });
        Ok(caller)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, Believed>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The caller that a review vouches for; when the token ends is not part of it.
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
        // One value, or none that could be believed.
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

/// The `exp` claim of a JWT. Read only after the API server has accepted the token, so nothing is verified here.
fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = base64url(token.split('.').nth(1)?)?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

/// RFC 4648 section 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut buffer) = (0u32, 0u32);
    for symbol in text.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        buffer = (buffer << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
