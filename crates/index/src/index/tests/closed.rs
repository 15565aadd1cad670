//! What a waypoint has closed, and what happens when the waypoint is lost.

use ambit_api::{conditions::reason, mesh::FailurePolicy};

use super::{waypoints::*, *};
use crate::policies::Holds;

/// How a waypoint is lost, and the expected reason in the Service's status.
type Loss = (&'static str, Box<dyn Fn(&mut Index)>, &'static str);

fn losses() -> Vec<Loss> {
    let class = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"}, "spec": {"controllerName": "example.com/somebody"}});
    let mut narrowed = gateway("w", json!({}));
    narrowed["spec"]["listeners"][0]["allowedRoutes"] =
        json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}});
    let for_pods = gateway("w", json!({"metadata": {"labels": {"istio.io/waypoint-for": "workload"}}}));
    let of_class = gateway("w", json!({"spec": {"gatewayClassName": "somebodys"}}));
    let apply = |value: Value| -> Box<dyn Fn(&mut Index)> {
        Box::new(move |index| drop(index.apply(object(value.clone()))))
    };
    let delete: Box<dyn Fn(&mut Index)> =
        Box::new(|index| drop(index.delete(&Key { kind: Kind::Gateway, name: name("w") })));
    vec![
        ("deleted", delete, reason::WAYPOINT_IS_NOT_READY),
        ("another class", apply(of_class), reason::WAYPOINT_IS_NOT_READY),
        ("a class of somebody else", apply(class), reason::WAYPOINT_IS_NOT_READY),
        ("narrowed", apply(narrowed), reason::ATTACHMENT_DENIED),
        ("for other traffic", apply(for_pods), reason::UNSUPPORTED_TRAFFIC_TYPE),
    ]
}

fn wait(index: &mut Index) {
    (0..6).for_each(|_| drop(settle(index)));
}

/// The Service as the API server returns it after the status was written.
fn written(index: &Index) -> Value {
    let patches = index.status_patches();
    let patch = patches.iter().find(|patch| patch.kind == Kind::Service).expect("a status to write");
    let conditions: Vec<Value> = patch
        .judgements
        .iter()
        .map(|said| {
            json!({"type": said.condition, "status": said.holds.as_str(), "reason": said.reason,
                   "message": said.message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect();
    service("cart", json!({"status": {"conditions": conditions}}))
}

#[test]
fn a_waypoint_that_is_lost_opens_nothing_while_a_label_asks_for_it() {
    for (how, lose, why) in losses() {
        let mut index = settled(Some("w"));
        lose(&mut index);
        assert_eq!(admitted(&index, "cart"), strings(&["w"]), "{how}: at once");
        wait(&mut index);
        assert_eq!(seen(&index, "cart"), (vec![], Some("w".into()), strings(&["w"])), "{how}");
        assert_eq!(bound_condition(&index), Some((Holds::False, why)), "{how}");
        index.apply(object(service("cart", json!({"metadata": {"labels": {"app": "x"}}}))));
        wait(&mut index);
        assert_eq!(admitted(&index, "cart"), strings(&["w"]), "{how}: nor does an unrelated change");
        index.apply(object(shop(None)));
        wait(&mut index);
        assert_eq!(seen(&index, "cart"), (vec![], None, vec![]), "{how}: without the label it is open");
    }
}

#[test]
fn what_was_closed_is_served_again_once_the_waypoint_is_back() {
    let mut index = settled(Some("w"));
    index.delete(&Key { kind: Kind::Gateway, name: name("w") });
    wait(&mut index);
    assert_eq!(index.missing_waypoints(), BTreeSet::from([name("w")]));
    let mut unready = gateway("w", json!({}));
    unready["status"] = json!({});
    index.apply(object(unready));
    wait(&mut index);
    assert_eq!(
        seen(&index, "cart"),
        (strings(&["w"]), Some("w".into()), strings(&["w"])),
        "it knows it before"
    );
    assert_eq!(bound_condition(&index), Some((Holds::False, reason::WAYPOINT_IS_NOT_READY)));
    index.apply(object(gateway("w", json!({}))));
    assert_eq!(bound_condition(&index), Some((Holds::True, reason::WAYPOINT_ACCEPTED)));
}

#[test]
fn a_typo_in_the_label_leaves_a_service_where_it_is() {
    let mut index = settled(Some("w"));
    index.apply(object(shop(Some("v"))));
    wait(&mut index);
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), strings(&["w"])));
    assert_eq!(bound_condition(&index), Some((Holds::False, reason::WAYPOINT_IS_NOT_READY)));
    index.delete(&Key { kind: Kind::Gateway, name: name("w") });
    wait(&mut index);
    assert_eq!(seen(&index, "cart"), (vec![], Some("w".into()), strings(&["w"])));
    index.apply(object(gateway("w", json!({}))));
    wait(&mut index);
    assert_eq!(
        seen(&index, "cart"),
        (strings(&["w"]), Some("w".into()), strings(&["w"])),
        "it may come back"
    );
    index.apply(object(gateway("v", json!({}))));
    wait(&mut index);
    assert_eq!(seen(&index, "cart"), (strings(&["v"]), Some("v".into()), strings(&["v"])));
}

#[test]
fn an_operator_that_starts_anew_opens_nothing_either() {
    for (how, lose, why) in losses() {
        let mut before = settled(Some("w"));
        // Whether or not the loss was seen and written to the status.
        for is_seen in [false, true] {
            if is_seen {
                lose(&mut before);
                wait(&mut before);
            }
            let objects =
                [shop(Some("w")), redirected("cart", json!({})), written(&before), gateway("w", json!({}))];
            for first in 0..objects.len() {
                let mut anew = present();
                for at in 0..objects.len() {
                    anew.apply(object(objects[(first + at) % objects.len()].clone()));
                }
                lose(&mut anew);
                anew.serve();
                let closed = (vec![], Some("w".into()), strings(&["w"]));
                assert_eq!(seen(&anew, "cart"), closed, "{how} {is_seen} {first}");
                wait(&mut anew);
                assert_eq!(seen(&anew, "cart"), closed, "{how} {is_seen} {first}, later");
                let condition = bound_condition(&anew);
                assert!(condition.is_none_or(|condition| condition == (Holds::False, why)), "{condition:?}");
            }
        }
    }
}

#[test]
fn what_was_never_closed_is_open_without_a_waypoint() {
    let mut index = settled(None);
    index.configure(Settings { failure_policy: FailurePolicy::Open, ..index.settings().clone() });
    index.apply(object(waypoint_pod("w-1", "w", "True")));
    index.apply(object(shop(Some("w"))));
    wait(&mut index);
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), vec![]));
    let conditions = written(&index)["status"]["conditions"].clone();
    assert_eq!(conditions.as_array().unwrap().len(), 1, "nobody is said to be refused: {conditions}");
    index.delete(&Key { kind: Kind::Gateway, name: name("w") });
    wait(&mut index);
    assert_eq!(seen(&index, "cart"), (vec![], None, vec![]));
}

