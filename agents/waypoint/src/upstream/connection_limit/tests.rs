use std::{
    future::Future,
    task::{Context, Poll, Waker},
    time::Instant,
};

use ambit_model::bound::{CircuitBreaker, DestinationPolicy};

use super::*;

fn policy(connections: u32, pending: u32) -> DestinationPolicy {
    let breaker = CircuitBreaker {
        max_connections: Some(connections),
        max_pending_requests: Some(pending),
        ..CircuitBreaker::default()
    };
    DestinationPolicy { breaker, ..DestinationPolicy::default() }
}

fn limit(connections: u32, pending: u32) -> Arc<ConnectionLimit> {
    ConnectionLimit::new(Breaker::new(&policy(connections, pending), Instant::now()))
}

/// A request that waits for a connection.
type Waiter<'a> = std::pin::Pin<Box<dyn Future<Output = Result<ConnectionPermit, Overflow>> + 'a>>;

fn waiter(limit: &Arc<ConnectionLimit>) -> Waiter<'_> {
    Box::pin(limit.wait(|| limit.try_acquire()))
}

fn poll(waiter: &mut Waiter<'_>) -> Option<Result<ConnectionPermit, Overflow>> {
    match waiter.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => None,
    }
}

fn used(limit: &ConnectionLimit) -> (u32, u32, u32) {
    let used = |resource| limit.breaker.used(resource);
    (used(Resource::Connection), used(Resource::Pending), limit.waiting())
}

#[tokio::test]
async fn waiting_requests_are_served_in_order_as_connections_end() {
    let limit = limit(1, 2);
    let held = limit.try_acquire().unwrap();
    let (mut first, mut second) = (waiter(&limit), waiter(&limit));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    assert_eq!(used(&limit), (1, 2, 2));
    assert_eq!(poll(&mut waiter(&limit)).unwrap().unwrap_err(), Overflow(Resource::Pending));
    drop(held);
    assert!(poll(&mut second).is_none(), "it is not its turn");
    let held = poll(&mut first).unwrap().unwrap();
    assert!(poll(&mut second).is_none());
    drop(held);
    let held = poll(&mut second).unwrap().unwrap();
    assert_eq!(used(&limit), (1, 0, 0));
    drop(held);
    assert_eq!(used(&limit), (0, 0, 0));
}

#[tokio::test]
async fn a_waiter_that_leaves_takes_nothing_along_even_when_it_was_woken() {
    let limit = limit(1, 2);
    let held = limit.try_acquire().unwrap();
    let (mut first, mut second) = (waiter(&limit), waiter(&limit));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    drop(held);
    // It was woken, and never looks.
    drop(first);
    assert_eq!(used(&limit), (0, 1, 1));
    let held = poll(&mut second).unwrap().unwrap();
    assert_eq!(used(&limit), (1, 0, 0));
    let mut third = waiter(&limit);
    assert!(poll(&mut third).is_none());
    drop(third);
    drop(held);
    assert_eq!(used(&limit), (0, 0, 0));
}

#[tokio::test]
async fn no_request_waits_while_the_limit_is_not_reached() {
    let limit = limit(3, 9);
    let held: Vec<_> = (0..3).map(|_| limit.try_acquire().unwrap()).collect();
    let mut early = waiter(&limit);
    assert!(poll(&mut early).is_none());
    // One wake-up is kept where nobody is in line, however many connections end.
    drop(held);
    let mut waiters = vec![early, waiter(&limit), waiter(&limit)];
    let mut all = Vec::new();
    for _turn in 0..3 {
        waiters.retain_mut(|waiter| poll(waiter).map(|held| all.push(held.unwrap())).is_none());
    }
    assert_eq!(all.len(), 3);
    assert_eq!(used(&limit), (3, 0, 0));
}

#[tokio::test]
async fn a_higher_limit_lets_all_waiting_requests_try_again() {
    let limit = limit(1, 9);
    let _held = limit.try_acquire().unwrap();
    let mut waiters = [waiter(&limit), waiter(&limit)];
    for waiter in &mut waiters {
        assert!(poll(waiter).is_none());
    }
    limit.breaker.change(&policy(3, 9));
    limit.limits_changed();
    let all: Vec<_> = waiters.iter_mut().map(|waiter| poll(waiter).unwrap().unwrap()).collect();
    assert_eq!((all.len(), used(&limit)), (2, (3, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_ever() {
    let limit = limit(1, 1);
    let _held = limit.try_acquire().unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(waiter(&limit).await.unwrap_err(), Overflow(Resource::Connection));
    assert_eq!((begun.elapsed(), used(&limit)), (WAIT_MAX, (1, 0, 0)));
}

#[tokio::test]
async fn workers_are_notified_to_close_unused_connections_as_long_as_they_live() {
    let limit = limit(1, 1);
    let held = limit.try_acquire().unwrap();
    let worker = Arc::new(Notify::new());
    for _ in 0..3 {
        limit.register_worker(&worker);
    }
    limit.register_worker(&Arc::default());
    let mut waiter = waiter(&limit);
    assert!(poll(&mut waiter).is_none());
    worker.notified().await;
    drop(held);
    poll(&mut waiter).unwrap().unwrap();
    assert_eq!(limit.workers.lock().unwrap().len(), 2);
    limit.register_worker(&Arc::default());
    assert_eq!(limit.workers.lock().unwrap().len(), 2, "one that is gone is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_threads() {
    const EACH: usize = 500;
    let limit = limit(2, 100);
    let tasks = (0..8).map(|task| {
        let limit = limit.clone();
        tokio::spawn(async move {
            for turn in 0..EACH {
                let counted = limit.wait(|| limit.try_acquire());
                // Some leave in the middle.
                if (turn + task) % 5 == 0 {
                    _ = timeout(Duration::from_micros(1), counted).await;
                    continue;
                }
                let counted = timeout(WAIT_MAX / 2, counted).await.expect("woken").unwrap();
                tokio::task::yield_now().await;
                drop(counted);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(used(&limit), (0, 0, 0));
}
