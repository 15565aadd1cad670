//! Sysctls of a pod's network namespace that make replies carry the mark of the packet they answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ambit_netns::{NetNs, run_in};

use crate::{Error, Result};

/// The target value of the sysctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// As redirection needs them.
    On,
    /// The defaults of a new network namespace.
    Off,
}

/// An accepted socket takes the mark of its SYN; a reset without a socket takes the mark of the
/// packet it answers.
const SETTINGS: [&str; 3] = ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"];

/// Where sysctls are written; the first writable one is used. A container's own `/proc/sys` is
/// read-only unless it is privileged; that of the node's first process is not. Both apply to the
/// network namespace of the writing thread.
const ROOTS: [&str; 2] = ["/proc/sys/net", "/proc/1/root/proc/sys/net"];

/// Writes the sysctls; those of a family that the kernel lacks are skipped.
pub(crate) fn write(netns: &NetNs, setting: Setting) -> Result<()> {
    let value = match setting {
        Setting::On => "1",
        Setting::Off => "0",
    };
    run_in(netns, || {
        for name in SETTINGS {
            match write_one(name, value) {
                Err((_, error)) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6") => {}
                Err((path, source)) => return Err(Error::File { step: "write", path, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    })?
}

fn write_one(name: &str, value: &str) -> std::result::Result<(), (PathBuf, io::Error)> {
    let mut failed = None;
    for root in ROOTS {
        let path = Path::new(root).join(name);
        match fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => failed = Some((path, error)),
            Err(error) => return Err((path, error)),
            Ok(()) => return Ok(()),
        }
    }
    failed.map_or(Ok(()), Err)
}
