//! Redirection of the pods of one node.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use ambit_netns::NetNs;
use ambit_redirect_common::{Direction, Forwarded, Kind, ListenerKey, PodAddress, PodConfig, ip, map};
use aya::maps::MapError;

use crate::links::{self, Target};
use crate::maps::{AddressValue, ForwardedKey, ListenerPod, Maps, PodValue, failed, opening_key, removed};
use crate::object::{Object, program};
use crate::pins::Pins;
use crate::probes::{Plan, Probe};
use crate::raw::{At, AttachPoint};
use crate::sysctls::{self, Setting};
use crate::{Config, Error, Result, cgroup, devices, routing};

/// Value of map entries that only indicate presence.
const PRESENT: u64 = 1;

/// A pod whose namespace is prepared for redirection, which is still off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Cookie of its network namespace, the key of its map entries.
    pub cookie: u64,
    /// Pass this to [`Redirector::switch`] to redirect all its traffic.
    pub config: PodConfig,
}

/// A pod with a pinned link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedPod {
    /// Uid of the pod.
    pub uid: String,
    /// Inode of the network namespace that the link is attached to; `None` once it is gone.
    pub netns_inode: Option<u64>,
}

/// Redirection of the pods of one node.
///
/// Holds only descriptors; dropping it changes nothing in the kernel.
pub struct Redirector {
    pins: Pins,
    object: Object,
    maps: Maps,
}

impl Redirector {
    /// Opens the pinned state, creates what is missing, and updates the node-wide programs.
    ///
    /// The programs of pods are updated by [`attach`](Self::attach); until then the old ones
    /// continue with the same maps.
    ///
    /// # Errors
    /// If a file system is not mounted, the kernel rejects a program, or a pin cannot be used.
    pub fn open(config: &Config) -> Result<Self> {
        let pins = Pins::open(config)?;
        let mut object = Object::new(&pins);
        let mut instance = object.instance(0)?;
        let cgroup = open_cgroup(&config.cgroup)?;
        let id = cgroup::id(&config.cgroup)?;
        for (name, point) in
            [(program::CONNECT4, AttachPoint::Connect4), (program::CONNECT6, AttachPoint::Connect6)]
        {
            let target = Target { at: At::Fd(cgroup.as_fd()), id, point };
            links::place(&pins, &pins.node(name), instance.program(name)?, target)?;
        }
        let maps = instance.into_maps()?;
        // Programs that an older agent attached to pods still use them until they are replaced.
        map::RETIRED.into_iter().try_for_each(|name| pins.remove(&pins.node(name)))?;
        Ok(Self { pins, object, maps })
    }

    /// Prepares a pod's namespace: sysctls, route, rules, and the program that steers. Redirects
    /// nothing yet.
    ///
    /// Captured connections use the first address of their family as their source.
    ///
    /// # Errors
    /// If a program cannot be attached or pinned, or a rule, route or sysctl cannot be set in the pod's namespace.
    pub fn attach(&mut self, uid: &str, netns: &NetNs, addresses: &[IpAddr]) -> Result<Attached> {
        let pin = self.pins.pod(uid)?;
        let config = PodConfig::enrolled(addresses)
            .map_err(|source| Error::Addresses { uid: uid.to_owned(), source })?;
        let is_new = !pin.exists();
        if let Err(error) = self.prepare(&pin, netns, addresses) {
            if is_new && let Err(left) = self.detach(uid, Some(netns)) {
                tracing::warn!(pod.uid = uid, error = %left, "A failed attach could not be undone");
            }
            return Err(error);
        }
        Ok(Attached { cookie: netns.cookie(), config })
    }

    fn prepare(&mut self, pin: &Path, netns: &NetNs, addresses: &[IpAddr]) -> Result<()> {
        sysctls::write(netns, Setting::On)?;
        routing::add(netns, addresses)?;
        let mut instance = self.object.instance(netns.cookie())?;
        let target = Target { at: At::Fd(netns.as_fd()), id: netns.id().inode, point: AttachPoint::SkLookup };
        links::place(&self.pins, pin, instance.program(program::INPOD)?, target)
    }

