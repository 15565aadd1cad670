//! PeerAuthentication at every level with every mode: which callers reach the port that it names,
//! and another one.

use ambit_model::{Connection, Spiffe};

use super::*;

/// `None`: there is no PeerAuthentication at this level.
const MODES: [Option<&str>; 5] = [None, Some("UNSET"), Some("DISABLE"), Some("PERMISSIVE"), Some("STRICT")];

fn peer(namespace: &str, spec: Value) -> Object {
    object(json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                  "metadata": {"name": "p", "namespace": namespace}, "spec": spec}))
}

fn is_let_in(index: &Index, caller: Option<&str>, port: u16) -> bool {
    let connection = Connection {
        source: caller.map(|name| Spiffe {
            trust_domain: "cluster.local".into(),
            namespace: "elsewhere".into(),
            service_account: name.into(),
        }),
        source_ip: "10.0.0.7".parse().unwrap(),
        destination_ip: "10.0.0.1".parse().unwrap(),
        destination_port: port,
    };
    let workload = index.workload(CART).unwrap();
    workload.authorization_policies.iter().all(|name| {
        let Some(policy) = index.policy(name) else { panic!("{name} is named and not published") };
        !policy.matches(&connection)
    })
}

/// Whether plaintext is refused with these levels, the most specific one last.
fn is_strict(levels: &[Option<&str>]) -> bool {
    let said = levels.iter().rev().flatten().find(|mode| **mode != "UNSET");
    said.is_some_and(|mode| *mode == "STRICT")
}

#[test]
fn the_most_specific_level_that_speaks_decides_about_plaintext_and_no_level_about_tunnels() {
    let combinations = MODES.iter().flat_map(|mesh| MODES.iter().map(move |namespace| (*mesh, *namespace)));
    for (mesh, namespace) in combinations {
        let whole = |mode: &str| json!({"mtls": {"mode": mode}});
        let mut index = present();
        index.apply(object(pod("cart", json!({}))));
        mesh.iter().for_each(|mode| drop(index.apply(peer("istio-system", whole(mode)))));
        namespace.iter().for_each(|mode| drop(index.apply(peer("shop", whole(mode)))));
        for (workload, port) in MODES.iter().flat_map(|all| MODES.iter().map(move |port| (*all, *port))) {
            let mut spec = json!({"selector": {"matchLabels": {"app": "cart"}}});
            workload.iter().for_each(|mode| merge(&mut spec, whole(mode)));
            port.iter().for_each(|mode| merge(&mut spec, json!({"portLevelMtls": {"8080": {"mode": mode}}})));
            let mut own = peer("shop", spec.clone());
            let Object::PeerAuthentication(written) = &mut own else { panic!("{spec}") };
            written.metadata.name = Some("own".into());
            index.apply(own);
            for (at, levels) in
                [(8080, vec![mesh, namespace, workload, port]), (9090, vec![mesh, namespace, workload])]
            {
                let what = format!("{levels:?} at {at}");
                assert_eq!(is_let_in(&index, None, at), !is_strict(&levels), "{what}");
                assert!(is_let_in(&index, Some("anybody"), at), "{what}");
            }
        }
    }
}
