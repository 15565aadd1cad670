use super::*;
use crate::testing::{Script, failure};

fn lease(holder: &str, version: &str) -> Lease {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "ambit-operator", "namespace": "ambit-system", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseTransitions": 4}
    }))
    .unwrap()
}

#[test]
fn a_lease_of_another_is_respected_until_it_was_seen_unchanged_for_its_whole_duration() {
    let (mut sight, start) = (Sight::default(), Instant::now());
    assert_eq!(sight.next(None, "me", start), Step::Create);
    assert_eq!(sight.next(Some(&lease("other", "1")), "me", start), Step::Wait);
    assert_eq!(
        sight.next(Some(&lease("other", "2")), "me", start + LEASE_DURATION),
        Step::Wait,
        "it was renewed"
    );
    assert_eq!(sight.next(Some(&lease("other", "2")), "me", start + LEASE_DURATION * 2), Step::Write);
    assert_eq!(sight.next(Some(&lease("me", "3")), "me", start), Step::Write);
    assert_eq!(sight.next(Some(&lease("", "4")), "me", start), Step::Write);
}

#[test]
fn taking_over_counts_a_transition_and_renewing_does_not() {
    let transitions = |lease: Lease| lease.spec.unwrap().lease_transitions;
    assert_eq!(transitions(mine(Some(lease("other", "1")), "me", Timestamp::UNIX_EPOCH)), Some(5));
    assert_eq!(transitions(mine(Some(lease("me", "1")), "me", Timestamp::UNIX_EPOCH)), Some(4));
}

#[tokio::test]
async fn a_writer_that_was_slower_does_not_lead() {
    let script = Script::new([failure(404, "NotFound"), failure(409, "AlreadyExists")]);
    let api: Api<Lease> = Api::namespaced(script.client(), names::NAMESPACE);
    assert!(!attempt(&api, &mut Sight::default(), "me").await.unwrap());
    let methods: Vec<_> = script.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["GET", "POST"]);
}

#[tokio::test]
async fn a_free_lease_is_taken_with_the_version_that_was_read() {
    let free = serde_json::to_value(lease("", "7")).unwrap();
    let script = Script::new([(200, free.clone()), (200, free)]);
    let api: Api<Lease> = Api::namespaced(script.client(), names::NAMESPACE);
    assert!(attempt(&api, &mut Sight::default(), "me").await.unwrap());
    let put = script.seen().pop().unwrap();
    assert_eq!(
        (put.method.as_str(), &put.body["metadata"]["resourceVersion"]),
        ("PUT", &serde_json::json!("7"))
    );
    assert_eq!(put.body["spec"]["holderIdentity"], "me");
}
