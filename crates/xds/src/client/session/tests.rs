use bytes::Bytes;

use super::*;
use crate::{Node, client};

/// Stores what it receives; rejects names that start with `bad`.
#[derive(Default)]
struct Held {
    names: BTreeMap<String, Bytes>,
    removed: Vec<String>,
}

impl Handler for Held {
    fn apply(&mut self, _: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        for name in removed {
            self.names.remove(&name);
            self.removed.push(name);
        }
        let mut rejections = Vec::new();
        for resource in resources {
            if resource.name.starts_with("bad") {
                rejections.push(Rejection { name: resource.name, reason: "no".into() });
            } else {
                self.names.insert(resource.name, resource.bytes);
            }
        }
        rejections
    }
}

fn session() -> ClientSession {
    ClientSession::new(&client::Config {
        node: Node { id: "n".into(), metadata: BTreeMap::from([("NODE_NAME".into(), "n1".into())]) },
        types: vec!["t"],
        token_path: None,
        cluster_id: "Kubernetes".into(),
    })
}

fn resource(name: &str, version: &str) -> Bytes {
    let content = wire::Any { type_url: "t".into(), value: Bytes::from_static(b"body") };
    let resource = wire::EncodedResource {
        version: version.into(),
        resource: Some(content),
        name: name.into(),
        aliases: vec![format!("/{name}")],
    };
    resource.encode_to_vec().into()
}

fn response(resources: Vec<Bytes>) -> wire::Response {
    wire::Response { type_url: "t".into(), nonce: "7".into(), resources, ..wire::Response::default() }
}

#[test]
fn good_resources_of_a_refused_response_are_applied_and_the_bad_are_named() {
    let (mut session, mut held) = (session(), Held::default());
    let first = session.open().remove(0);
    assert!(first.node.is_some() && first.resource_names_subscribe.is_empty());
    let answer = session.receive(
        response(vec![resource("good", "1"), resource("bad/1", "1"), resource("bad/2", "1")]),
        &mut held,
        |_, _| {},
    );
    assert_eq!(answer.response_nonce, "7");
    assert_eq!(answer.error_detail.unwrap().message, "bad/1: no; bad/2: no");
    assert!(held.names.contains_key("good") && session.is_synced());
    let again = session.open().remove(0).initial_resource_versions;
    assert_eq!(again.get("good").map(String::as_str), Some("1"));
    assert_eq!(again.get("bad/1").map(String::as_str), Some(""), "no content has this version");
}

#[test]
fn bytes_that_are_no_resource_and_types_not_asked_for_are_refused() {
    let (mut session, mut held) = (session(), Held::default());
    let foreign = wire::EncodedResource {
        resource: Some(wire::Any::default()),
        name: "f".into(),
        ..Default::default()
    };
    let broken = vec![Bytes::from_static(&[0xff]), foreign.encode_to_vec().into(), resource("good", "1")];
    let answer = session.receive(response(broken), &mut held, |_, _| {});
    let message = answer.error_detail.unwrap().message;
    assert!(message.starts_with("?: ") && message.contains("f: its content is a "), "{message}");
    assert!(held.names.contains_key("good"));
    let other = wire::Response { type_url: "x".into(), ..wire::Response::default() };
    assert!(session.receive(other, &mut held, |_, _| {}).error_detail.is_some());
}

#[test]
fn is_synced_only_when_the_initial_state_is_complete() {
    let (mut session, mut held) = (session(), Held::default());
    session.open();
    let mut part = response(vec![resource("a", "1")]);
    part.system_version_info = wire::PARTIAL.into();
    session.receive(part, &mut held, |_, _| {});
    assert!(!session.is_synced());
    session.receive(response(vec![resource("b", "1")]), &mut held, |_, _| {});
    assert!(session.is_synced());
    session.open();
    assert!(session.is_synced(), "a lost stream does not take it back");
}

#[test]
fn what_does_not_fit_into_the_first_request_is_gone_unless_the_server_names_it() {
    let (mut session, mut held) = (session(), Held::default());
    session.open();
    let long = "x".repeat(1 << 20);
    let names: Vec<String> = (0..4).map(|n| format!("{n}{long}")).collect();
    session.receive(response(names.iter().map(|name| resource(name, "1")).collect()), &mut held, |_, _| {});
    let request = session.open().remove(0);
    assert!(request.encoded_len() < crate::GRPC_MESSAGE_BYTES_MAX);
    assert_eq!(request.initial_resource_versions.len(), 2);
    session.receive(response(vec![resource(&names[3], "1")]), &mut held, |_, _| {});
    assert_eq!(held.removed, [names[2].clone()]);
    let kept: Vec<_> = held.names.keys().cloned().collect();
    assert_eq!(kept, [names[0].clone(), names[1].clone(), names[3].clone()]);
}

#[test]
fn names_are_answered_by_aliases_of_what_arrives_and_by_removals() {
    let (mut session, mut held) = (session(), Held::default());
    let mut said = Vec::new();
    let given = wire::Response {
        removed_resources: vec!["/gone".into()],
        ..response(vec![resource("a", "1"), resource("bad", "1")])
    };
    session.receive(given, &mut held, |name, answer| said.push((name.to_owned(), answer)));
    let expected = [("/a", Answer::Known), ("/bad", Answer::Known), ("/gone", Answer::Unknown)];
    assert_eq!(said, expected.map(|(name, answer)| (name.to_owned(), answer)));
    assert!(held.removed.is_empty(), "the handler never knew it");
}
