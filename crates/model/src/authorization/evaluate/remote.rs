//! The client address of a request when proxies stand in front (`remoteIpBlocks`).
//!
//! Invariant: a client-supplied `X-Forwarded-For` counts only where the Mesh or the Gateway sets
//! the number of trusted proxies, or where the rule names its peers one by one. Otherwise the
//! address is in doubt, and doubt is never resolved in the client's favour.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{contains, holds};
use crate::authorization::{Headers, Request, RequestMatch};

/// Each proxy appends the address of its client to this header.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client address according to the header.
#[derive(Debug, PartialEq, Eq)]
enum Forwarded {
    /// The header is absent.
    Absent,
    /// The client address.
    By(IpAddr),
    /// An entry is not an address, or there are fewer entries than trusted proxies.
    Unreadable,
}

impl RequestMatch {
    /// Whether the client address satisfies `remote_ips`. `is_vouched`: the rule names /// its peers one by one.
    pub(super) fn holds_for_remote(&self, doubt: bool, is_vouched: bool, request: &Request<'_>) -> bool {
        if self.remote_ips.is_empty() && self.not_remote_ips.is_empty() {
            return true;
        }
        let says = |ip| holds(&self.remote_ips, &self.not_remote_ips, |net: &IpNet| contains(net, ip));
        let peer = says(request.remote_ip);
        let is_trusted = is_vouched || self.trusted_proxies.is_some();
        match Forwarded::read(request.headers, self.trusted_proxies.unwrap_or(0)) {
            Forwarded::Absent => peer,
            Forwarded::By(ip) if is_trusted || says(ip) == peer => says(ip),
            Forwarded::By(_) | Forwarded::Unreadable => doubt,
        }
    }
}

impl Forwarded {
    /// The entry written by the outermost trusted proxy, counted from the end of the list.
    fn read(headers: &dyn Headers, trusted_proxies: u32) -> Self {
        let mut lines = 0_usize;
        let mut entries = 0_usize;
        let each = |line: &[u8]| line.split(|byte| *byte == b',').count();
        headers.each(FORWARDED_FOR, &mut |line| {
            lines += 1;
            entries += each(line);
        });
        if lines == 0 {
            return Self::Absent;
        }
        let after = usize::try_from(trusted_proxies).unwrap_or(usize::MAX).saturating_add(1);
        let Some(place) = entries.checked_sub(after) else { return Self::Unreadable };
        let mut found = Self::Unreadable;
        let mut at = 0_usize;
        headers.each(FORWARDED_FOR, &mut |line| {
            let entry = place.checked_sub(at).and_then(|n| line.split(|byte| *byte == b',').nth(n));
            let text = entry.and_then(|entry| std::str::from_utf8(entry.trim_ascii()).ok());
            if let Some(ip) = text.and_then(|text| text.parse::<IpAddr>().ok()) {
                found = Self::By(ip.to_canonical());
            }
            at += each(line);
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines(&'static [&'static str]);

    impl Headers for Lines {
        fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
            let own: &[&str] = if name == FORWARDED_FOR { self.0 } else { &[] };
            own.iter().for_each(|line| visit(line.as_bytes()));
        }
    }

    #[test]
    fn the_entry_of_the_first_trusted_proxy_counts() {
        let by = |text: &str| Forwarded::By(text.parse().unwrap());
        let table: [(&'static [&'static str], u32, Forwarded); 13] = [
            (&[], 0, Forwarded::Absent),
            (&["192.0.2.1"], 0, by("192.0.2.1")),
            (&["192.0.2.1, 192.0.2.2"], 0, by("192.0.2.2")),
            (&["192.0.2.1, 192.0.2.2"], 1, by("192.0.2.1")),
            (&["192.0.2.1", "192.0.2.2 ,192.0.2.3"], 1, by("192.0.2.2")),
            (&["192.0.2.1", "192.0.2.2 ,192.0.2.3"], 2, by("192.0.2.1")),
            (&["192.0.2.1"], 1, Forwarded::Unreadable),
            (&["192.0.2.1"], u32::MAX, Forwarded::Unreadable),
            (&["2001:db8::1"], 0, by("2001:db8::1")),
            (&["::ffff:192.0.2.1"], 0, by("192.0.2.1")),
            (&["unknown"], 0, Forwarded::Unreadable),
            (&["192.0.2.1,"], 0, Forwarded::Unreadable),
            (&["192.0.2.1:80"], 0, Forwarded::Unreadable),
        ];
        for (lines, trusted, expected) in table {
            assert_eq!(Forwarded::read(&Lines(lines), trusted), expected, "{lines:?} {trusted}");
        }
    }
}
