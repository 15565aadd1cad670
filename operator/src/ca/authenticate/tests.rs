use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::UNIX_EPOCH,
};

use ambit_identity::server::{Slot, Slots};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::json;
use tonic::Code;

use super::{lanes::REFUSALS_MAX, *};
use crate::testing::jwt;

struct Reviewer {
    status: TokenReviewStatus,
    reviews: Arc<AtomicUsize>,
}

impl TokenReviewer for Reviewer {
    fn review(&self, _: String) -> BoxFuture<'_, Result<TokenReviewStatus, kube::Error>> {
        self.reviews.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(self.status.clone())))
    }
}

fn vouched() -> TokenReviewStatus {
    let extra = [(POD_NAME, "z-1"), (POD_UID, "u-1"), (NODE_NAME, "n1")];
    let extra: BTreeMap<_, _> =
        extra.into_iter().map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).collect();
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec![TOKEN_AUDIENCE.into()]),
        error: None,
        user: Some(UserInfo {
            username: Some("system:serviceaccount:ambit-system:ztunnel".into()),
            extra: Some(extra),
            ..UserInfo::default()
        }),
    }
}

fn metadata(value: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", value.parse().unwrap());
    metadata
}

/// A service account token, distinguished by a number.
fn token(number: usize, issuer: &str) -> String {
    let sub = "system:serviceaccount:ambit-system:ztunnel";
    jwt(&json!({"iss": issuer, "sub": sub, "aud": [TOKEN_AUDIENCE], "exp": 1000, "jti": number}))
}

/// A request on a connection.
struct Call {
    metadata: MetadataMap,
    extensions: Extensions,
    _slot: Option<Slot>,
}

impl Call {
    fn new(metadata: MetadataMap) -> Self {
        Self { metadata, extensions: Extensions::default(), _slot: None }
    }

    fn from(slots: &Slots, last: u8, token: &str) -> Self {
        let slot = slots.enter([10, 0, 0, last].into()).unwrap();
        let mut extensions = Extensions::default();
        extensions.insert(slot.peer().clone());
        Self { metadata: bearing(token), extensions, _slot: Some(slot) }
    }

    async fn ask(&self, authenticator: &Authenticator) -> Result<Arc<Caller>, tonic::Code> {
        authenticator.caller(&self.metadata, &self.extensions).await.map_err(|status| status.code())
    }
}

fn bearing(token: &str) -> MetadataMap {
    metadata(&format!("Bearer {token}"))
}

fn authenticator(seconds: u64) -> (Authenticator, Arc<AtomicUsize>) {
    let reviews = Arc::new(AtomicUsize::new(0));
    let reviewer = Reviewer { status: vouched(), reviews: reviews.clone() };
    let clock: Clock = Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds));
    (Authenticator::new(reviewer, clock, CallerMetrics::default()), reviews)
}

