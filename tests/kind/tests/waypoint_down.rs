//! While a waypoint is down: are its services closed to everyone, and do they recover by
//! themselves?

use std::time::Duration;

use ambit_kind_tests::{
    Result,
    ask::{Ask, Reply, expect, tally},
    kubectl, mesh,
    outside::Outside,
    shop::Shop,
    wait, waypoint,
};
use anyhow::{Context as _, ensure};

const LIMIT: Duration = Duration::from_secs(90);

/// Address of a pod with this `app` label.
fn pod_ip(namespace: &str, app: &str) -> Result<String> {
    let pods = kubectl::items(&["get", "pods", "-n", namespace, "-l", &format!("app={app}")])?;
    let pod = pods.first().with_context(|| format!("no pod of {app}"))?;
    Ok(kubectl::text(pod, "/status/podIP").to_owned())
}

/// Removes the waypoint (and the operator, which would restore it), runs `work`, and restores both.
fn without_waypoint(namespace: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let operator = |replicas| kubectl::run(&["scale", "-n", mesh::SYSTEM, "deploy/ambit-operator", replicas]);
    let waypoint = |replicas| kubectl::run(&["scale", "-n", namespace, "deploy/waypoint", replicas]);
    let gone = |namespace: &str, pods: &str| {
        kubectl::run(&["wait", "-n", namespace, "pod", "-l", pods, "--for=delete", "--timeout=60s"])
    };
    let taken = || {
        operator("--replicas=0")?;
        gone(mesh::SYSTEM, "app=ambit-operator")?;
        waypoint("--replicas=0")?;
        waypoint::kill(namespace)?;
        gone(namespace, waypoint::PODS)
    };
    let done = taken().and_then(|_| work());
    operator("--replicas=2")?;
    waypoint("--replicas=1")?;
    done
}

fn none_answered(who: &str, replies: &[Reply]) -> Result<()> {
    let served = replies.iter().any(|reply| reply.is(200));
    ensure!(!served, "{who}: {:?}", tally(replies));
    Ok(())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_waypoint_that_is_down_closes_its_services_to_everyone() {
    let shop = Shop::start_with_waypoint("waypoint-down-test").unwrap();
    let outside = Outside::start("waypoint-down-outside", &shop.node_b).unwrap();
    let by_service = format!("http://cart.{}/", shop.namespace);
    let by_pod = format!("http://{}:8080/", pod_ip(shop.namespace, "cart").unwrap());
    let service = Ask { url: &by_service, times: 5, ..Ask::default() };
    let pod = Ask { url: &by_pod, ..service };
    let served = |what: &str| {
        wait::until(what, LIMIT, || {
            expect(&shop.ask(&service)?, 200)?;
            Ok(Some(()))
        })
    };
    served("a client in the mesh to be served").unwrap();

    let outsider = || none_answered("outside the mesh, by pod IP", &outside.ask(&pod)?);
    wait::until("nobody to get round the waypoint", LIMIT, || outsider().map(Some)).unwrap();
    // Within the mesh the request goes through the waypoint, which authorizes it.
    expect(&shop.ask(&pod).unwrap(), 200).unwrap();

    without_waypoint(shop.namespace, || {
        // Pods disappear from the API a moment before their processes end.
        wait::until("the last process of the waypoint to end", LIMIT, || {
            none_answered("in the mesh, by service", &shop.ask(&service)?).map(Some)
        })?;
        // Each attempt lasts until the client's timeout, so five of each kind are enough.
        none_answered("in the mesh, by pod IP", &shop.ask(&pod)?)?;
        none_answered("outside the mesh, by service", &outside.ask(&service)?)?;
        outsider()
    })
    .unwrap();

    served("the service to be back").unwrap();
    shop.load().settled(LIMIT).unwrap();
    outsider().unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    outside.stop().unwrap();
    shop.stop().unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn killed_under_load_a_waypoint_lets_nothing_round_its_policies_and_heals() {
    let shop = Shop::start_with_waypoint("waypoint-killed-test").unwrap();
    kubectl::apply(DENY).unwrap();
    let denied = Ask { url: "http://cart/admin/keys", ..Ask::default() };
    wait::until("the path to be denied", LIMIT, || {
        expect(&shop.ask(&denied)?, 403)?;
        Ok(Some(()))
    })
    .unwrap();

    let watcher = {
        let shop = shop.clone();
        let every = Duration::from_millis(50);
        std::thread::spawn(move || shop.ask(&Ask { times: 200, every, ..denied }))
    };
    waypoint::kill(shop.namespace).unwrap();
    let replies = watcher.join().unwrap().unwrap();
    none_answered("a denied path while the waypoint was gone", &replies).unwrap();
    shop.load().settled(LIMIT).unwrap();
    shop.stop().unwrap();
}

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: waypoint-killed-test}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin/*']}}]}]
";
