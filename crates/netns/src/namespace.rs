//! A network namespace that is held open, and being in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result, raw};

const HERE: &str = "/proc/thread-self/ns/net";

/// What tells a namespace from every other one that is alive.
///
/// An inode may be given to another namespace once the last descriptor of the first is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// Device of the file system of namespaces.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// A network namespace, kept alive by an owned descriptor.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    id: NetNsId,
    cookie: u64,
}

impl NetNs {
    /// Opens a namespace by its file, such as those under `/run/netns`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::Open { path: path.to_path_buf(), source })?;
        Self::from_fd(file.into())
    }

    /// Opens the namespace a process is in.
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// Opens the namespace the calling thread is in.
    pub fn current() -> Result<Self> {
        Self::open(Path::new(HERE))
    }

    /// Opens the namespace a socket lives in.
    pub fn of_socket(socket: &impl AsFd) -> Result<Self> {
        let inspect = |what| move |source| Error::Inspect { what, source };
        let fd = raw::netns_of_socket(socket).map_err(inspect("network namespace of a socket"))?;
        let cookie = raw::netns_cookie(socket).map_err(inspect("network namespace cookie of a socket"))?;
        Ok(Self { id: id_of(&fd)?, fd, cookie })
    }

    /// Takes over a descriptor that somebody passed, once it proves to be a network namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        if !raw::is_netns(&fd) {
            return Err(Error::NotANetNs);
        }
        let id = id_of(&fd)?;
        let cookie = enter(fd.as_fd(), id.inode, cookie_here)??;
        Ok(Self { fd, id, cookie })
    }

    /// Another descriptor of the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|source| Error::Inspect { what: "duplicate a network namespace descriptor", source })?;
        Ok(Self { fd, id: self.id, cookie: self.cookie })
    }

    /// Device and inode.
    #[must_use]
    pub const fn id(&self) -> NetNsId {
        self.id
    }

    /// The number the kernel gave this namespace; never given twice between two boots.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Whether both are the same namespace.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.cookie == other.cookie
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on this thread inside a namespace, and comes back.
///
/// # Aborts
/// Ends the process if the thread cannot come back: whatever ran on it next would act on the wrong network.
pub fn run_in<T>(netns: &NetNs, work: impl FnOnce() -> T) -> Result<T> {
    enter(netns.as_fd(), netns.id.inode, work)
}

/// The cookie of the namespace the calling thread is in.
pub fn cookie_here() -> Result<u64> {
    let inspect = |source| Error::Inspect { what: "network namespace cookie", source };
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None).map_err(inspect)?;
    raw::netns_cookie(&socket).map_err(inspect)
}

fn enter<T>(netns: BorrowedFd<'_>, inode: u64, work: impl FnOnce() -> T) -> Result<T> {
    let home = File::open(HERE).map_err(|source| Error::Open { path: HERE.into(), source })?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter { inode, source: errno.into() })?;
    let _back = Back { home };
    Ok(work())
}

/// Brings the thread home, also when the work panics.
struct Back {
    home: File,
}

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            abort(errno.into());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a process that is about to end")]
fn abort(error: io::Error) -> ! {
    eprintln!(
        "cannot leave a pod's network namespace: {error}; ending rather than acting on the wrong network"
    );
    std::process::abort()
}

fn id_of(fd: &OwnedFd) -> Result<NetNsId> {
    let stat = nix::sys::stat::fstat(fd)
        .map_err(|errno| Error::Inspect { what: "stat a network namespace", source: errno.into() })?;
    Ok(NetNsId { device: stat.st_dev, inode: stat.st_ino })
}
