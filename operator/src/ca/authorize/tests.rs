use super::*;
use crate::ca::CallerPod;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Pods(Vec<PodIdentity>);

impl NodePods for Pods {
    fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
        self.0.iter().find(|pod| pod.name == *name).cloned()
    }

    fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity> {
        self.0.iter().find(|pod| &*pod.uid == uid).cloned()
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        self.0.iter().any(|pod| {
            !pod.terminated
                && &*pod.node == node
                && &*pod.name.namespace == namespace
                && &*pod.service_account == service_account
        })
    }

    fn redirected_on(&self, _: &str) -> Vec<PodIdentity> {
        Vec::new()
    }

    fn node_uid(&self, _: &str) -> Option<Arc<str>> {
        None
    }

    fn waypoint_of(&self, pod: &NamespacedName) -> Option<NamespacedName> {
        (*pod == NamespacedName::new("shop", "waypoint-1")).then(|| NamespacedName::new("shop", "waypoint"))
    }

    fn waypoint_of_account(&self, namespace: &str, service_account: &str) -> Option<NamespacedName> {
        let name = NamespacedName::new(namespace, service_account);
        (name == NamespacedName::new("shop", "waypoint")).then_some(name)
    }
}

fn pod(name: (&str, &str), account: &str, node: &str) -> PodIdentity {
    PodIdentity {
        uid: format!("uid-{}", name.1).into(),
        name: NamespacedName::new(name.0, name.1),
        service_account: account.into(),
        node: node.into(),
        terminated: false,
    }
}

fn cluster() -> Pods {
    Pods(vec![
        pod(("ambit-system", "ztunnel-1"), "ztunnel", "n1"),
        pod(("ambit-system", "odd"), "default", "n1"),
        pod(("ambit-system", "floating"), "ztunnel", ""),
        pod(("shop", "cart"), "cart", "n1"),
        pod(("shop", "pay"), "pay", "n2"),
        pod(("shop", "waypoint-1"), "waypoint", "n1"),
        pod(("shop", "dev"), "waypoint", "n1"),
        pod(("shop", "static"), "", "n1"),
        PodIdentity { terminated: true, ..pod(("shop", "job"), "job", "n1") },
    ])
}

fn caller(namespace: &str, account: &str, pod: &str) -> Caller {
    Caller {
        namespace: namespace.into(),
        service_account: account.into(),
        pod: Some(CallerPod { name: pod.into(), uid: format!("uid-{pod}").into() }),
        node: Some("n1".into()),
        expires: None,
    }
}

fn ztunnel() -> Caller {
    caller("ambit-system", "ztunnel", "ztunnel-1")
}

fn judge(caller: &Caller, impersonated: Option<&str>, names: &[&str], ttl: i64) -> Result<Grant, Refusal> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate_request = CertificateRequest { caller, impersonated, names: &names, ttl_seconds: ttl };
    authorize(&certificate_request, &"cluster.local".into(), DAY, &cluster())
}

#[test]
fn judges_the_caller() {
    let of = |change: fn(&mut Caller)| {
        let mut caller = ztunnel();
        change(&mut caller);
        caller
    };
    let stale = |c: &mut Caller| c.pod = Some(CallerPod { name: "ztunnel-1".into(), uid: "older".into() });
    for (name, caller, expected) in [
        ("the node's ztunnel", ztunnel(), Ok(())),
        ("a token that names no node", of(|c| c.node = None), Ok(())),
        ("a token of any pod", of(|c| c.pod = None), Err(Refusal::Unbound)),
        ("a stale uid", of(stale), Err(Refusal::UnknownPod)),
        ("a pod nobody knows", caller("ambit-system", "ztunnel", "new"), Err(Refusal::UnknownPod)),
        ("a pod of another account", caller("ambit-system", "ztunnel", "odd"), Err(Refusal::PodMismatch)),
        ("a pod bound to no node", caller("ambit-system", "ztunnel", "floating"), Err(Refusal::NodeMismatch)),
        ("a token of another node", of(|c| c.node = Some("n2".into())), Err(Refusal::NodeMismatch)),
        ("a wrong account", caller("ambit-system", "default", "odd"), Err(Refusal::NotANodeProxy)),
        ("a pod that names itself", caller("shop", "cart", "cart"), Ok(())),
    ] {
        let judged = judge(&caller, Some("spiffe://cluster.local/ns/shop/sa/cart"), &[], 0).map(|_| ());
        assert_eq!(judged, expected, "{name}");
    }
}

