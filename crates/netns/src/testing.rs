//! Network namespaces, links and addresses for tests that run as root.
//!
//! A namespace lives as long as its [`NetNs`] or a process in it; nothing is left in the file
//! system.

#![expect(clippy::expect_used, reason = "a fixture that fails is a test that fails")]

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::{NetNs, run_in};

/// One end of a link between two namespaces.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Namespace of this end.
    pub netns: &'a NetNs,
    /// Name of the device.
    pub device: &'a str,
    /// Addresses with prefix length; IPv6 skips duplicate detection.
    pub addresses: &'a [&'a str],
}

/// Creates a network namespace with its loopback device up.
#[must_use]
pub fn namespace() -> NetNs {
    let netns = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare: root is needed");
        NetNs::current().expect("open the new namespace")
    })
    .join()
    .expect("the thread that unshares");
    ip(&netns, &["link", "set", "lo", "up"]);
    netns
}

/// Connects two namespaces with a veth pair, sets the addresses and brings both ends up.
pub fn veth(one: End<'_>, other: End<'_>) {
    let other_file = format!("/proc/{}/fd/{}", std::process::id(), other.netns.as_fd().as_raw_fd());
    let peer = ["peer", "name", other.device, "netns", &other_file];
    ip(one.netns, &[&["link", "add", one.device, "type", "veth"][..], &peer].concat());
    for end in [one, other] {
        for address in end.addresses {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            ip(end.netns, &[&["address", "add", address, "dev", end.device][..], nodad].concat());
        }
        ip(end.netns, &["link", "set", end.device, "up"]);
    }
}

/// Runs `ip` in a namespace and returns its output.
pub fn ip(netns: &NetNs, arguments: &[&str]) -> String {
    let output = run_in(netns, || Command::new("ip").args(arguments).output())
        .expect("enter the namespace")
        .expect("run ip");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {errors}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
