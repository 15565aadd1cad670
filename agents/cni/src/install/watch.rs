//! Runs the installer on a thread of its own, whenever the directories change.
//!
//! Invariant: a missing file is restored within [`INTERVAL`], even if an event was lost.

use std::{
    io,
    os::fd::AsFd,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::sync::{oneshot, watch as channel};

use super::{InstallState, Paths, conflist::Entry, reconcile, remove};
use crate::Problem;

/// Shortest time between two runs, so that another program that keeps removing our list (Cilium
/// without `cni.exclusive=false`) does not keep the node busy.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest time between two runs, in case an event was lost (a replaced directory, a full queue).
const INTERVAL: Duration = Duration::from_secs(1);

/// Handle of the installer thread.
#[derive(Debug)]
pub(crate) struct Installer {
    state: channel::Receiver<InstallState>,
    stop: Sender<Stop>,
}

enum Stop {
    Remove(oneshot::Sender<io::Result<()>>),
}

/// Starts the installer. Dropping the handle ends the thread and leaves everything in place.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn watch(paths: Paths, entry: Entry) -> io::Result<Installer> {
    let starting = Problem { reason: "CNIConfigMissing", message: "not checked yet".into() };
    let (state, states) = channel::channel(InstallState::Waiting(starting));
    let (stop, stops) = mpsc::channel();
    std::thread::Builder::new().name("install".into()).spawn(move || run(&paths, &entry, &state, &stops))?;
    Ok(Installer { state: states, stop })
}

impl Installer {
    /// The state, as a channel of changes.
    pub(crate) fn state(&self) -> channel::Receiver<InstallState> {
        self.state.clone()
    }

    /// Removes configuration and binary permanently, and ends the thread.
    ///
    /// # Errors
    /// When a file cannot be written; call again.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let ended = || io::Error::other("the installer has ended");
        self.stop.send(Stop::Remove(done)).map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

fn run(paths: &Paths, entry: &Entry, state: &channel::Sender<InstallState>, stops: &Receiver<Stop>) {
    let mut removed = false;
    loop {
        match stops.recv_timeout(PAUSE) {
            Ok(Stop::Remove(done)) => {
                removed = true;
                let _ = done.send(remove(paths));
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Starts to watch before looking, so that a change in between is seen.
        let watches = watches(paths);
        if !removed {
            publish(state, reconcile(paths, entry));
        }
        wait(watches.as_ref());
    }
}

fn publish(state: &channel::Sender<InstallState>, new: InstallState) {
    state.send_if_modified(|old| {
        let changed = *old != new;
        if let (true, InstallState::Waiting(problem)) = (changed, &new) {
            tracing::warn!(
                reason = problem.reason,
                message = problem.message,
                "The CNI plugin is not installed"
            );
        }
        *old = new;
        changed
    });
}

fn watches(paths: &Paths) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let events = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO;
    for directory in [&paths.conf_dir, &paths.bin_dir] {
        let _ = inotify.add_watch(directory, events);
    }
    Some(inotify)
}

fn wait(watches: Option<&Inotify>) {
    let limit = PollTimeout::try_from(INTERVAL).unwrap_or(PollTimeout::ZERO);
    let mut fds: Vec<PollFd<'_>> =
        watches.iter().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)).collect();
    let _ = poll(&mut fds, limit);
}