#[test]
fn judges_the_identity() {
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    for (name, identity, names, expected) in [
        ("a pod of this node", cart, vec![], Ok(())),
        ("named in the request", cart, vec![cart], Ok(())),
        (
            "another name in the request",
            cart,
            vec!["spiffe://cluster.local/ns/shop/sa/pay"],
            Err(Refusal::NameMismatch),
        ),
        ("a second name", cart, vec![cart, "spiffe://other/ns/shop/sa/cart"], Err(Refusal::NameMismatch)),
        (
            "a name with a NUL",
            cart,
            vec!["spiffe://cluster.local/ns/shop/sa/cart\0"],
            Err(Refusal::NameMismatch),
        ),
        ("another node's pod", "spiffe://cluster.local/ns/shop/sa/pay", vec![], Err(Refusal::NotOnNode)),
        (
            "a pod without an account",
            "spiffe://cluster.local/ns/shop/sa/default",
            vec![],
            Err(Refusal::NotOnNode),
        ),
        ("nobody", "spiffe://cluster.local/ns/shop/sa/", vec![], Err(Refusal::Malformed)),
        (
            "a waypoint, of which a pod is on this node",
            "spiffe://cluster.local/ns/shop/sa/waypoint",
            vec![],
            Err(Refusal::NotOfWaypoint),
        ),
        ("a completed pod", "spiffe://cluster.local/ns/shop/sa/job", vec![], Err(Refusal::NotOnNode)),
        (
            "a foreign trust domain",
            "spiffe://other/ns/shop/sa/cart",
            vec![],
            Err(Refusal::ForeignTrustDomain),
        ),
        ("a NUL", "spiffe://cluster.local/ns/shop/sa/cart\0", vec![], Err(Refusal::Malformed)),
        ("more path", "spiffe://cluster.local/ns/shop/sa/cart/x", vec![], Err(Refusal::Malformed)),
        ("nothing", "", vec![], Err(Refusal::Malformed)),
    ] {
        assert_eq!(judge(&ztunnel(), Some(identity), &names, 0).map(|_| ()), expected, "{name}");
    }
}

#[test]
fn whoever_names_nobody_asks_for_itself() {
    let own = |caller: &Caller| judge(caller, None, &[], 0).map(|grant| grant.identity.to_string());
    assert_eq!(own(&caller("shop", "cart", "cart")).unwrap(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(
        own(&caller("shop", "waypoint", "waypoint-1")).unwrap(),
        "spiffe://cluster.local/ns/shop/sa/waypoint"
    );
    assert_eq!(
        own(&caller("shop", "waypoint", "dev")).unwrap_err(),
        Refusal::NotOfWaypoint,
        "a user's pod under the waypoint's account"
    );
    assert_eq!(own(&ztunnel()).unwrap(), "spiffe://cluster.local/ns/ambit-system/sa/ztunnel");
    assert_eq!(
        own(&caller("shop", "job", "job")).unwrap_err(),
        Refusal::PodMismatch,
        "its containers have ended"
    );
}

#[test]
fn life_is_what_is_usual_at_most_and_asking_for_far_more_is_an_error() {
    let granted = |seconds| judge(&ztunnel(), None, &[], seconds).map(|grant| grant.ttl);
    let days = |days: u64| i64::try_from(days * DAY.as_secs()).unwrap();
    for (seconds, expected) in [
        (i64::MIN, Ok(DAY)),
        (0, Ok(DAY)),
        (60, Ok(Duration::from_secs(60))),
        (days(2), Ok(DAY)),
        (days(90), Ok(DAY)),
        (days(90) + 1, Err(Refusal::TtlTooLong)),
        (i64::MAX, Err(Refusal::TtlTooLong)),
    ] {
        assert_eq!(granted(seconds), expected, "{seconds}");
    }
}
