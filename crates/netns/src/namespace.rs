//! An open network namespace, and running code inside it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result, raw};

const HERE: &str = "/proc/thread-self/ns/net";

/// Identifies a namespace among all that exist now.
///
/// The kernel may reuse an inode number after the namespace is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// Device number of the nsfs file system.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// A network namespace, kept alive by an open descriptor.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    id: NetNsId,
    cookie: u64,
}

impl NetNs {
    /// Opens a namespace by path, such as those in `/run/netns`.
    ///
    /// # Errors
    /// If the file cannot be opened or is not a network namespace.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::Open { path: path.to_path_buf(), source })?;
        Self::from_fd(file.into())
    }

    /// Opens the namespace of a process.
    ///
    /// # Errors
    /// If there is no such process, or this one may not look into it.
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(Path::new(HERE))
    }

    /// Opens the namespace of a socket.
    ///
    /// # Errors
    /// If the kernel does not report the namespace of the socket.
    pub fn of_socket(socket: &impl AsFd) -> Result<Self> {
        let inspect = |what| move |source| Error::Inspect { what, source };
        let fd = raw::netns_of_socket(socket).map_err(inspect("network namespace of a socket"))?;
        let cookie = raw::netns_cookie(socket).map_err(inspect("network namespace cookie of a socket"))?;
        Ok(Self { id: id_of(&fd)?, fd, cookie })
    }

    /// Wraps a received descriptor, after verifying that it is a network namespace.
    ///
    /// # Errors
    /// [`Error::NotANetNs`] if it is another kind of file; else if the namespace cannot be entered.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        if !raw::is_netns(&fd) {
            return Err(Error::NotANetNs);
        }
        let id = id_of(&fd)?;
        let cookie = enter(fd.as_fd(), id.inode, cookie_here)??;
        Ok(Self { fd, id, cookie })
    }

    /// Another descriptor of the same namespace.
    ///
    /// # Errors
    /// If the process has no descriptor left.
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

    /// The kernel's cookie of this namespace; unique until the next boot.
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

/// Runs `work` on this thread inside a namespace, and returns to the original one.
///
/// # Aborts
/// Aborts the process if the thread cannot return, because whatever runs on it next would act on
/// the wrong network.
///
/// # Errors
/// If the thread cannot enter the namespace; then `work` did not run.
pub fn run_in<T>(netns: &NetNs, work: impl FnOnce() -> T) -> Result<T> {
    enter(netns.as_fd(), netns.id.inode, work)
}

/// The cookie of the calling thread's namespace.
///
/// # Errors
/// If the kernel does not report the cookie.
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

/// Returns the thread to its namespace, even if the work panics.
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
