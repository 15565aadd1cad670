//! System calls without a safe wrapper; all of this crate's `unsafe` code.

#![expect(unsafe_code, reason = "socket options and ioctls without a safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// From `asm-generic/socket.h`; libc defines it only for other targets.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// From `linux/sockios.h`.
const SIOCGSKNS: libc::c_ulong = 0x894C;
/// From `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The cookie of the socket's network namespace.
pub(crate) fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// Reads a socket option of type `int`.
pub(crate) fn int_option(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<i32> {
    option(socket, level, name)
}

fn option<T: Copy + Default>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is plain data of `length` bytes, both outlive the call, and the kernel writes
    // no more than that.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Opens the socket's network namespace.
pub(crate) fn netns_of_socket(socket: &impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument, and `socket` is open during the call.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just created this descriptor for us, with close-on-exec; nothing else owns
    // it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the file is a network namespace.
pub(crate) fn is_netns(file: &impl AsFd) -> bool {
    // SAFETY: the request takes no argument; other kinds of files return ENOTTY.
    let kind = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}
