//! One connection in paused time, with nobody behind it.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use ambit_hbone::SendConnect;
use ambit_identity::{Manager, testing::FakeCa};
use ambit_model::{Addressed, AppProtocol, BoundPort, BoundService, NamespacedName, Spiffe, bound::Routes};
use ambit_proxy::stage::{Stage, StageControl};
use ambit_store::BoundEntry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{LocalSet, spawn_local},
    time::sleep,
};

use super::*;
use crate::{
    context::{Local, Shared},
    http::watched::HEAD_TIMEOUT,
    peer::Peer,
    services::Services,
    target::Target,
    testing::tunnels,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n";

async fn session() -> (StageControl, Rc<Session>) {
    let ca = FakeCa::new("cluster.local").unwrap();
    let (identities, _nobody_asks) = Manager::new(ca, Arc::new(SystemTime::now));
    let identity: Spiffe = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let (query_sender, _nobody_answers) = ambit_store::queries();
    let shared = Shared {
        store: Arc::default(),
        query_sender,
        services: Services::default(),
        identities,
        identity: identity.clone(),
        pod: NamespacedName::new("shop", "waypoint-1"),
        sinks: Default::default(),
    };
    let port = BoundPort {
        port: 80,
        protocol: AppProtocol::Http,
        routes: Routes::default(),
        consumers: BTreeMap::new(),
    };
    let bound = BoundService {
        key: NamespacedName::new("shop", "cart"),
        addressed: Addressed::Service,
        ports: vec![port],
        destinations: BTreeMap::new(),
        requests: Arc::default(),
        authentication: Vec::new(),
        authorization: Vec::new(),
        checks: Vec::new(),
        unenforceable: Vec::new(),
    };
    let (key, shared) = (bound.key.clone(), Arc::new(shared));
    shared.store.apply_bound(vec![(key.clone(), BoundEntry::Ready(Arc::new(bound)))], &[]);
    let mut changes = shared.services.changes();
    let followed = shared.clone();
    spawn_local(async move { followed.services.follow(&followed.store, &followed.pod).await });
    changes.changed().await.unwrap();
    let service = shared.services.load().get(&key).unwrap().clone();
    let control = StageControl::default();
    let local = Local::new(shared, control.watch());
    let client = "10.0.0.9:4000".parse().unwrap();
    let peer = Rc::new(Peer { identity, client, known: Default::default() });
    let target = Target { service, address: "10.0.0.1:80".parse().unwrap(), pod: None };
    (control, Session::new(local, peer, target))
}

async fn served() -> (SendConnect, TunnelStream, StageControl, Rc<Session>) {
    let (connection, near, far) = tunnels().await;
    let (control, session) = session().await;
    spawn_local(serve(session.clone(), far, false));
    (connection, near, control, session)
}

async fn answered(near: &mut TunnelStream) {
    near.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = near.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_gives_its_buffers_back_and_goes_on_with_its_next_request() {
    let test = async {
        let (_connection, mut near, _control, session) = served().await;
        answered(&mut near).await;
        let busy = Rc::strong_count(&session);
        for _ in 0..3 {
            sleep(PARK_AFTER * 3).await;
            // What served it is gone, and with it its buffers.
            assert_eq!(Rc::strong_count(&session), busy - 1);
            answered(&mut near).await;
            assert_eq!(Rc::strong_count(&session), busy);
        }
        near.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_begun_a_head_keeps_it() {
    let test = async {
        let (_connection, mut near, _control, _session) = served().await;
        let (begin, end) = REQUEST.split_at(10);
        near.write_all(begin).await.unwrap();
        sleep(PARK_AFTER * 3).await;
        near.write_all(end).await.unwrap();
        let mut answer = vec![0; 1024];
        let read = near.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 503 "));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_answered_408_also_after_a_request_and_a_long_silence() {
    let test = async {
        let (_connection, mut near, _control, _session) = served().await;
        answered(&mut near).await;
        sleep(PARK_AFTER * 3).await;
        near.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        sleep(HEAD_TIMEOUT / 2).await;
        // A byte now and then wins no time.
        near.write_all(b" cart").await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_in_order_when_the_process_does() {
    let test = async {
        let (_connection, mut near, control, _session) = served().await;
        answered(&mut near).await;
        sleep(PARK_AFTER * 3).await;
        control.advance(Stage::Draining);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    };
    LocalSet::new().run_until(test).await;
}
