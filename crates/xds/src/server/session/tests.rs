use std::collections::BTreeSet;

use ambit_proto::discovery;
use bytes::Bytes;
use prost::Message;

use super::{queries::NAME_BYTES_MAX, *};
use crate::server::Change;

const POLICY: &str = "policy";
const ADDRESS: &str = "address";

struct World {
    policies: Feed,
    addresses: Feed,
    session: ServerSession,
}

/// An address feed where the body of a resource is its alias.
fn world() -> World {
    let alias = |body: &[u8]| vec![String::from_utf8_lossy(body).into_owned()];
    let (policies, addresses) = (Feed::new(POLICY), Feed::with_aliases(ADDRESS, alias));
    let session = ServerSession::new(vec![policies.clone(), addresses.clone()]);
    World { policies, addresses, session }
}

fn set(name: &str, body: &'static [u8]) -> Change {
    Change::Set { name: name.into(), body: Bytes::from_static(body) }
}

fn remove(name: &str) -> Change {
    Change::Remove { name: name.into() }
}

fn question(names: &[&str]) -> DeltaDiscoveryRequest {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryRequest { resource_names_subscribe: names, ..ask(ADDRESS) }
}

fn ask(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.into(), ..DeltaDiscoveryRequest::default() }
}

/// `policy +a` and the like, one entry per response.
fn heard(session: &mut ServerSession) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(response) = session.next().unwrap() {
        let mut line = response.type_url.clone();
        for resource in &response.resources {
            line += &format!(" +{}", wire::EncodedResource::decode(resource.clone()).unwrap().name);
        }
        for name in response.removed_resources.iter().collect::<BTreeSet<_>>() {
            line += &format!(" -{name}");
        }
        heard.push(line);
    }
    heard
}

impl World {
    fn live(mut self) -> Self {
        self.policies.mark_synced();
        self.addresses.mark_synced();
        self.session.request(ask(POLICY)).unwrap();
        self.session.request(ask(ADDRESS)).unwrap();
        assert_eq!(heard(&mut self.session), ["policy", "address"]);
        self
    }
}

#[test]
fn policies_come_first_whatever_a_client_asks_for_first() {
    let mut world = world();
    assert!(world.policies.replace([("p".into(), Bytes::new())]).is_empty());
    assert!(world.addresses.replace([("a".into(), Bytes::new())]).is_empty());
    world.session.request(ask(ADDRESS)).unwrap();
    assert!(world.session.is_gathering());
    assert!(heard(&mut world.session).is_empty());
    world.session.request(ask(POLICY)).unwrap();
    assert!(!world.session.is_gathering());
    assert_eq!(heard(&mut world.session), ["policy +p", "address +a"]);
}

#[test]
fn a_client_that_never_asks_for_policies_is_served_once_gathering_is_over() {
    let mut world = world();
    assert!(world.addresses.replace([("a".into(), Bytes::new())]).is_empty());
    world.session.request(ask(ADDRESS)).unwrap();
    world.session.stop_gathering();
    assert_eq!(heard(&mut world.session), ["address +a"]);
}

#[test]
fn nothing_is_sent_before_the_first_complete_state() {
    let mut world = world();
    world.session.request(ask(POLICY)).unwrap();
    world.session.request(ask(ADDRESS)).unwrap();
    assert!(world.addresses.replace([("a".into(), Bytes::new())]).is_empty());
    assert!(heard(&mut world.session).is_empty());
    world.policies.mark_synced();
    assert_eq!(heard(&mut world.session), ["policy", "address +a"]);
}

#[test]
fn additions_go_out_before_and_removals_after_what_refers_to_them() {
    let mut world = world().live();
    assert!(world.policies.publish([set("p", b""), set("q", b"")]).is_empty());
    assert!(world.addresses.publish([set("a", b"p")]).is_empty());
    assert_eq!(heard(&mut world.session), ["policy +p +q", "address +a"]);
    assert!(world.policies.publish([remove("p"), set("r", b"")]).is_empty());
    assert!(world.addresses.publish([set("a", b"r"), set("b", b"r"), remove("c")]).is_empty());
    assert_eq!(heard(&mut world.session), ["policy +r", "address +a +b", "policy -p"]);
}

#[test]
fn a_policy_published_while_a_round_is_under_way_still_precedes_its_workload() {
    let mut world = world().live();
    assert!(world.policies.publish([set("p", b"")]).is_empty());
    let first = world.session.next().unwrap().unwrap();
    assert_eq!(first.type_url, POLICY);
    assert!(world.policies.publish([set("q", b"")]).is_empty());
    assert!(world.addresses.publish([set("a", b"q")]).is_empty());
    assert_eq!(heard(&mut world.session), ["policy +q", "address +a"]);
}

#[test]
fn changes_made_while_a_response_is_in_flight_merge() {
    let mut world = world().live();
    assert!(world.addresses.publish([set("a", b"1")]).is_empty());
    assert!(world.session.next().unwrap().is_some());
    for body in [b"2", b"3", b"4"] {
        assert!(world.addresses.publish([set("a", body), set("b", body)]).is_empty());
    }
    assert_eq!(heard(&mut world.session), ["address +a +b"]);
}

