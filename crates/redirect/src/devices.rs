//! The network devices of a pod: outer ones lead out of it, inner ones to a container or virtual
//! machine inside it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use ambit_netns::{NetNs, run_in};
use ambit_redirect_common::OUTER_MAX;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use crate::object::program;
use crate::raw::AttachPoint;
use crate::{Error, Result};

/// Devices of a pod that are covered; packets from further ones are dropped when they leave the
/// pod.
const DEVICES_MAX: usize = 64;
const LOOPBACK: &str = "lo";
/// The name container runtimes give the device that leads out of a pod, also while a bridge has its
/// address.
const POD_DEVICE: &str = "eth0";
/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const CHANGES: u32 = 0x1 | 0x10 | 0x100;
/// Bytes read of a notification; its content is ignored.
const NOTIFICATION_BYTES_MAX: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// Leads out of the pod.
    Outer,
    /// Leads inside, and the pod's annotation requests rerouting.
    Rerouted,
    /// Leads inside.
    Inner,
}

impl Device {
    /// The programs to attach to the device.
    pub(crate) fn programs(&self) -> Vec<(&'static str, AttachPoint)> {
        let leaving = (program::LEAVING, AttachPoint::TcxEgress);
        match self.role {
            Role::Outer => vec![leaving],
            Role::Rerouted => vec![leaving, (program::REROUTED, AttachPoint::TcxIngress)],
            Role::Inner => vec![leaving, (program::ARRIVING, AttachPoint::TcxIngress)],
        }
    }
}

/// The devices of a namespace except `lo`, outer ones first.
pub(crate) fn list(netns: &NetNs, addresses: &[IpAddr], rerouted: &[String]) -> Result<Vec<Device>> {
    let inode = netns.id().inode;
    let failed = |source| Error::Devices { step: "list devices", inode, source };
    let found: Vec<(String, Option<IpAddr>, u32)> = run_in(netns, || {
        let all = getifaddrs().map_err(io::Error::from)?;
        let one = |of: nix::ifaddrs::InterfaceAddress| {
            let v4 = of.address.and_then(|address| Some(IpAddr::V4(address.as_sockaddr_in()?.ip())));
            let v6 = of.address.and_then(|address| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())));
            // A device that disappears meanwhile is skipped.
            let index = if_nametoindex(of.interface_name.as_str()).ok()?;
            Some((of.interface_name, v4.or(v6), index))
        };
        Ok(all.filter_map(one).collect())
    })?
    .map_err(failed)?;
    let mut devices: Vec<Device> = Vec::new();
    for (name, _, index) in &found {
        let mut own = found.iter().filter(|(_, _, other)| other == index);
        let role = if rerouted.contains(name) {
            Role::Rerouted
        } else if name == POD_DEVICE || own.any(|(_, ip, _)| ip.is_some_and(|ip| addresses.contains(&ip))) {
            Role::Outer
        } else {
            Role::Inner
        };
        if name != LOOPBACK && !devices.iter().any(|device| device.index == *index) {
            devices.push(Device { index: *index, role });
        }
    }
    devices.sort_by_key(|device| (device.role, device.index));
    if devices.len() > DEVICES_MAX {
        tracing::warn!(netns = inode, limit = DEVICES_MAX, "Some devices of a pod are not covered");
        devices.truncate(DEVICES_MAX);
    }
    Ok(devices)
}

/// Interface indexes of the outer devices.
pub(crate) fn outer(devices: &[Device]) -> Vec<u32> {
    let outer = devices.iter().filter(|device| device.role == Role::Outer);
    outer.map(|device| device.index).take(OUTER_MAX).collect()
}

/// Distinguishes a kernel without the hook from one that rejects the program.
pub(crate) fn unsupported(error: Error) -> Error {
    let is_unknown = matches!(&error, Error::File { source, .. }
        if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)));
    if is_unknown { Error::NoTcx(Box::new(error)) } else { error }
}

/// Becomes readable when devices or addresses of a namespace change.
#[derive(Debug)]
pub struct DeviceWatch(Socket);

impl DeviceWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// If the namespace cannot be entered or no netlink socket can be opened.
    pub fn open(netns: &NetNs) -> Result<Self> {
        let failed = |source| Error::Devices { step: "watch devices", inode: netns.id().inode, source };
        let socket = run_in(netns, || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, CHANGES))?;
            Ok(socket)
        })?
        .map_err(failed)?;
        Ok(Self(socket))
    }

    /// Discards pending notifications. Returns whether there were any.
    pub fn drain(&self) -> bool {
        let mut is_changed = false;
        loop {
            let mut notification = Vec::with_capacity(NOTIFICATION_BYTES_MAX);
            match self.0.recv(&mut notification, 0) {
                // The receive buffer overflowed, so there were changes.
                Ok(_) => is_changed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_changed = true,
                Err(_) => return is_changed,
            }
        }
    }
}

impl AsRawFd for DeviceWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
