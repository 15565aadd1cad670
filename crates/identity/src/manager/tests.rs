//! Rotation, failures and priorities, with paused time.

use std::{collections::HashMap, sync::Mutex, time::UNIX_EPOCH};

use futures::future::join_all;
use tokio::{sync::Semaphore, task::JoinHandle, time::sleep};

use super::{
    schedule::{BACKOFF_MAX, BACKOFF_MIN},
    *,
};
use crate::testing::FakeCa;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn id(name: &str) -> Spiffe {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
}

/// A wall clock that advances with paused time.
fn clock() -> Clock {
    let (start, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    Arc::new(move || wall + start.elapsed())
}

/// A CA that records its calls and can fail or delay its responses.
#[derive(Clone)]
struct Recorder {
    ca: FakeCa,
    calls: Arc<Mutex<Vec<(Spiffe, Duration)>>>,
    down: Arc<std::sync::atomic::AtomicBool>,
    answers: Arc<Semaphore>,
    began: Instant,
}

impl Source for Recorder {
    async fn issue(&self, identity: &Spiffe, csr: &str) -> Result<Vec<String>, SourceError> {
        self.calls.lock().unwrap().push((identity.clone(), self.began.elapsed()));
        self.answers.acquire().await.unwrap().forget();
        if self.down.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(SourceError::Call { code: tonic::Code::Unavailable, message: "down".to_owned() });
        }
        self.ca.issue(identity, csr).await
    }
}

impl Recorder {
    fn set_down(&self, down: bool) {
        self.down.store(down, std::sync::atomic::Ordering::Relaxed);
    }

    fn called(&self) -> Vec<Spiffe> {
        self.calls.lock().unwrap().iter().map(|(identity, _)| identity.clone()).collect()
    }

    fn pauses(&self) -> Vec<f64> {
        let calls = self.calls.lock().unwrap();
        calls.windows(2).map(|pair| (pair[1].1 - pair[0].1).as_secs_f64()).collect()
    }
}

fn started(ttl: Duration, answers: usize) -> (Manager, Recorder, JoinHandle<()>) {
    let clock = clock();
    let recorder = Recorder {
        ca: FakeCa::with_clock("cluster.local", ttl, Arc::clone(&clock)).unwrap(),
        calls: Arc::default(),
        down: Arc::default(),
        answers: Arc::new(Semaphore::new(answers)),
        began: Instant::now(),
    };
    let (manager, task) = Manager::new(recorder.clone(), clock);
    (manager, recorder, tokio::spawn(task))
}

