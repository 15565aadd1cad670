//! Limits, reuse, shared dials and idle connections, over in-memory connections.

use std::{cell::Cell, future::pending};

use futures::future::join_all;
use tokio::{
    io::duplex,
    sync::{Notify, broadcast},
    task::yield_now,
    time::sleep,
};

use super::*;
use crate::{
    handshake, serve,
    settings::{CLIENT, SERVER, Settings},
};

const WIRE_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

/// Servers that accept every tunnel, with the number of dials.
#[derive(Clone)]
struct Servers {
    dials: Rc<Cell<usize>>,
    gate: Rc<Notify>,
    drain: broadcast::Sender<()>,
    settings: Settings,
}

impl Servers {
    fn new(streams_max: u32) -> Self {
        Self {
            dials: Rc::default(),
            gate: Rc::default(),
            drain: broadcast::channel(1).0,
            settings: Settings { streams_max, ..SERVER },
        }
    }

    fn dial(&self) -> impl Future<Output = Result<SendConnect, Refused>> + use<> {
        self.dials.set(self.dials.get() + 1);
        let (near, far) = duplex(WIRE_BYTES);
        let mut drained = self.drain.subscribe();
        let drained = async move { _ = drained.recv().await };
        tokio::spawn(serve(far, self.settings, drained, |_, responder| {
            let tunnel = responder.accept(None).unwrap();
            tokio::spawn(async move {
                let (mut tunnel, mut end) = (tunnel, false);
                while !end {
                    end = !matches!(tunnel.recv.data().await, Some(Ok(_)));
                }
            });
        }));
        async move {
            let (send, driver) = handshake(near, CLIENT).await.unwrap();
            tokio::spawn(driver);
            Ok(send)
        }
    }

    async fn tunnel(&self, pool: &Pool<&'static str, Refused>, key: &'static str) -> Tunnel {
        let checkout = pool.checkout(&key, || self.dial()).await.unwrap();
        checkout.connect(&"10.0.0.1:80".parse().unwrap(), &ConnectHeaders::default()).await.unwrap()
    }
}

fn pool(streams_max: usize) -> Pool<&'static str, Refused> {
    Pool::new(streams_max, IDLE_MAX)
}

#[tokio::test]
async fn streams_to_one_key_share_a_connection_and_keys_do_not() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let _tunnels = [
        servers.tunnel(&pool, "a").await,
        servers.tunnel(&pool, "a").await,
        servers.tunnel(&pool, "b").await,
    ];
    assert_eq!((servers.dials.get(), pool.connections()), (2, 2));
}

#[tokio::test]
async fn a_full_connection_gets_a_neighbour_and_is_used_again_when_streams_end() {
    let (servers, pool) = (Servers::new(200), pool(3));
    let mut tunnels = Vec::new();
    for _ in 0..7 {
        tunnels.push(servers.tunnel(&pool, "a").await);
    }
    assert_eq!(servers.dials.get(), 3);
    tunnels.drain(..3);
    for _ in 0..5 {
        tunnels.push(servers.tunnel(&pool, "a").await);
    }
    assert_eq!((servers.dials.get(), pool.connections()), (3, 3));
    tunnels.push(servers.tunnel(&pool, "a").await);
    assert_eq!(servers.dials.get(), 4);
}

#[tokio::test]
async fn a_peer_that_allows_fewer_streams_gets_fewer() {
    let (servers, pool) = (Servers::new(2), pool(100));
    let mut tunnels = Vec::new();
    for _ in 0..5 {
        tunnels.push(servers.tunnel(&pool, "a").await);
    }
    assert_eq!(servers.dials.get(), 3);
}

#[tokio::test]
async fn a_slot_whose_connect_fails_is_given_back() {
    let (servers, pool) = (Servers::new(200), pool(1));
    drop(pool.checkout(&"a", || servers.dial()).await.unwrap());
    servers.tunnel(&pool, "a").await;
    assert_eq!(servers.dials.get(), 1);
}

#[tokio::test]
async fn concurrent_checkouts_share_one_dial() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let dial = || {
        let (gate, connected) = (Rc::clone(&servers.gate), servers.dial());
        async move {
            gate.notified().await;
            connected.await
        }
    };
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(pool.checkout(&"a", dial))).collect();
    for checkout in &mut waiting {
        assert!(futures::poll!(checkout).is_pending());
    }
    servers.gate.notify_waiters();
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert_eq!(servers.dials.get(), 1);
}

#[tokio::test]
async fn many_more_checkouts_than_slots_are_all_served() {
    let (servers, pool) = (Servers::new(200), pool(10));
    let checkouts = join_all((0..95).map(|_| pool.checkout(&"a", || servers.dial()))).await;
    assert_eq!(checkouts.iter().filter(|c| c.is_ok()).count(), 95);
    assert_eq!(servers.dials.get(), 10);
}

