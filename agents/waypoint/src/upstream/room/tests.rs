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

fn room(connections: u32, pending: u32) -> Arc<Room> {
    Room::new(Breaker::new(&policy(connections, pending), Instant::now()))
}

/// A request that waits for a connection.
type Waiter<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Counted, Overflow>> + 'a>>;

fn waiter(room: &Arc<Room>) -> Waiter<'_> {
    Box::pin(room.wait(|| room.take()))
}

fn poll(waiter: &mut Waiter<'_>) -> Option<Result<Counted, Overflow>> {
    match waiter.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => None,
    }
}

fn used(room: &Room) -> (u32, u32, u32) {
    let used = |resource| room.breaker.used(resource);
    (used(Resource::Connection), used(Resource::Pending), room.waiting())
}

#[tokio::test]
async fn who_waits_is_served_in_order_once_a_connection_ends() {
    let room = room(1, 2);
    let held = room.take().unwrap();
    let (mut first, mut second) = (waiter(&room), waiter(&room));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    assert_eq!(used(&room), (1, 2, 2));
    assert_eq!(poll(&mut waiter(&room)).unwrap().unwrap_err(), Overflow(Resource::Pending));
    drop(held);
    assert!(poll(&mut second).is_none(), "it is not its turn");
    let held = poll(&mut first).unwrap().unwrap();
    assert!(poll(&mut second).is_none());
    drop(held);
    let held = poll(&mut second).unwrap().unwrap();
    assert_eq!(used(&room), (1, 0, 0));
    drop(held);
    assert_eq!(used(&room), (0, 0, 0));
}

#[tokio::test]
async fn a_waiter_that_leaves_takes_nothing_along_even_when_it_was_woken() {
    let room = room(1, 2);
    let held = room.take().unwrap();
    let (mut first, mut second) = (waiter(&room), waiter(&room));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    drop(held);
    // It was woken, and never looks.
    drop(first);
    assert_eq!(used(&room), (0, 1, 1));
    let held = poll(&mut second).unwrap().unwrap();
    assert_eq!(used(&room), (1, 0, 0));
    let mut third = waiter(&room);
    assert!(poll(&mut third).is_none());
    drop(third);
    drop(held);
    assert_eq!(used(&room), (0, 0, 0));
}

#[tokio::test]
async fn nobody_waits_beside_free_room() {
    let room = room(3, 9);
    let held: Vec<_> = (0..3).map(|_| room.take().unwrap()).collect();
    let mut early = waiter(&room);
    assert!(poll(&mut early).is_none());
    // One wake-up is kept where nobody is in line, however many connections end.
    drop(held);
    let mut waiters = vec![early, waiter(&room), waiter(&room)];
    let mut all = Vec::new();
    for _turn in 0..3 {
        waiters.retain_mut(|waiter| poll(waiter).map(|held| all.push(held.unwrap())).is_none());
    }
    assert_eq!(all.len(), 3);
    assert_eq!(used(&room), (3, 0, 0));
}

#[tokio::test]
async fn a_higher_limit_lets_all_look_again() {
    let room = room(1, 9);
    let _held = room.take().unwrap();
    let mut waiters = [waiter(&room), waiter(&room)];
    for waiter in &mut waiters {
        assert!(poll(waiter).is_none());
    }
    room.breaker.change(&policy(3, 9));
    room.changed();
    let all: Vec<_> = waiters.iter_mut().map(|waiter| poll(waiter).unwrap().unwrap()).collect();
    assert_eq!((all.len(), used(&room)), (2, (3, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let room = room(1, 1);
    let _held = room.take().unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(waiter(&room).await.unwrap_err(), Overflow(Resource::Connection));
    assert_eq!((begun.elapsed(), used(&room)), (WAIT_MAX, (1, 0, 0)));
}

#[tokio::test]
async fn workers_are_asked_for_what_they_do_not_use_as_long_as_they_live() {
    let room = room(1, 1);
    let held = room.take().unwrap();
    let worker = Arc::new(Notify::new());
    for _ in 0..3 {
        room.kept_by(&worker);
    }
    room.kept_by(&Arc::default());
    let mut waiter = waiter(&room);
    assert!(poll(&mut waiter).is_none());
    worker.notified().await;
    drop(held);
    poll(&mut waiter).unwrap().unwrap();
    assert_eq!(room.keepers.lock().unwrap().len(), 2);
    room.kept_by(&Arc::default());
    assert_eq!(room.keepers.lock().unwrap().len(), 2, "one that is gone is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_threads() {
    const EACH: usize = 500;
    let room = room(2, 100);
    let tasks = (0..8).map(|task| {
        let room = room.clone();
        tokio::spawn(async move {
            for turn in 0..EACH {
                let counted = room.wait(|| room.take());
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
    assert_eq!(used(&room), (0, 0, 0));
}
