use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::authentication::v1::UserInfo;

use super::*;

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

/// A JWT that ends at second 1,000 and is 'signed' by nobody.
const UNTIL_1000: &str = "e30.eyJleHAiOjEwMDB9.x";

fn authenticator(seconds: u64) -> (Authenticator, Arc<AtomicUsize>) {
    let reviews = Arc::new(AtomicUsize::new(0));
    let reviewer = Reviewer { status: vouched(), reviews: reviews.clone() };
    let clock: Clock = Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds));
    (Authenticator::new(reviewer, clock), reviews)
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
    let request = metadata(&format!("Bearer {UNTIL_1000}"));
    for _ in 0..5 {
        let caller = authenticator.caller(&request).await.unwrap();
        assert_eq!(caller.expires, Some(UNIX_EPOCH + Duration::from_secs(1000)));
    }
    assert_eq!(reviews.load(Ordering::SeqCst), 1);
    tokio::time::advance(CACHE_TIME_MAX).await;
    authenticator.caller(&request).await.unwrap();
    assert_eq!(reviews.load(Ordering::SeqCst), 2);

    let (late, _) = self::authenticator(1001);
    assert_eq!(late.caller(&request).await.unwrap_err().code(), tonic::Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_ends_with_the_token() {
    let (authenticator, reviews) = authenticator(990);
    let request = metadata(&format!("Bearer {UNTIL_1000}"));
    authenticator.caller(&request).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    authenticator.caller(&request).await.unwrap();
    assert_eq!(reviews.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_without_a_usable_token_is_not_even_reviewed() {
    let (authenticator, reviews) = authenticator(0);
    let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
    for request in [MetadataMap::new(), metadata("Basic x"), metadata(&long)] {
        assert_eq!(authenticator.caller(&request).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    }
    assert_eq!(reviews.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn remembers_no_more_tokens_than_its_limit() {
    let (authenticator, _) = authenticator(0);
    for number in 0..=CACHE_ENTRIES_MAX {
        authenticator.caller(&metadata(&format!("Bearer {number}"))).await.unwrap();
    }
    assert_eq!(authenticator.lock().len(), CACHE_ENTRIES_MAX);
    assert!(!format!("{authenticator:?}").contains("Bearer"));
}