#[tokio::test]
async fn a_failing_dial_wakes_all_who_wait_and_the_next_dials_anew() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let dials = Cell::new(0);
    let dial = || {
        dials.set(dials.get() + 1);
        let gate = Rc::clone(&servers.gate);
        async move {
            gate.notified().await;
            Err(Refused)
        }
    };
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(pool.checkout(&"a", dial))).collect();
    for checkout in &mut waiting {
        assert!(futures::poll!(checkout).is_pending());
    }
    servers.gate.notify_waiters();
    let failed = join_all(waiting).await;
    assert!(failed.iter().all(|f| matches!(f, Err(CheckoutError::Dial(_)))));
    assert_eq!(dials.get(), 1);
    servers.tunnel(&pool, "a").await;
    assert_eq!(servers.dials.get(), 1);
}

#[tokio::test]
async fn a_dial_outlives_the_checkout_that_began_it() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let dial = || {
        let (gate, connected) = (Rc::clone(&servers.gate), servers.dial());
        async move {
            gate.notified().await;
            connected.await
        }
    };
    let mut first = Box::pin(pool.checkout(&"a", dial));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(pool.checkout(&"a", dial));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    assert!(futures::poll!(&mut second).is_pending());
    servers.gate.notify_waiters();
    second.await.unwrap();
    assert_eq!(servers.dials.get(), 1);
}

#[tokio::test]
async fn a_dial_that_all_have_left_is_dropped_and_begun_again() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let mut left = Box::pin(pool.checkout(&"a", pending::<Result<SendConnect, Refused>>));
    assert!(futures::poll!(&mut left).is_pending());
    drop(left);
    servers.tunnel(&pool, "a").await;
    assert_eq!(servers.dials.get(), 1);
}

#[tokio::test]
async fn too_many_who_wait_for_one_dial_are_told_so() {
    let pool = pool(100);
    let dial = pending::<Result<SendConnect, Refused>>;
    let mut waiting: Vec<_> = (0..WAITERS_MAX).map(|_| Box::pin(pool.checkout(&"a", dial))).collect();
    for checkout in &mut waiting {
        assert!(futures::poll!(checkout).is_pending());
    }
    assert!(matches!(pool.checkout(&"a", dial).await, Err(CheckoutError::TooManyWaiters)));
    waiting.pop();
    assert!(futures::poll!(Box::pin(pool.checkout(&"a", dial))).is_pending());
}

#[tokio::test]
async fn a_connection_told_to_go_away_takes_no_new_stream_and_keeps_its_old_ones() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let mut old = servers.tunnel(&pool, "a").await;
    servers.drain.send(()).unwrap();
    for _ in 0..100 {
        yield_now().await;
    }
    let _new = servers.tunnel(&pool, "a").await;
    assert_eq!((servers.dials.get(), pool.connections()), (2, 1));
    old.send.send_data(b"still here".as_slice().into(), true).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_is_let_go_and_a_used_one_is_not() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let sweeping = pool.sweeper();
    let scenario = async {
        let held = servers.tunnel(&pool, "held").await;
        drop(servers.tunnel(&pool, "unused").await);
        sleep(IDLE_MAX - SWEEP_EVERY).await;
        assert_eq!(pool.connections(), 2);
        sleep(3 * SWEEP_EVERY).await;
        assert_eq!(pool.connections(), 1);
        assert_eq!(servers.dials.get(), 2);
        // Its last stream ends now, so the idle time starts here.
        drop(held);
        sleep(IDLE_MAX - SWEEP_EVERY).await;
        assert_eq!(pool.connections(), 1);
        sleep(3 * SWEEP_EVERY).await;
        assert_eq!(pool.connections(), 0);
    };
    tokio::select! {
        () = scenario => {}
        () = sweeping => panic!("the pool still lives"),
    }
}

#[tokio::test(start_paused = true)]
async fn short_use_between_two_sweeps_counts_as_use() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let scenario = async {
        for _ in 0..10 {
            drop(servers.tunnel(&pool, "a").await);
            sleep(IDLE_MAX - 2 * SWEEP_EVERY).await;
        }
        assert_eq!(servers.dials.get(), 1);
    };
    tokio::select! {
        () = scenario => {}
        () = pool.sweeper() => panic!("the pool still lives"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_ends_with_its_pool() {
    let pool = pool(100);
    let sweeping = pool.sweeper();
    drop(pool);
    sweeping.await;
}

#[tokio::test]
async fn a_dropped_key_keeps_its_streams_and_loses_its_connections() {
    let (servers, pool) = (Servers::new(200), pool(100));
    let mut tunnel = servers.tunnel(&pool, "a").await;
    pool.retain(|key| *key != "a");
    assert_eq!(pool.connections(), 0);
    tunnel.send.send_data(b"still here".as_slice().into(), true).unwrap();
    servers.tunnel(&pool, "a").await;
    assert_eq!(servers.dials.get(), 2);
}
