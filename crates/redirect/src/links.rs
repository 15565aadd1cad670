//! Pinned links: replaces attached programs without a moment in which none is attached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::pins::Pins;
use crate::raw::{self, At, AttachPoint};
use crate::{Error, Result};

/// What a link attaches to.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The cgroup, the network namespace or the device.
    pub(crate) at: At<'a>,
    /// Id of the cgroup, inode of the network namespace or index of the device.
    pub(crate) id: u64,
    /// The hook.
    pub(crate) point: AttachPoint,
}

/// Pins at `pin` a link of `program` to `target`, replacing whatever was there.
///
/// A link to the same target is updated in place. Otherwise the new link is attached first and then
/// renamed over the old one.
pub(crate) fn place(pins: &Pins, pin: &Path, program: BorrowedFd<'_>, target: Target<'_>) -> Result<()> {
    let file = |step| move |source| Error::File { step, path: pin.to_path_buf(), source };
    match raw::open_pin(pin) {
        Ok(link) => {
            let attached = raw::link_target(link.as_fd()).map_err(file("read the link pinned at"))?;
            if attached == target.id && raw::link_update(link.as_fd(), program).is_ok() {
                return Ok(());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file("open the link pinned at")(error)),
    }
    let link = raw::link_create(program, target.at, target.point).map_err(file("attach the program for"))?;
    let swap = pins.swap();
    pins.remove(&swap)?;
    raw::pin(link.as_fd(), &swap).map_err(file("pin the link for"))?;
    std::fs::rename(&swap, pin).map_err(file("move the new link to"))
}

/// What the pinned link is attached to: the id of a cgroup or the inode of a network namespace.
/// `None` once that is gone.
pub(crate) fn target(pin: &Path) -> Result<Option<u64>> {
    let file = |step| move |source| Error::File { step, path: pin.to_path_buf(), source };
    let link = raw::open_pin(pin).map_err(file("open the link pinned at"))?;
    let target = raw::link_target(link.as_fd()).map_err(file("read the link pinned at"))?;
    Ok((target != 0).then_some(target))
}
