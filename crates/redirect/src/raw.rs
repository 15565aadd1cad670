//! `bpf` system calls for links that aya does not offer, or ties to the lifetime of a value.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_NETNS: u32 = 5;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// Where a program is attached; values of `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachPoint {
    CgroupEgress = 1,
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    SkLookup = 36,
    TcxIngress = 46,
    TcxEgress = 47,
}

impl AttachPoint {
    /// Used in the names of pins.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CgroupEgress => "sends",
            Self::SockOps => "sockops",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::SkLookup => "lookup",
            Self::TcxIngress => "ingress",
            Self::TcxEgress => "egress",
        }
    }
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

/// The head of `struct bpf_link_info`, and the three of its variants that we use.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// `cgroup_id`, or `netns_ino` or `ifindex` in its first half.
    target: [u32; 2],
    attach_type: u32,
    rest: [u32; 25],
}

/// What a program is attached to.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    /// A cgroup or a network namespace.
    Fd(BorrowedFd<'a>),
    /// The device with this index in the network namespace of the calling thread.
    Device(u32),
}

/// Attaches a program; the link lasts as long as its descriptor or a pin.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: At<'_>,
    point: AttachPoint,
) -> io::Result<OwnedFd> {
    let program = number(program);
    let target = match target {
        At::Fd(fd) => number(fd),
        At::Device(index) => index,
    };
    let mut attr = LinkCreateAttr { program, target, attach_type: point as u32, flags: 0 };
    owned(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Replaces the program of a link atomically.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdateAttr { link: number(link), new_program: number(program), flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Id of the cgroup, inode of the network namespace, or index of the device that a link is attached
/// to; 0 once that is gone.
pub(crate) fn link_target(link: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let mut attr = InfoAttr { fd: number(link), length, info: (&raw mut info).expose_provenance() as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let [first, second] = info.target;
    match info.kind {
        BPF_LINK_TYPE_CGROUP => {
            let [a, b, c, d] = first.to_ne_bytes();
            let [e, f, g, h] = second.to_ne_bytes();
            Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
        }
        BPF_LINK_TYPE_NETNS | BPF_LINK_TYPE_TCX => Ok(u64::from(first)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

/// Pins an object.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr =
        ObjectAttr { path: path.as_ptr().expose_provenance() as u64, fd: number(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens a pin.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    owned(bpf(BPF_OBJ_GET, &mut attr)?)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is the plain data of this command with the length passed, and its pointers
    // outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just created this descriptor for us, with close-on-exec; nothing else owns
    // it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