#[test]
fn a_client_that_comes_back_hears_what_changed_and_what_is_gone() {
    let mut world = world();
    world.policies.mark_synced();
    assert!(world.addresses.publish([set("same", b"1"), set("other", b"1"), set("new", b"1")]).is_empty());
    world.addresses.mark_synced();
    let mut first = ServerSession::new(vec![world.addresses.clone()]);
    first.request(ask(ADDRESS)).unwrap();
    let state = first.next().unwrap().unwrap();
    let version = |name: &str| {
        let found = state.resources.iter().map(|bytes| wire::EncodedResource::decode(bytes.clone()).unwrap());
        found.filter(|resource| resource.name == name).map(|resource| resource.version).next().unwrap()
    };
    let held = [("same", version("same")), ("other", "older".into()), ("gone", "x".into())];
    world.session.request(ask(POLICY)).unwrap();
    let again = DeltaDiscoveryRequest {
        initial_resource_versions: held
            .into_iter()
            .map(|(name, version)| (name.to_owned(), version))
            .collect(),
        ..ask(ADDRESS)
    };
    world.session.request(again).unwrap();
    assert_eq!(heard(&mut world.session), ["policy", "address +other +new", "address -gone"]);
}

#[test]
fn large_states_are_split_and_only_the_last_part_says_complete() {
    let mut world = world();
    world.policies.mark_synced();
    let body = Bytes::from(vec![7u8; RESPONSE_BYTES_TARGET / 2]);
    let state = (0..5).map(|n| (n.to_string().into(), body.clone()));
    assert!(world.addresses.replace(state).is_empty());
    world.session.request(ask(POLICY)).unwrap();
    world.session.request(ask(ADDRESS)).unwrap();
    assert_eq!(world.session.next().unwrap().unwrap().type_url, POLICY);
    let (mut parts, mut total) = (Vec::new(), 0);
    while let Some(response) = world.session.next().unwrap() {
        assert!(response.encoded_len() <= crate::GRPC_MESSAGE_BYTES_MAX);
        total += response.resources.len();
        parts.push(response.system_version_info == wire::PARTIAL);
    }
    assert_eq!(total, 5);
    assert_eq!(parts.iter().rev().copied().collect::<Vec<_>>(), {
        let mut expected = vec![true; parts.len()];
        expected[0] = false;
        expected
    });
    assert!(parts.len() >= 3);
}

#[test]
fn judges_requests() {
    let star = || vec!["*".to_owned()];
    let error = discovery::Status { code: 3, message: "a: bad".into() };
    let mut session = world().live().session;
    let nack = DeltaDiscoveryRequest { error_detail: Some(error), response_nonce: "1".into(), ..ask(POLICY) };
    let expected = Heard::Nacked { type_url: POLICY.into(), detail: "a: bad".into() };
    assert_eq!(session.request(nack).unwrap(), expected);
    assert_eq!(session.request(ask(POLICY)).unwrap(), Heard::Acked);
    assert_eq!(session.request(ask("secret")).unwrap_err().code(), tonic::Code::PermissionDenied);
    let fresh = || world().session;
    let everything = DeltaDiscoveryRequest { resource_names_subscribe: star(), ..ask(ADDRESS) };
    assert_eq!(fresh().request(everything.clone()).unwrap(), Heard::Subscribed);
    let named = DeltaDiscoveryRequest { resource_names_subscribe: vec!["x".into()], ..ask(ADDRESS) };
    let none = DeltaDiscoveryRequest { resource_names_unsubscribe: star(), ..everything };
    for on_demand in [named, none] {
        assert_eq!(fresh().request(on_demand).unwrap_err().code(), tonic::Code::Unimplemented);
    }
}

#[test]
fn a_name_is_answered_with_what_is_called_so_or_its_removal_and_then_forgotten() {
    let mut world = world().live();
    assert!(world.addresses.publish([set("a", b"/1"), set("b", b"/1"), set("c", b"/2")]).is_empty());
    assert_eq!(heard(&mut world.session), ["address +a +b +c"]);
    assert_eq!(world.session.request(question(&["/1", "c", "/3"])).unwrap(), Heard::Asked);
    assert_eq!(heard(&mut world.session), ["address +a +b +c -/3"]);
    assert!(heard(&mut world.session).is_empty());
    assert!(world.addresses.publish([set("a", b"/3"), remove("b")]).is_empty());
    heard(&mut world.session);
    world.session.request(question(&["/1", "/3"])).unwrap();
    assert_eq!(heard(&mut world.session), ["address +a -/1"], "aliases follow the content");
}

#[test]
fn an_answer_never_precedes_what_it_refers_to() {
    let mut world = world().live();
    assert!(world.policies.publish([set("p", b"")]).is_empty());
    assert!(world.addresses.publish([set("a", b"/1")]).is_empty());
    world.session.request(question(&["/1", "/2"])).unwrap();
    assert_eq!(heard(&mut world.session), ["address -/2", "policy +p", "address +a", "address +a"]);
}

#[test]
fn questions_put_before_the_initial_state_wait_for_it_and_are_bounded() {
    let mut world = world();
    world.policies.mark_synced();
    assert!(world.addresses.replace([("a".into(), Bytes::from_static(b"/1"))]).is_empty());
    world.session.request(ask(POLICY)).unwrap();
    world.session.request(question(&["*", "/1", "/2"])).unwrap();
    assert_eq!(heard(&mut world.session), ["policy", "address +a", "address +a -/2"]);
    let many = vec!["x"; QUERIES_MAX + 1];
    let refused = world.session.request(question(&many)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(world.session.request(question(&[&long])).unwrap_err().code(), tonic::Code::InvalidArgument);
}
