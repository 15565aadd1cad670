//! Routing rules and the route that send a pod's marked packets to its own loopback device.

use std::io;
use std::net::IpAddr;

use ambit_netns::{NetNs, run_in};
use ambit_redirect_common::{
    ANSWER_RULE_PRIORITY, FORWARD_MARK, FORWARD_RULE_PRIORITY, MARK, MARK_MASK, ROUTE_TABLE, RULE_PRIORITY,
};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::{Error, Result};

const LOOPBACK_INDEX: u32 = 1;
const MAIN_TABLE: u32 = 254;
/// Size of the buffer for a netlink acknowledgement, which repeats the request.
const REPLY_BYTES_MAX: usize = 4096;
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Adds rules and route for each family of the addresses; the first address of a family becomes the
/// source of captured connections.
pub(crate) fn add(netns: &NetNs, addresses: &[IpAddr]) -> Result<()> {
    let netlink = Netlink::open(netns)?;
    for family in FAMILIES {
        // Without `src`, the application's source address would become the destination's.
        let Some(source) = addresses.iter().find(|ip| family_of(ip) == family) else { continue };
        let add = NLM_F_CREATE | NLM_F_REPLACE;
        netlink.request("add route", RouteNetlinkMessage::NewRoute(route(family, Some(*source))), add)?;
        for rule in rules(family) {
            let add = RouteNetlinkMessage::NewRule(rule);
            ignore(netlink.request("add rule", add, NLM_F_CREATE | NLM_F_EXCL), &[libc::EEXIST])?;
        }
    }
    Ok(())
}

/// Removes rules and route of both families, if they exist.
pub(crate) fn remove(netns: &NetNs) -> Result<()> {
    let netlink = Netlink::open(netns)?;
    for family in FAMILIES {
        let absent = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];
        for rule in rules(family) {
            ignore(netlink.request("remove rule", RouteNetlinkMessage::DelRule(rule), 0), &absent)?;
        }
        let route = RouteNetlinkMessage::DelRoute(route(family, None));
        ignore(netlink.request("remove route", route, 0), &absent)?;
    }
    Ok(())
}

fn family_of(ip: &IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Replies to packets taken out of forwarding carry the same mark (`tcp_fwmark_accept`) and
/// originate locally (`iif lo`); they must follow the normal routes.
fn rules(family: AddressFamily) -> [RuleMessage; 3] {
    let rule = |priority, mark, table| {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Priority(priority),
            RuleAttribute::FwMark(mark),
            RuleAttribute::FwMask(MARK_MASK),
            RuleAttribute::Table(table),
        ];
        rule
    };
    let mut answers = rule(ANSWER_RULE_PRIORITY, FORWARD_MARK, MAIN_TABLE);
    answers.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
    let steered = rule(FORWARD_RULE_PRIORITY, FORWARD_MARK, ROUTE_TABLE);
    [answers, steered, rule(RULE_PRIORITY, MARK, ROUTE_TABLE)]
}

fn route(family: AddressFamily, source: Option<IpAddr>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family,
        protocol: RouteProtocol::Static,
        // The scope `NoWhere` matches any scope when a route is removed.
        scope: if source.is_some() { RouteScope::Host } else { RouteScope::NoWhere },
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    let source = source.map(|ip| match ip {
        IpAddr::V4(ip) => RouteAttribute::PrefSource(RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => RouteAttribute::PrefSource(RouteAddress::Inet6(ip)),
    });
    route.attributes = vec![RouteAttribute::Oif(LOOPBACK_INDEX), RouteAttribute::Table(ROUTE_TABLE)];
    route.attributes.extend(source);
    route
}

fn ignore(result: Result<()>, errnos: &[i32]) -> Result<()> {
    match result {
        Err(Error::Route { source, .. })
            if source.raw_os_error().is_some_and(|errno| errnos.contains(&errno)) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// A netlink socket of one network namespace.
struct Netlink {
    socket: Socket,
    inode: u64,
}

impl Netlink {
    fn open(netns: &NetNs) -> Result<Self> {
        let inode = netns.id().inode;
        let failed = |source| Error::Route { step: "open netlink socket", inode, source };
        let socket = run_in(netns, || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        })?
        .map_err(failed)?;
        Ok(Self { socket, inode })
    }

    fn request(&self, step: &'static str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.exchange(message, flags).map_err(|source| Error::Route { step, inode: self.inode, source })
    }

    fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        // The kernel has answered when `send` returns, with exactly one acknowledgement.
        let mut reply = Vec::with_capacity(REPLY_BYTES_MAX);
        self.socket.recv(&mut reply, 0)?;
        let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply).map_err(io::Error::other)?;
        let NetlinkPayload::Error(answer) = reply.payload else {
            return Err(io::Error::other("an answer that is no acknowledgement"));
        };
        if answer.code.is_some() { Err(answer.to_io()) } else { Ok(()) }
    }
}
