//! Forwarded packets of an enrolled pod.

use std::{net::SocketAddr, net::TcpStream, time::Duration};

use ambit_netns::{
    run_in,
    testing::{End, ip, namespace, veth},
};
use ambit_proto::node::Wanted;

use crate::fixture::{PEER, PORT, Proxy, World};

#[test]
#[ignore = "needs root: make test-netns"]
fn a_device_that_appears_in_an_enrolled_pod_is_covered() {
    World::run(async |world| {
        world.describe(Wanted::L4, &["10.78.0.2"]);
        let proxy = Proxy::connect(&world.zds, "one", Vec::new()).await;
        world.wait_enrolled().await;
        let inner = namespace();
        veth(
            End { netns: &world.pod, device: "nest", addresses: &["172.31.7.1/24"] },
            End { netns: &inner, device: "eth0", addresses: &["172.31.7.2/24"] },
        );
        ip(&inner, &["route", "add", "default", "via", "172.31.7.1"]);
        run_in(&world.pod, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap().unwrap();
        let to: SocketAddr = format!("{PEER}:{PORT}").parse().unwrap();
        // Packets sent before the device is covered are dropped, and sent again.
        let client = tokio::task::spawn_blocking(move || {
            run_in(&inner, || TcpStream::connect_timeout(&to, Duration::from_secs(10))).unwrap()
        });
        assert_eq!(proxy.accept().await, to, "its true destination");
        client.await.unwrap().unwrap();
    });
}
