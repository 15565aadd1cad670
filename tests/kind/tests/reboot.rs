//! When a node reboots while another program rewrites its network configuration, does a STRICT pod
//! ever answer plaintext?

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use ambit_kind_tests::{
    Result,
    ask::{Ask, expect},
    capture, kubectl, mesh, node,
    outside::Outside,
    wait,
};
use anyhow::{bail, ensure};

const NAMESPACE: &str = "reboot-test";
/// In every response of the pod, and in no request.
const MARKER: &str = "ANSWER-reboot-c0ffee";
/// The configuration file of the cluster's network on a node.
const CONFIG: &str = "/etc/cni/net.d/10-cluster.conflist";
/// Longest duration of a capture in seconds; the node must be back before it ends.
const SECONDS: u64 = 240;
/// Default for the number of reboots (`REBOOTS`).
const REBOOTS: usize = 2;

const MANIFEST: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: reboot-test, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: reboot-test}
spec: {publishNotReadyAddresses: true, selector: {app: server}, ports: [{name: http, port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: reboot-test}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      nodeSelector: {kubernetes.io/hostname: @A@}
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: 'localhost/ambit-box:dev'
        imagePullPolicy: IfNotPresent
        command: [/bin/shop, cart, --redis, '127.0.0.1:6379']
        env: [{name: VERSION, value: @MARKER@}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
      - {name: redis, image: 'localhost/ambit-redis:dev', imagePullPolicy: IfNotPresent}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: reboot-test}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      nodeSelector: {kubernetes.io/hostname: @B@}
      terminationGracePeriodSeconds: 1
      containers:
      - {name: client, image: 'localhost/ambit-box:dev', imagePullPolicy: IfNotPresent, command: [/bin/sleep, '1000000']}
";

const STRICT: &str = r"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: reboot-test}
spec: {mtls: {mode: STRICT}}
";

/// Sends requests without pause until stopped; returns the number of responses.
fn answers(outside: &Outside, url: &str, stop: &AtomicBool) -> Result<usize> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = ["/bin/shop", "ask", "-n", "40", "-every", "10ms", "-t", "250ms", url];
        let (_, text) = kubectl::exec(outside.namespace, "deploy/outside", &asked)?;
        count += text.lines().filter(|line| line.contains("\"status\":")).count();
    }
    Ok(count)
}

/// Acts like a network plugin that owns its file: writes it when it starts, and again later.
fn rewrite(name: &str, text: &str, rewritten: &AtomicUsize, stop: &AtomicBool) {
    let line = format!("rm -f {CONFIG}; printf '%s\\n' '{}' > {CONFIG}", text.trim_end());
    while !stop.load(Ordering::Relaxed) {
        // The node is down for a while.
        if node::shell(name, &line).is_ok() {
            rewritten.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn server() -> Result<serde_json::Value> {
    let pods = kubectl::items(&["get", "pods", "-n", NAMESPACE, "-l", "app=server"])?;
    let [pod] = pods.as_slice() else { bail!("one pod of the server is expected, found {}", pods.len()) };
    Ok(pod.clone())
}

fn restarts(pod: &serde_json::Value) -> u64 {
    let count = pod.pointer("/status/containerStatuses/0/restartCount");
    count.and_then(serde_json::Value::as_u64).unwrap_or_default()
}

/// Waits until the same pod runs again and is ready, and a client of the mesh gets a response.
fn until_back(url: &str, before: &serde_json::Value) -> Result<()> {
    wait::until("the pod to run again", Duration::from_secs(SECONDS), || {
        let pod = server()?;
        let ready = pod.pointer("/status/containerStatuses/0/ready").and_then(serde_json::Value::as_bool);
        ensure!(restarts(&pod) > restarts(before), "not started again yet");
        ensure!(ready == Some(true), "not ready yet");
        expect(&Ask { url, ..Ask::default() }.from(NAMESPACE, "deploy/client")?, 200)?;
        Ok(Some(()))
    })?;
    Ok(())
}

/// One reboot, captured until the node is back: plaintext responses that the outside client got,
/// and packets with the marker.
fn reboot(
    name: &str,
    observer: &str,
    outside: &Outside,
    (url, config): (&str, &str),
) -> Result<(usize, u64)> {
    let before = server()?;
    let capture = capture::start(observer, MARKER, SECONDS)?;
    let (stop, rewritten) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered = thread::scope(|scope| {
        let asking = scope.spawn(|| answers(outside, url, &stop));
        scope.spawn(|| rewrite(name, config, &rewritten, &stop));
        let back = node::restart(name).and_then(|()| until_back(url, &before));
        stop.store(true, Ordering::Relaxed);
        let answered = asking.join().map_err(|_| anyhow::anyhow!("the client outside died"))?;
        back.and(answered)
    })?;
    ensure!(rewritten.load(Ordering::Relaxed) > 0, "nobody rewrote the configuration");
    Ok((answered, capture.end()?.marker))
}

#[test]
#[ignore = "needs the test cluster with the mesh: make reboot-tests"]
fn a_node_that_starts_again_lets_nobody_in_unjudged() {
    mesh::require_ready().unwrap();
    let nodes = mesh::nodes().unwrap();
    let (name, observer) = (nodes[0].as_str(), nodes[1].as_str());
    kubectl::apply(&MANIFEST.replace("@A@", name).replace("@B@", observer).replace("@MARKER@", MARKER))
        .unwrap();
    for deployment in ["deploy/server", "deploy/client"] {
        kubectl::run(&["rollout", "status", "-n", NAMESPACE, deployment, "--timeout=120s"]).unwrap();
    }
    mesh::until_enrolled(NAMESPACE, mesh::Enrolled::All).unwrap();
    let outside = Outside::start("reboot-outside", observer).unwrap();
    let service = kubectl::json(&["get", "service", "-n", NAMESPACE, "server"]).unwrap();
    let url = format!("http://{}:8080/", kubectl::text(&service, "/spec/clusterIP"));
    let config = node::shell(name, &format!("cat {CONFIG}")).unwrap();
    assert!(!config.contains("ambit"), "the file of others stays as it is: {config}");

    // Without STRICT the response is readable, so the capture works.
    let capture = capture::start(observer, MARKER, SECONDS).unwrap();
    wait::until("an answer in plaintext", Duration::from_secs(30), || {
        let question = Ask { url: &url, times: 10, ..Ask::default() };
        Ok(outside.ask(&question)?.iter().all(|reply| reply.is(200)).then_some(()))
    })
    .unwrap();
    assert!(capture.end().unwrap().marker > 0);
    kubectl::apply(STRICT).unwrap();
    wait::until("STRICT to hold", Duration::from_secs(30), || {
        let replies = outside.ask(&Ask { url: &url, ..Ask::default() })?;
        Ok(replies.iter().all(|reply| reply.status.is_none()).then_some(()))
    })
    .unwrap();

    #[expect(clippy::disallowed_methods, reason = "test programs are configured by the environment")]
    let count = std::env::var("REBOOTS").ok().and_then(|count| count.parse().ok()).unwrap_or(REBOOTS);
    let began = Instant::now();
    for number in 1..=count {
        let (answered, readable) = reboot(name, observer, &outside, (&url, &config)).unwrap();
        assert_eq!(
            (answered, readable),
            (0, 0),
            "answers and packets in plaintext at reboot {number} of {count}"
        );
        println!("{number} of {count} reboots in {} s: nothing in plaintext", began.elapsed().as_secs());
    }
    outside.stop().unwrap();
    kubectl::run(&["delete", "namespace", NAMESPACE, "--timeout=120s"]).unwrap();
}
