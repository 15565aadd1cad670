//! How a Service, its annotations and its namespace together determine load balancing.

use ambit_model::{
    LoadBalancingMode::{self, Failover, Standard, Strict},
    LoadBalancingScope::{self, Network, Node, Region, Subzone, Zone},
};

use super::*;

const CLOSE: [LoadBalancingScope; 4] = [Network, Region, Zone, Subzone];
const NEAREST_NODE: [LoadBalancingScope; 5] = [Network, Region, Zone, Subzone, Node];

/// Spec, annotation of the Service, annotation of the namespace, expected result.
type Case =
    (Value, Option<&'static str>, Option<&'static str>, LoadBalancingMode, &'static [LoadBalancingScope]);

fn annotated(value: Option<&str>) -> Value {
    value.map_or(json!({}), |value| json!({"networking.istio.io/traffic-distribution": value}))
}

fn service(spec: Value, annotation: Option<&str>) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
                  "metadata": {"name": "cart", "namespace": "shop", "annotations": annotated(annotation)}}))
}

fn of_namespace(annotation: Option<&str>) -> Object {
    object(json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": annotated(annotation)}}))
}

fn balancing(index: &Index) -> ambit_model::LoadBalancing {
    index.services().next().unwrap().load_balancing.clone()
}

#[test]
fn the_field_precedes_the_annotation_of_the_service_and_that_of_its_namespace() {
    let field = |value: &str| json!({"trafficDistribution": value});
    let (nothing, node) = (json!({}), Some("PreferSameNode"));
    let local = json!({"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"});
    let cases: Vec<Case> = vec![
        (nothing.clone(), None, None, Standard, &[]),
        (field("PreferClose"), None, None, Failover, &CLOSE),
        (field("PreferSameZone"), None, None, Failover, &CLOSE[..3]),
        (field("PreferSameNode"), None, None, Failover, &NEAREST_NODE),
        (field("PreferClose"), node, node, Failover, &CLOSE),
        (nothing.clone(), Some("PreferClose"), node, Failover, &CLOSE),
        (nothing.clone(), Some("preferclose"), None, Failover, &CLOSE),
        (nothing.clone(), None, node, Failover, &NEAREST_NODE),
        (nothing.clone(), Some("Any"), node, Standard, &[]),
        (nothing.clone(), Some("PreferMars"), node, Failover, &NEAREST_NODE),
        (nothing, Some("PreferMars"), None, Standard, &[]),
        (local, node, node, Strict, &[Node]),
    ];
    for (number, (spec, own, theirs, mode, scopes)) in cases.into_iter().enumerate() {
        let mut index = present();
        index.apply(of_namespace(theirs));
        index.apply(service(spec, own));
        let found = balancing(&index);
        assert_eq!((found.mode, &found.routing_preference[..]), (mode, scopes), "case {number}");
    }
}

#[test]
fn a_namespace_that_changes_its_mind_changes_the_services_that_leave_it_to_it() {
    let mut index = present();
    index.apply(service(json!({}), None));
    let key = index.services().next().unwrap().key();
    let changes = index.apply(of_namespace(Some("PreferClose")));
    assert_eq!((changes.services, balancing(&index).mode), (BTreeSet::from([key.clone()]), Failover));
    let again = index.apply(of_namespace(Some("PreferClose")));
    assert!(again.services.is_empty());
    index.apply(service(json!({"ports": [{"port": 80}]}), None));
    assert_eq!(balancing(&index).mode, Failover, "a change of the service does not forget it");
    let changes = index.apply(of_namespace(None));
    assert_eq!((changes.services, balancing(&index).mode), (BTreeSet::from([key]), Standard));
}

#[test]
fn clients_stay_with_an_endpoint_where_the_service_says_so() {
    let mut index = present();
    index.apply(service(json!({"sessionAffinity": "ClientIP"}), None));
    assert!(balancing(&index).by_client);
    index.apply(service(json!({"sessionAffinity": "None"}), None));
    assert!(!balancing(&index).by_client);
}
