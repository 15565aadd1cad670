use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use ambit_model::{Service, TunnelProtocol, Workload};

use super::*;
use crate::AddressUpdate;

fn store() -> Store {
    let store = Store::new();
    store.apply_addresses(vec![AddressUpdate::Workload(pod("web", "10.0.0.9"))], &[]);
    store
}

fn pod(name: &str, address: &str) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![address.parse().unwrap()],
        tunnel_protocol: TunnelProtocol::Hbone,
        capacity: 1,
        ..Workload::default()
    }
}

fn at(text: &str) -> NetworkAddress {
    NetworkAddress { network: "".into(), address: text.parse().unwrap() }
}

async fn route(lookup: &Lookup, store: &Store, destination: &str) -> (Route, Option<LookupResult>) {
    let destination: SocketAddr = destination.parse().unwrap();
    lookup.route(store, OutboundRequest { source: &pod("web", "10.0.0.9"), destination }, 0).await
}

fn outside(address: &str) -> Route {
    Route::outside(address.parse().unwrap())
}

/// A lookup whose operator gives this answer.
fn lookup(says: Option<Answer>) -> (Lookup, Arc<Mutex<Option<Answer>>>) {
    let (query_sender, queries) = queries();
    let says = Arc::new(Mutex::new(says));
    let said = says.clone();
    tokio::spawn(queries.answered_by(move |_| *said.lock().unwrap()));
    (Lookup::new(query_sender), says)
}

#[tokio::test(start_paused = true)]
async fn the_three_answers() {
    let (store, (lookup, says)) = (store(), lookup(None));
    let cases = [
        ("10.0.0.1", Some(Answer::Unknown), LookupResult::Unknown),
        ("10.0.0.2", Some(Answer::Known), LookupResult::Described),
        ("10.0.0.3", None, LookupResult::Unanswered),
    ];
    for (address, answer, expected) in cases {
        let begun = Instant::now();
        *says.lock().unwrap() = answer;
        assert_eq!(lookup.look_up(&store, &at(address)).await, expected, "{address}");
        let waited = if answer.is_some() { Duration::ZERO } else { ANSWER_TIME_MAX };
        assert_eq!(begun.elapsed(), waited, "{address}");
    }
    assert_eq!(lookup.under_way.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_dialed_in_plaintext_only_after_the_operator_said_that_nobody_has_it() {
    let (store, (lookup, says)) = (store(), lookup(None));
    assert_eq!(route(&lookup, &store, "1.1.1.1:443").await, (outside("1.1.1.1:443"), None));
    let refused = Route::Refused(Refusal::UnknownAddress("10.0.0.1:80".parse().unwrap()));
    assert_eq!(route(&lookup, &store, "10.0.0.1:80").await, (refused, Some(LookupResult::Unanswered)));
    *says.lock().unwrap() = Some(Answer::Unknown);
    assert_eq!(lookup.look_up(&store, &at("10.0.0.1")).await, LookupResult::Unknown);
    *says.lock().unwrap() = None;
    assert_eq!(
        route(&lookup, &store, "10.0.0.1:80").await,
        (outside("10.0.0.1:80"), Some(LookupResult::Unknown))
    );
    // A pod is near this address, so another one may have come.
    tokio::time::advance(FRESH).await;
    assert_eq!(route(&lookup, &store, "10.0.0.1:80").await.1, Some(LookupResult::Unanswered));
    store.apply_addresses(vec![AddressUpdate::Workload(pod("new", "10.0.0.1"))], &[]);
    let (found, looked) = route(&lookup, &store, "10.0.0.1:80").await;
    assert!(matches!(found, Route::Hbone { .. }) && looked.is_none(), "{found:?}");
    store.apply_addresses(vec![], &["Kubernetes//Pod/shop/new".into()]);
    assert!(matches!(route(&lookup, &store, "10.0.0.1:80").await.0, Route::Refused(_)), "gone again");
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_describes_and_nobody_could_read_is_not_dialed() {
    let (store, (lookup, says)) = (store(), lookup(None));
    let refused = Route::Refused(Refusal::Undecodable("10.0.0.1:80".parse().unwrap()));
    *says.lock().unwrap() = Some(Answer::Known);
    assert_eq!(route(&lookup, &store, "10.0.0.1:80").await, (refused, Some(LookupResult::Described)));
}

#[tokio::test(start_paused = true)]
async fn what_was_outside_far_from_pods_stays_so_while_the_operator_is_silent_at_little_cost() {
    let (store, (lookup, says)) = (store(), lookup(None));
    let far = "10.9.0.1";
    *says.lock().unwrap() = Some(Answer::Unknown);
    assert_eq!(lookup.look_up(&store, &at(far)).await, LookupResult::Unknown);
    *says.lock().unwrap() = None;
    tokio::time::advance(FRESH).await;
    let begun = Instant::now();
    for expected in [REFRESH_TIME_MAX, REFRESH_TIME_MAX] {
        assert_eq!(lookup.look_up(&store, &at(far)).await, LookupResult::UnknownBefore);
        assert_eq!(begun.elapsed(), expected, "asked once in a while");
    }
    let service = Service {
        namespace: "shop".into(),
        hostname: "h".into(),
        addresses: vec![at("10.9.0.77")],
        ..Service::default()
    };
    store.apply_addresses(vec![AddressUpdate::Service(service)], &[]);
    assert_eq!(lookup.look_up(&store, &at(far)).await, LookupResult::Unanswered, "the cluster is here now");
    store.apply_addresses(vec![], &["shop/h".into()]);
    assert_eq!(lookup.look_up(&store, &at(far)).await, LookupResult::UnknownBefore);
    tokio::time::advance(REMEMBERED).await;
    assert_eq!(lookup.look_up(&store, &at(far)).await, LookupResult::Unanswered);
}

#[tokio::test(start_paused = true)]
async fn a_scan_of_a_thousand_addresses_is_bounded_in_questions_and_memory() {
    let (store, (lookup, says)) = (store(), lookup(None));
    let begun = Instant::now();
    let lookup = std::rc::Rc::new(lookup);
    let (local, store) = (tokio::task::LocalSet::new(), std::rc::Rc::new(store));
    for number in 0..1_000 {
        let (lookup, store) = (lookup.clone(), store.clone());
        local.spawn_local(async move {
            let address = at(&format!("10.7.{}.{}", number / 250, number % 250));
            assert_eq!(lookup.look_up(&store, &address).await, LookupResult::Unanswered);
        });
    }
    local.await;
    assert_eq!(begun.elapsed(), ANSWER_TIME_MAX, "no more than one wait");
    for number in 0..1_000 {
        let address = format!("10.8.{}.{}", number / 250, number % 250);
        *says.lock().unwrap() = Some(Answer::Unknown);
        assert_eq!(lookup.look_up(&store, &at(&address)).await, LookupResult::Unknown);
        *says.lock().unwrap() = None;
    }
    assert!(lookup.outside.borrow().len() <= OUTSIDE_MAX);
    assert_eq!(
        lookup.look_up(&store, &at("10.8.3.249")).await,
        LookupResult::Unknown,
        "the last ones are remembered"
    );
}