    /// Attaches programs for forwarded packets to the pod's current devices. Call it again whenever
    /// they change.
    ///
    /// Devices that hold one of the `addresses` lead out of the pod, all others to something inside
    /// it. Packets from a `rerouted` device go to the outbound listener even if they would not
    /// leave the pod.
    ///
    /// # Errors
    /// If the devices cannot be listed, or a program cannot be attached to one.
    pub fn cover(
        &mut self,
        uid: &str,
        netns: &NetNs,
        addresses: &[IpAddr],
        rerouted: &[String],
    ) -> Result<()> {
        if !self.pins.pod(uid)?.exists() {
            // Detached meanwhile.
            return Ok(());
        }
        let devices = devices::list(netns, addresses, rerouted)?;
        for direction in Direction::ALL {
            let key = ForwardedKey(Forwarded::new(netns.cookie(), direction));
            if self.maps.forwarded.get(&key, 0).is_err() {
                self.maps.forwarded.insert(key, 0, 0).map_err(failed(map::FORWARDED))?;
            }
        }
        let mut instance = self.object.instance(netns.cookie())?;
        instance.set_outer(&devices::outer(&devices))?;
        let mut covered = Vec::new();
        for device in &devices {
            for (name, point) in device.programs() {
                let pin = self.pins.device(uid, device.index, point.name())?;
                let id = u64::from(device.index);
                let target = Target { at: At::Device(device.index), id, point };
                let program = instance.program(name)?;
                // A device index is relative to the thread's network namespace.
                let placed = ambit_netns::run_in(netns, || links::place(&self.pins, &pin, program, target))?;
                placed.map_err(devices::unsupported)?;
                covered.push(pin);
            }
        }
        let pinned = self.pins.devices_of(uid)?;
        let mut stale = pinned.iter().filter(|pin| !covered.contains(pin));
        stale.try_for_each(|pin| self.pins.remove(pin))
    }