/// A pod that its own label, or its namespace's, binds to a waypoint for pods.
fn closed_pod(own: bool) -> (Index, Vec<Value>) {
    let for_pods = json!({"metadata": {"labels": {"istio.io/waypoint-for": "workload"}}});
    let label = if own { json!({"istio.io/use-waypoint": "w"}) } else { json!({}) };
    let objects = vec![
        shop((!own).then_some("w")),
        redirected("cart", json!({"metadata": {"labels": label}})),
        gateway("w", for_pods),
    ];
    let mut index = present();
    objects.iter().for_each(|value| drop(index.apply(object(value.clone()))));
    index.serve();
    (index, objects)
}

fn is_closed_pod(index: &Index) -> bool {
    index.workload(CART).unwrap().is_guarded()
}

/// The annotation to write to the pod.
fn to_remember(index: &Index) -> Option<Option<String>> {
    let mut pods = index.pods_to_annotate();
    let found = pods.next().map(|(pod, waypoint)| (pod.name, waypoint.map(ToString::to_string)));
    found.map(|(pod, waypoint)| {
        assert_eq!(pod, name("cart"));
        waypoint
    })
}

#[test]
fn an_operator_that_starts_anew_opens_no_pod_that_was_closed_itself() {
    for own in [true, false] {
        let (mut before, mut objects) = closed_pod(own);
        assert!(is_closed_pod(&before));
        assert_eq!(to_remember(&before), Some(Some("shop/w".into())), "{own}");
        let outdated = objects[1].clone();
        let note = json!({"metadata": {"annotations": {"ambit.dev/waypoint-enforced": "shop/w"}}});
        merge(&mut objects[1], note);
        assert_eq!(before.apply(object(objects[1].clone())), Changes::default(), "the note is no news");
        assert_eq!(to_remember(&before), None, "it is written once");
        assert!(before.apply(object(outdated)).policy_status, "a note that is lost is written again");
        assert_eq!(to_remember(&before), Some(Some("shop/w".into())));
        before.apply(object(objects[1].clone()));
        let gateway = objects.pop().unwrap();
        for (is_lost, first) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
            let mut anew = present();
            (0..2).for_each(|at| drop(anew.apply(object(objects[(first + at) % 2].clone()))));
            if !is_lost {
                anew.apply(object(gateway.clone()));
            }
            anew.serve();
            assert!(is_closed_pod(&anew), "{own} {is_lost} {first}");
            wait(&mut anew);
            assert!(is_closed_pod(&anew), "{own} {is_lost} {first}, later");
            assert_eq!(to_remember(&anew), None, "{own} {is_lost} {first}");
            // Without a label no waypoint is requested: it opens, and the annotation is removed.
            let changes = anew.apply(object(shop(None)));
            let open = redirected(
                "cart",
                json!({"metadata": {"annotations": {"ambit.dev/waypoint-enforced": "shop/w"}}}),
            );
            let changes = [changes, anew.apply(object(open))];
            assert!(changes.iter().any(|changes| changes.policy_status), "the note is taken away");
            wait(&mut anew);
            assert!(!is_closed_pod(&anew), "{own} {is_lost} {first}: the label is gone");
            assert_eq!(to_remember(&anew), Some(None), "{own} {is_lost} {first}");
        }
    }
}

#[test]
fn a_note_on_a_pod_counts_for_an_operator_that_starts_only() {
    let mut index = closed_pod(true).0;
    let note = json!({"metadata": {"labels": {"istio.io/use-waypoint": "missing"}, "uid": "new",
                                   "annotations": {"ambit.dev/waypoint-enforced": "shop/other"}}});
    index.delete(&Key { kind: Kind::Pod, name: name("cart") });
    index.apply(object(redirected("cart", note)));
    wait(&mut index);
    assert!(!is_closed_pod(&index), "it is new, and was behind nothing");
    assert_eq!(to_remember(&index), Some(None));
}

#[test]
fn the_successor_of_a_closed_pod_is_announced_for_its_annotation() {
    let (mut index, objects) = closed_pod(true);
    assert_eq!(to_remember(&index), Some(Some("shop/w".into())));
    // Nothing was written to the pod before it was replaced under its name.
    let mut successor = objects[1].clone();
    successor["metadata"]["uid"] = json!("another");
    let changes = index.apply(object(successor));
    assert_eq!(to_remember(&index), Some(Some("shop/w".into())));
    assert!(changes.policy_status);
}