const PLENTY: usize = 1_000_000;

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_one_identity_share_one_call() {
    let (manager, recorder, _task) = started(DAY, PLENTY);
    let cart = id("cart");
    let got = join_all((0..100).map(|_| manager.get(&cart))).await;
    let first = got[0].as_ref().unwrap();
    assert!(got.iter().all(|svid| Arc::ptr_eq(svid.as_ref().unwrap(), first)));
    assert!(Arc::ptr_eq(&manager.get(&cart).await.unwrap(), first));
    assert_eq!(recorder.called(), [cart]);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let (manager, recorder, _task) = started(DAY, PLENTY);
    let old = manager.get(&id("cart")).await.unwrap();
    sleep(DAY / 2 - Duration::from_secs(60)).await;
    assert!(Arc::ptr_eq(&old, &manager.get(&id("cart")).await.unwrap()));
    sleep(Duration::from_secs(120)).await;
    let new = manager.get(&id("cart")).await.unwrap();
    assert!(new.not_after() > old.not_after());
    sleep(30 * DAY).await;
    // 60 renewals in 30 days, plus those counted before.
    assert!((61..=63).contains(&recorder.called().len()), "{}", recorder.called().len());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_cannot_be_renewed_serves_until_it_ends_and_not_longer() {
    let (manager, recorder, _task) = started(DAY, PLENTY);
    let old = manager.get(&id("cart")).await.unwrap();
    recorder.set_down(true);
    sleep(DAY - Duration::from_secs(60)).await;
    assert!(recorder.called().len() > 10, "it is tried again and again");
    assert!(Arc::ptr_eq(&old, &manager.get(&id("cart")).await.unwrap()));
    sleep(Duration::from_secs(120)).await;
    assert!(matches!(manager.get(&id("cart")).await.unwrap_err(), Error::Unavailable(_)));
    assert!(manager.held(&id("cart")).is_none());
    recorder.set_down(false);
    sleep(BACKOFF_MAX).await;
    assert!(manager.get(&id("cart")).await.unwrap().is_valid_at((manager.clock)()));
}

#[tokio::test(start_paused = true)]
async fn tries_come_apart_up_to_a_limit_and_start_again_after_success() {
    let (manager, recorder, _task) = started(DAY, PLENTY);
    recorder.set_down(true);
    manager.prefetch(&id("cart"), Priority::Warmup).await.unwrap();
    sleep(Duration::from_secs(1200)).await;
    let pauses = recorder.pauses();
    for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 150.0]) {
        assert!((expected * 0.79..expected * 1.21).contains(pause) && *pause <= 150.1, "{pauses:?}");
    }
    recorder.set_down(false);
    sleep(BACKOFF_MAX).await;
    assert!(manager.held(&id("cart")).is_some());
    recorder.set_down(true);
    sleep(DAY / 2).await;
    let again = recorder.pauses().len();
    recorder.set_down(false);
    sleep(Duration::from_secs(300)).await;
    assert!(recorder.pauses().len() >= again);
    assert!(manager.get(&id("cart")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_all_who_wait_and_who_comes_later_tries_again() {
    let (manager, recorder, _task) = started(DAY, PLENTY);
    recorder.set_down(true);
    let cart = id("cart");
    let got = join_all((0..10).map(|_| manager.get(&cart))).await;
    assert!(got.iter().all(|g| matches!(g, Err(Error::Unavailable(_)))));
    assert!(got[0].as_ref().unwrap_err().to_string().contains("down"));
    // The cached error is returned without another call.
    assert!(manager.get(&cart).await.is_err());
    assert_eq!(recorder.called().len(), 1);
    // On demand there is at most one attempt per second, long before the next background attempt.
    for _ in 0..5 {
        sleep(BACKOFF_MIN).await;
        assert!(manager.get(&cart).await.is_err());
    }
    recorder.set_down(false);
    sleep(BACKOFF_MIN).await;
    manager.get(&cart).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_run_at_a_time_than_allowed_and_connections_come_first() {
    let (manager, recorder, _task) = started(DAY, 0);
    for n in 0..FETCHES_MAX {
        manager.prefetch(&id(&format!("first{n}")), Priority::Background).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    manager.prefetch(&id("background"), Priority::Background).await.unwrap();
    manager.prefetch(&id("warm"), Priority::Warmup).await.unwrap();
    manager.prefetch(&id("raised"), Priority::Background).await.unwrap();
    let (a, b) = (manager.clone(), manager.clone());
    let waiting = tokio::spawn(async move { a.get(&id("urgent")).await });
    sleep(Duration::from_secs(1)).await;
    let raised = tokio::spawn(async move { b.get(&id("raised")).await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(recorder.called().len(), FETCHES_MAX);
    for _ in 0..4 {
        recorder.answers.add_permits(1);
        sleep(Duration::from_millis(10)).await;
    }
    recorder.answers.add_permits(PLENTY);
    waiting.await.unwrap().unwrap();
    raised.await.unwrap().unwrap();
    // `raised` was queued before `urgent` and keeps its position at equal priority.
    assert_eq!(recorder.called()[FETCHES_MAX..], [id("raised"), id("urgent"), id("warm"), id("background")]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_identity_is_no_longer_held_or_renewed() {
    let (manager, recorder, _task) = started(DAY, PLENTY);
    manager.get(&id("cart")).await.unwrap();
    manager.get(&id("stock")).await.unwrap();
    manager.forget(&id("cart")).await.unwrap();
    sleep(2 * DAY).await;
    assert!(manager.held(&id("cart")).is_none() && manager.held(&id("stock")).is_some());
    let mut calls: HashMap<Spiffe, usize> = HashMap::new();
    for identity in recorder.called() {
        *calls.entry(identity).or_default() += 1;
    }
    assert_eq!(calls[&id("cart")], 1);
    assert!(calls[&id("stock")] > 3);
}

#[tokio::test(start_paused = true)]
async fn an_identity_forgotten_while_its_certificate_is_fetched_is_not_held() {
    let (manager, recorder, _task) = started(DAY, 0);
    manager.prefetch(&id("cart"), Priority::Warmup).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    manager.forget(&id("cart")).await.unwrap();
    recorder.answers.add_permits(PLENTY);
    sleep(Duration::from_secs(1)).await;
    assert!(manager.held(&id("cart")).is_none());
    manager.get(&id("cart")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_never_answers_is_a_failure() {
    let (manager, _recorder, _task) = started(DAY, 0);
    let error = manager.get(&id("cart")).await.unwrap_err();
    assert!(error.to_string().contains("in time"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_someone_else_is_refused() {
    /// A CA that certifies every requester as the same workload.
    struct Confused(FakeCa);
    impl Source for Confused {
        async fn issue(&self, _: &Spiffe, csr: &str) -> Result<Vec<String>, SourceError> {
            self.0.issue(&id("stock"), csr).await
        }
    }
    let clock = clock();
    let ca = FakeCa::with_clock("cluster.local", DAY, Arc::clone(&clock)).unwrap();
    let (manager, task) = Manager::new(Confused(ca), clock);
    let _task = tokio::spawn(task);
    assert!(manager.get(&id("cart")).await.unwrap_err().to_string().contains("instead of"));
}

#[tokio::test(start_paused = true)]
async fn certificates_of_seconds_are_not_renewed_in_a_tight_loop() {
    let (manager, recorder, _task) = started(Duration::from_secs(2), PLENTY);
    manager.get(&id("cart")).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(recorder.called().len() <= 61, "{}", recorder.called().len());
    assert!(manager.held(&id("cart")).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_manager_and_says_so() {
    let (manager, _recorder, task) = started(DAY, PLENTY);
    let other = manager.clone();
    task.abort();
    assert!(task.await.is_err());
    assert!(matches!(other.get(&id("cart")).await.unwrap_err(), Error::Stopped));
    let (manager, _recorder, task) = started(DAY, PLENTY);
    drop(manager);
    task.await.unwrap();
}