    /// Number of dropped forwarded packets, by namespace cookie.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn forwarded(&self) -> Result<Vec<(u64, Direction, u64)>> {
        let mut counted = Vec::new();
        for entry in self.maps.forwarded.iter() {
            let (ForwardedKey(key), count) = entry.map_err(failed(map::FORWARDED))?;
            let direction = Direction::ALL.into_iter().find(|direction| *direction as u32 == key.direction);
            counted.extend(direction.map(|direction| (key.cookie, direction, count)));
        }
        Ok(counted)
    }

    /// Sets the redirection of a namespace to `config`, or off: one atomic write.
    ///
    /// The kubelet's `probes` stay admitted. Open connections are not affected.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub fn switch(&mut self, cookie: u64, config: Option<PodConfig>, probes: &[Probe]) -> Result<()> {
        let before = self.config(cookie)?;
        let addresses: Vec<IpAddr> =
            config.iter().flat_map(PodConfig::addresses).map(|address| ip(&address)).collect();
        let plan = Plan::new(cookie, probes, &addresses);
        // Prefixes are stored before their ports are admitted.
        for (key, rest) in &plan.openings {
            self.maps.openings.insert(&opening_key(key), rest, 0).map_err(failed(map::OPENINGS))?;
        }
        // Probes stay admitted as long as anything may capture them.
        let value = AddressValue(PodAddress { cookie, probe_ports: plan.ports });
        for address in config.iter().flat_map(PodConfig::addresses) {
            self.maps.addresses.insert(address, value, 0).map_err(failed(map::ADDRESSES))?;
        }
        match config {
            Some(config) => {
                self.maps.pods.insert(cookie, PodValue(config), 0).map_err(failed(map::PODS))?;
            }
            None => removed(map::PODS, self.maps.pods.remove(&cookie))?,
        }
        let kept = |address| config.iter().flat_map(PodConfig::addresses).any(|kept| kept == address);
        for address in before.iter().flat_map(PodConfig::addresses).filter(|address| !kept(*address)) {
            // Another pod may have the address by now.
            if matches!(self.maps.addresses.get(&address, 0), Ok(AddressValue(of)) if of.cookie == cookie) {
                removed(map::ADDRESSES, self.maps.addresses.remove(&address))?;
            }
        }
        if before.is_some() || config.is_none() {
            let known = self.maps.openings_of(cookie)?;
            for key in known.iter().filter(|key| !plan.openings.contains_key(key)) {
                removed(map::OPENINGS, self.maps.openings.remove(&opening_key(key)))?;
            }
        }
        Ok(())
    }

    /// The redirection config of a namespace.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn config(&self, cookie: u64) -> Result<Option<PodConfig>> {
        match self.maps.pods.get(&cookie, 0) {
            Ok(PodValue(config)) => Ok(Some(config)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(map::PODS)(error)),
        }
    }

    /// Makes `listener` the target of redirected connections, replacing any previous one.
    ///
    /// Rejects a socket that is in another namespace, bound to another port, not listening, or
    /// unable to answer for foreign addresses.
    ///
    /// # Errors
    /// If the socket is rejected, or the map cannot be written.
    pub fn arm(&mut self, cookie: u64, kind: Kind, listener: BorrowedFd<'_>) -> Result<()> {
        let refuse = |reason| Err(Error::Listener { cookie, kind, reason });
        let facts = ambit_netns::inspect(&listener)?;
        if facts.cookie != cookie {
            return refuse("is of another network namespace");
        }
        if !facts.listening {
            return refuse("does not listen");
        }
        if facts.local.port() != kind.port() || !facts.local.ip().is_loopback() {
            return refuse("is bound to another address");
        }
        if !facts.transparent {
            return refuse("lacks IP_TRANSPARENT");
        }
        let key = ListenerPod(ListenerKey::new(cookie, kind));
        self.maps.listeners.insert(key, listener.as_raw_fd(), 0).map_err(failed(map::LISTENERS))
    }

    /// Removes a listener: connections that would go to it are refused from now on.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn disarm(&mut self, cookie: u64, kind: Kind) -> Result<()> {
        let key = ListenerPod(ListenerKey::new(cookie, kind));
        removed(map::LISTENERS, self.maps.listeners.remove(&key))
    }

    /// Exempts the tasks of exactly this cgroup from capture, see [`cgroup::id`].
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn exempt(&mut self, cgroup_id: u64) -> Result<()> {
        self.maps.proxies.insert(cgroup_id, PRESENT, 0).map_err(failed(map::PROXIES))
    }

    /// Ends the exemption of this cgroup.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn unexempt(&mut self, cgroup_id: u64) -> Result<()> {
        removed(map::PROXIES, self.maps.proxies.remove(&cgroup_id))
    }

    /// The exempt cgroups.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn exempted(&self) -> Result<Vec<u64>> {
        self.maps.proxies.keys().collect::<Result<_, _>>().map_err(failed(map::PROXIES))
    }

    /// The pods with a pinned link.
    ///
    /// # Errors
    /// If the pins or their links cannot be read.
    pub fn attached(&self) -> Result<Vec<AttachedPod>> {
        let uids = self.pins.pod_uids()?;
        uids.into_iter()
            .map(|uid| Ok(AttachedPod { netns_inode: links::target(&self.pins.pod(&uid)?)?, uid }))
            .collect()
    }

    /// Cookies of the namespaces with redirection.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn enrolled(&self) -> Result<Vec<u64>> {
        self.maps.pods.keys().collect::<Result<_, _>>().map_err(failed(map::PODS))
    }

    /// The listeners in the map; an entry exists as long as a process has the socket open.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn armed(&self) -> Result<Vec<(u64, Kind)>> {
        let mut armed = Vec::new();
        for key in self.maps.listeners.keys() {
            let ListenerPod(key) = key.map_err(failed(map::LISTENERS))?;
            armed.extend(Kind::from_u32(key.kind).map(|kind| (key.cookie, kind)));
        }
        Ok(armed)
    }

    /// Undoes [`attach`](Self::attach), [`switch`](Self::switch) and [`arm`](Self::arm) for a pod.
    ///
    /// Captured connections need the rules and the route, so call this once they have ended.
    /// Without a namespace only the link is removed; see [`forget`](Self::forget) for its map
    /// entries.
    ///
    /// # Errors
    /// The first step that failed; all others were attempted too.
    pub fn detach(&mut self, uid: &str, netns: Option<&NetNs>) -> Result<()> {
        let pin = self.pins.pod(uid)?;
        // Every step is attempted, even if an earlier one fails.
        let uncovered = self.pins.devices_of(uid)?.iter().try_for_each(|pin| self.pins.remove(pin));
        let Some(netns) = netns else { return uncovered.and(self.pins.remove(&pin)) };
        let forgotten = self.forget(netns.cookie());
        let unpinned = self.pins.remove(&pin);
        let unrouted = routing::remove(netns);
        let unset = sysctls::write(netns, Setting::Off);
        forgotten.and(uncovered).and(unpinned).and(unrouted).and(unset)
    }

    /// Removes the map entries of a namespace: redirection off, no listeners.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub fn forget(&mut self, cookie: u64) -> Result<()> {
        self.switch(cookie, None, &[])?;
        for direction in Direction::ALL {
            let key = ForwardedKey(Forwarded::new(cookie, direction));
            removed(map::FORWARDED, self.maps.forwarded.remove(&key))?;
        }
        Kind::ALL.into_iter().try_for_each(|kind| self.disarm(cookie, kind))
    }

    /// Admits the kubelet's probes: connections from the `host` network namespace and this cgroup
    /// that send only data that [`switch`](Self::switch) was given.
    ///
    /// A second call moves this to another cgroup.
    ///
    /// # Errors
    /// If the cgroup cannot be opened, or a program cannot be attached to it.
    pub fn attach_kubelet(&mut self, cgroup: &Path, host: &NetNs) -> Result<()> {
        let mut instance = self.object.instance(host.cookie())?;
        let directory = open_cgroup(cgroup)?;
        let at = At::Fd(directory.as_fd());
        let id = cgroup::id(cgroup)?;
        // The program that checks data is attached before the one that admits.
        for (name, point) in
            [(program::PROBE_SENDS, AttachPoint::CgroupEgress), (program::PROBE, AttachPoint::SockOps)]
        {
            let target = Target { at, id, point };
            links::place(&self.pins, &self.pins.node(name), instance.program(name)?, target)?;
        }
        Ok(())
    }

    /// Removes every pin: programs and maps are freed once nothing else holds them.
    ///
    /// Rules, routes and sysctls stay in the namespaces of pods that were not
    /// [detached](Self::detach); they have no effect without marked packets.
    ///
    /// # Errors
    /// If a map cannot be written or a pin cannot be removed.
    pub fn remove_everything(mut self) -> Result<()> {
        for cookie in self.enrolled()? {
            self.switch(cookie, None, &[])?;
        }
        self.pins.remove_all()
    }
}

fn open_cgroup(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::File { step: "open cgroup", path: path.to_path_buf(), source })
}
