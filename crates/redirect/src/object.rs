//! The compiled eBPF object and its loader.
//!
//! One loader is reused: creating one parses the kernel's BTF, which takes tens of milliseconds.

use std::os::fd::{AsFd, BorrowedFd};

use ambit_redirect_common::map;
use aya::maps::Array;
use aya::programs::{CgroupSkb, CgroupSockAddr, Program, SchedClassifier, SkLookup, SockOps};
use aya::{Ebpf, EbpfLoader};

use crate::maps::{Maps, failed};
use crate::pins::Pins;
use crate::{Error, Result};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../redirect-ebpf/ambit-redirect.o");

/// Maps shared by all instances.
const SHARED: [&str; 8] = [
    map::PODS,
    map::LISTENERS,
    map::ADMITTED,
    map::ADDRESSES,
    map::OPENINGS,
    map::PROBING,
    map::PROXIES,
    map::FORWARDED,
];

/// Program names: symbols of the object, and the names of the pins of node-wide links.
pub(crate) mod program {
    pub(crate) const CONNECT4: &str = "connect4";
    pub(crate) const CONNECT6: &str = "connect6";
    pub(crate) const INPOD: &str = "inpod";
    pub(crate) const PROBE: &str = "probe";
    pub(crate) const PROBE_SENDS: &str = "probe_sends";
    pub(crate) const LEAVING: &str = "leaving";
    pub(crate) const ARRIVING: &str = "arriving";
    pub(crate) const REROUTED: &str = "rerouted";
}

/// Creates instances of the programs, which share the pinned maps.
#[derive(Debug)]
pub(crate) struct Object {
    loader: EbpfLoader<'static>,
}

impl Object {
    pub(crate) fn new(pins: &Pins) -> Self {
        let mut loader = EbpfLoader::new();
        // Our programs do not depend on the layout of kernel types.
        loader.btf(None);
        for name in SHARED {
            loader.map_pin_path(name, pins.node(name));
        }
        Self { loader }
    }

    /// An instance for one network namespace, or for none (0).
    pub(crate) fn instance(&mut self, netns: u64) -> Result<Instance> {
        let mut ebpf = self.loader.load(OBJECT).map_err(|error| Error::Object(Box::new(error)))?;
        let served = ebpf.map_mut(map::NETNS).ok_or(Error::Missing(map::NETNS))?;
        let mut served: Array<_, u64> = served.try_into().map_err(failed(map::NETNS))?;
        served.set(0, netns, 0).map_err(failed(map::NETNS))?;
        Ok(Instance { ebpf })
    }
}

/// One set of loaded programs; unloaded when dropped, except what is attached or pinned.
#[derive(Debug)]
pub(crate) struct Instance {
    ebpf: Ebpf,
}

impl Instance {
    /// Sets the outer devices of the pod that this instance serves.
    pub(crate) fn set_outer(&mut self, devices: &[u32]) -> Result<()> {
        let outer = self.ebpf.map_mut(map::OUTER).ok_or(Error::Missing(map::OUTER))?;
        let mut outer: Array<_, u32> = outer.try_into().map_err(failed(map::OUTER))?;
        (0..)
            .zip(devices)
            .try_for_each(|(slot, device)| outer.set(slot, device, 0))
            .map_err(failed(map::OUTER))
    }

    /// Loads a program if necessary, and borrows its descriptor.
    pub(crate) fn program(&mut self, name: &'static str) -> Result<BorrowedFd<'_>> {
        let failed = |source| Error::Program { program: name, source: Box::new(source) };
        let program = self.ebpf.program_mut(name).ok_or(Error::Missing(name))?;
        match name {
            _ if program.fd().is_ok() => Ok(()),
            program::LEAVING | program::ARRIVING | program::REROUTED => {
                <&mut SchedClassifier>::try_from(&mut *program).and_then(SchedClassifier::load)
            }
            program::INPOD => <&mut SkLookup>::try_from(&mut *program).and_then(SkLookup::load),
            program::PROBE_SENDS => <&mut CgroupSkb>::try_from(&mut *program).and_then(CgroupSkb::load),
            program::PROBE => <&mut SockOps>::try_from(&mut *program).and_then(SockOps::load),
            _ => <&mut CgroupSockAddr>::try_from(&mut *program).and_then(CgroupSockAddr::load),
        }
        .map_err(failed)?;
        let program: &Program = program;
        Ok(program.fd().map_err(failed)?.as_fd())
    }

    /// The shared maps.
    pub(crate) fn into_maps(mut self) -> Result<Maps> {
        Maps::take(&mut self.ebpf)
    }
}
