//! A pod on a node of its own: real namespaces, redirection and ZDS; only the proxy is a stand-in.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fixture that fails is a test that fails"
)]

mod cgroups;
mod fixture;
mod forwarding;

use std::time::Duration;

use ambit_cni::{
    DISCONNECTED_TIME_MAX, admit,
    plugin::protocol::{Answer, Request},
};
use ambit_netns::testing::{ip, namespace};
use ambit_proto::node::Wanted;
use fixture::{PEER, PORT, Proxy, World, soon};

#[test]
#[ignore = "needs root: make test-netns"]
fn a_running_pod_is_enrolled_served_through_proxy_restarts_and_let_go() {
    World::run(async |world| {
        world.describe(Wanted::L4, &["10.78.0.2"]);
        world.wait_problem("ProxyNotConnected").await;
        assert!(world.pod_connects(PORT).await, "still outside the mesh");

        let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
        world.wait_enrolled().await;
        let client = world.pod_client(PORT);
        assert_eq!(proxy.accept().await.to_string(), format!("{PEER}:{PORT}"), "its true destination");
        assert!(client.await.unwrap());

        // The proxy dies: connections wait for the next one, and are refused when none comes.
        let held = proxy.die();
        let waiting = world.pod_client(PORT);
        let proxy = Proxy::connect(&world.zds, "two", held).await;
        proxy.accept().await;
        assert!(waiting.await.unwrap(), "it waited in the queue");
        let held = proxy.die();
        world.wait_breaker().await;
        assert!(!world.pod_connects(PORT).await, "refused, not in plaintext");

        // A newer proxy re-arms. When an even newer one takes over, the older one is drained.
        let older = Proxy::connect(&world.zds, "three", held).await;
        world.wait_enrolled().await;
        let client = world.pod_client(PORT);
        older.accept().await;
        assert!(client.await.unwrap());
        let newer = Proxy::connect(&world.zds, "four", Vec::new()).await;
        older.drained().await;
        drop(older);

        world.describe(Wanted::Out, &["10.78.0.2"]);
        newer.withdrawn().await;
        world.wait_left().await;
        assert!(world.pod_connects(PORT).await, "plaintext again");
    });
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_starts_waits_for_its_enrollment_and_others_start_at_once() {
    World::run(async |world| {
        world.enroll_namespace();
        let sandbox = namespace();
        ip(&sandbox, &["address", "add", "10.78.0.9/32", "dev", "lo"]);
        let request = Request {
            container_id: "c".into(),
            netns: fixture::path_of(&sandbox),
            ifname: "eth0".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            uid: world.uid.clone(),
            ips: vec!["10.78.0.9".into()],
        };
        let stranger = Request { namespace: "other".into(), uid: "unknown".into(), ..request.clone() };
        let before = std::time::Instant::now();
        assert_eq!(admit(&world.node, &stranger).await, Answer::Allow);
        assert!(before.elapsed() < Duration::from_secs(3));

        let node = world.node.clone();
        let admitted = tokio::spawn(async move { admit(&node, &request).await });
        world.describe(Wanted::L4, &[]);
        let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
        assert_eq!(soon(admitted).await.unwrap(), Answer::Allow);
        assert!(world.is_enrolled());
        drop(proxy);
    });
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_with_a_label_of_its_own_waits_until_the_operator_names_it_and_is_written_down() {
    World::run_over_restart(
        async |world| {
            let sandbox = namespace();
            ip(&sandbox, &["address", "add", "10.78.0.9/32", "dev", "lo"]);
            let request = Request {
                container_id: "c".into(),
                netns: fixture::path_of(&sandbox),
                ifname: "eth0".into(),
                namespace: "shop".into(),
                name: "cart".into(),
                uid: world.uid.clone(),
                ips: vec!["10.78.0.9".into()],
            };
            // No namespace is enrolled; the operator is connected but slow.
            world.node.set_operator_connected(true);
            let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
            let node = world.node.clone();
            let mut admitted = tokio::spawn(async move { admit(&node, &request).await });
            let early = tokio::time::timeout(2 * DISCONNECTED_TIME_MAX, &mut admitted).await;
            assert!(early.is_err(), "not before the operator said whether it is wanted: {early:?}");
            world.describe(Wanted::L4, &[]);
            assert_eq!(soon(admitted).await.unwrap(), Answer::Allow);
            assert!(world.is_enrolled());
            world.node.synced();
            assert!(world.kept().holds("shop", &world.uid));
            assert!(!world.kept().holds("shop", "another"), "its namespace is not enrolled");
            proxy.die()
        },
        async |world, _| {
            // The next agent knows it before the operator connects, and forgets it once the
            // operator describes other pods.
            assert!(world.kept().holds("shop", &world.uid));
            world.node.synced();
            assert!(!world.kept().holds("shop", &world.uid));
        },
    );
}

#[test]
#[ignore = "needs root: make test-netns"]
fn an_agent_that_is_killed_leaves_pods_protected_and_the_next_one_takes_them_over() {
    World::run_over_restart(
        async |world| {
            world.describe(Wanted::L4, &["10.78.0.2"]);
            let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
            world.wait_enrolled().await;
            proxy.die()
        },
        async |world, held| {
            // The operator is not connected yet; the proxy comes back with its listeners and is
            // told to keep them.
            let waiting = world.pod_client(PORT);
            let proxy = Proxy::connect(&world.zds, "one", held).await;
            proxy.accept().await;
            assert!(waiting.await.unwrap(), "never refused, never in plaintext");
            world.describe(Wanted::L4, &["10.78.0.2"]);
            world.node.synced();
            world.wait_enrolled().await;
            let client = world.pod_client(PORT);
            proxy.accept().await;
            assert!(client.await.unwrap());

            world.describe(Wanted::Out, &["10.78.0.2"]);
            proxy.withdrawn().await;
            assert!(world.pod_connects(PORT).await, "plaintext again");
        },
    );
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_killed_agent_and_a_killed_proxy_leave_pods_closed() {
    World::run_over_restart(
        async |world| {
            world.describe(Wanted::L4, &["10.78.0.2"]);
            let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
            world.wait_enrolled().await;
            drop(proxy.die());
            Vec::new()
        },
        async |world, _| {
            assert!(!world.pod_connects(PORT).await, "closed");
            world.describe(Wanted::L4, &["10.78.0.2"]);
            world.node.synced();
            let proxy = Proxy::connect(&world.zds, "two", Vec::new()).await;
            world.wait_enrolled().await;
            let client = world.pod_client(PORT);
            proxy.accept().await;
            assert!(client.await.unwrap());
        },
    );
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_is_labelled_while_it_runs_keeps_its_connections() {
    World::run(async |world| {
        let held = world.pod_holds().await;
        let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
        world.describe(Wanted::L4, &["10.78.0.2"]);
        world.wait_enrolled().await;
        assert_eq!(world.held(), 1, "it was opened by right");
        world.describe(Wanted::Out, &["10.78.0.2"]);
        world.wait_left().await;
        // It was in the mesh once: connections that it opened outside are legitimate, whatever the
        // description is now.
        world.describe_as(Wanted::L4, &["10.78.0.2"], true);
        world.wait_enrolled().await;
        assert_eq!(world.held(), 1);
        world.let_go();
        soon(held).await.unwrap();
        drop(proxy);
    });
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_ran_before_it_could_be_enrolled_loses_what_nobody_judged() {
    World::run(async |world| {
        let held = world.pod_holds().await;
        world.describe_as(Wanted::L4, &["10.78.0.2"], true);
        world.wait_problem("ProxyNotConnected").await;
        assert_eq!(world.held(), 1, "not before it is enrolled");
        let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
        world.wait_enrolled().await;
        assert_eq!(world.held(), 0, "nobody had judged it");
        soon(held).await.unwrap();
        // New connections go through the proxy.
        let client = world.pod_client(PORT);
        proxy.accept().await;
        assert!(client.await.unwrap());
    });
}

#[test]
#[ignore = "needs root: make test-netns"]
fn after_a_restart_of_the_node_what_ran_before_the_agent_is_late() {
    World::run_over_restart(
        async |world| {
            world.enroll_namespace();
            // The state after a reboot: the state file exists, and nothing is pinned.
            world.kernel.call(|kernel| kernel.remove_everything()).await.unwrap();
            Vec::new()
        },
        async |world, _| {
            let held = world.pod_holds().await;
            world.describe(Wanted::L4, &["10.78.0.2"]);
            let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
            world.wait_enrolled().await;
            assert_eq!(world.held(), 0);
            soon(held).await.unwrap();
            drop(proxy);
        },
    );
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_node_that_the_mesh_leaves_keeps_no_trace_in_its_pods() {
    World::run(async |world| {
        // Only IPv4, because link-local IPv6 addresses come and go by themselves.
        let traces = || (ip(&world.pod, &["rule"]), ip(&world.pod, &["-4", "route", "show", "table", "all"]));
        let before = traces();
        world.describe(Wanted::L4, &["10.78.0.2"]);
        let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
        world.wait_enrolled().await;
        assert_ne!(ip(&world.pod, &["rule"]), before.0);
        world.decommission();
        assert!(world.node.cleared(Duration::from_secs(20)).await);
        assert!(world.kernel.call(|kernel| kernel.inherited()).await.unwrap().is_empty());
        world.kernel.call(|kernel| kernel.remove_everything()).await.unwrap();
        assert_eq!(traces(), before);
        assert!(world.pod_connects(PORT).await);
        proxy.withdrawn().await;
    });
}