#[test]
fn believes_only_service_accounts_vouched_for_this_audience() {
    let with = |change: fn(&mut TokenReviewStatus)| {
        let mut status = vouched();
        change(&mut status);
        caller(&status)
    };
    let user = |status: &mut TokenReviewStatus, name: &str| {
        status.user.as_mut().unwrap().username = Some(name.into());
    };
    let known = caller(&vouched()).unwrap();
    assert!(known.is_system("ztunnel") && !known.is_system("ambit-node-agent"));
    assert_eq!(known.pod, Some(CallerPod { name: "z-1".into(), uid: "u-1".into() }));
    assert_eq!(known.node.as_deref(), Some("n1"));
    assert!(matches!(with(|s| s.authenticated = None), Err(NotBelieved::Refused(_))));
    assert_eq!(with(|s| s.audiences = None), Err(NotBelieved::Audience));
    assert_eq!(with(|s| s.audiences = Some(vec!["api".into()])), Err(NotBelieved::Audience));
    for name in
        ["", "admin", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:b:c"]
    {
        let mut status = vouched();
        user(&mut status, name);
        assert_eq!(caller(&status), Err(NotBelieved::Account(name.into())));
    }
    let doubled = with(|s| {
        let extra = s.user.as_mut().unwrap().extra.as_mut().unwrap();
        extra.get_mut(POD_UID).unwrap().push("u-2".into());
        extra.get_mut(NODE_NAME).unwrap().clear();
    })
    .unwrap();
    assert_eq!((doubled.pod, doubled.node), (None, None), "ambiguous claims are none");
}

#[tokio::test(start_paused = true)]
async fn asks_once_a_minute_and_never_believes_an_ended_token() {
    let (authenticator, reviews) = authenticator(0);
    let call = Call::new(bearing(&token(0, "k8s")));
    for _ in 0..5 {
        let caller = call.ask(&authenticator).await.unwrap();
        assert_eq!(caller.expires, Some(UNIX_EPOCH + Duration::from_secs(1000)));
    }
    assert_eq!(reviews.load(Ordering::SeqCst), 1);
    tokio::time::advance(CACHE_TIME_MAX).await;
    call.ask(&authenticator).await.unwrap();
    assert_eq!(reviews.load(Ordering::SeqCst), 2);

    for seconds in [1000, 1001, 5000] {
        let (late, _) = self::authenticator(seconds);
        assert_eq!(call.ask(&late).await, Err(Code::Unauthenticated), "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_ends_with_the_token() {
    let (authenticator, reviews) = authenticator(990);
    let call = Call::new(bearing(&token(0, "k8s")));
    call.ask(&authenticator).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    call.ask(&authenticator).await.unwrap();
    assert_eq!(reviews.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_no_token_of_a_service_account_is_not_even_reviewed() {
    let (authenticator, reviews) = authenticator(0);
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    for metadata in [MetadataMap::new(), metadata("Basic x"), bearing(&long), bearing("x"), bearing("a.b.c")]
    {
        assert_eq!(Call::new(metadata).ask(&authenticator).await, Err(Code::Unauthenticated));
    }
    assert_eq!(reviews.load(Ordering::SeqCst), 0);
}

/// Accepts only tokens with certain numbers.
struct Choosy(Arc<AtomicUsize>, &'static str);

impl TokenReviewer for Choosy {
    fn review(&self, token: String) -> BoxFuture<'_, Result<TokenReviewStatus, kube::Error>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let is_good = token == self::token(0, self.1);
        Box::pin(std::future::ready(Ok(if is_good { vouched() } else { TokenReviewStatus::default() })))
    }
}

fn choosy(issuer: &'static str) -> (Authenticator, Arc<AtomicUsize>) {
    let reviews = Arc::new(AtomicUsize::new(0));
    let reviewer = Choosy(reviews.clone(), issuer);
    (Authenticator::new(reviewer, Arc::new(|| UNIX_EPOCH), CallerMetrics::default()), reviews)
}

#[tokio::test(start_paused = true)]
async fn thousands_of_forged_tokens_are_few_reviews_and_keep_nobody_out() {
    let (authenticator, reviews) = choosy("k8s");
    let slots = Slots::default();
    for number in 1..5000 {
        let call = Call::from(&slots, 66, &token(number, "k8s"));
        assert!(matches!(
            call.ask(&authenticator).await,
            Err(Code::Unauthenticated | Code::ResourceExhausted)
        ));
    }
    assert_eq!(reviews.load(Ordering::SeqCst), REFUSALS_MAX as usize);
    Call::from(&slots, 1, &token(0, "k8s")).ask(&authenticator).await.unwrap();
    let mut text = String::new();
    let mut registry = Registry::default();
    authenticator.metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("ambit_callers_refused_total{reason=\"too_many_tokens\"} 4991"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_not_reviewed_again_for_a_while() {
    let (authenticator, reviews) = choosy("k8s");
    let slots = Slots::default();
    let call = Call::from(&slots, 1, &token(1, "k8s"));
    for _ in 0..5 {
        assert_eq!(call.ask(&authenticator).await, Err(Code::Unauthenticated));
    }
    assert_eq!(reviews.load(Ordering::SeqCst), 1);
    tokio::time::advance(REFUSED_TIME).await;
    assert_eq!(call.ask(&authenticator).await, Err(Code::Unauthenticated));
    assert_eq!(reviews.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_foreign_issuer_is_refused_unreviewed_once_the_clusters_own_is_known() {
    let (authenticator, reviews) = choosy("k8s");
    let slots = Slots::default();
    Call::from(&slots, 1, &token(0, "k8s")).ask(&authenticator).await.unwrap();
    let foreign = Call::from(&slots, 2, &token(0, "https://elsewhere"));
    assert_eq!(foreign.ask(&authenticator).await, Err(Code::Unauthenticated));
    assert_eq!(reviews.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn remembers_no_more_tokens_than_its_limit() {
    let (authenticator, _) = authenticator(0);
    let slots = Slots::default();
    for number in 0..=CACHE_ENTRIES_MAX {
        Call::from(&slots, 1, &token(number, "k8s")).ask(&authenticator).await.unwrap();
    }
    assert_eq!(authenticator.lock().len(), CACHE_ENTRIES_MAX);
    assert!(!format!("{authenticator:?}").contains("Bearer"));
}
