//! Looking up cgroups of processes, as eBPF programs and links identify them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{Error, Result};

/// Where the v2 hierarchy may be mounted: alone, or beside the v1 controllers.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Number of directories after which a search gives up.
const DIRECTORIES_MAX: usize = 65_536;

/// The root of the cgroup v2 hierarchy of this node.
///
/// # Errors
/// [`Error::Unmounted`] if the node has no cgroup v2 hierarchy.
pub fn root() -> Result<PathBuf> {
    let is_v2 = |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let [first, _] = MOUNTS;
    MOUNTS
        .iter()
        .map(PathBuf::from)
        .find(|path| is_v2(path))
        .ok_or_else(|| Error::Unmounted { path: first.into(), file_system: "cgroup2" })
}

/// The id of a cgroup, as `bpf_get_current_cgroup_id` returns it.
///
/// # Errors
/// If the cgroup does not exist.
pub fn id(cgroup: &Path) -> Result<u64> {
    let metadata = fs::metadata(cgroup).map_err(|source| Error::File {
        step: "look at cgroup",
        path: cgroup.to_path_buf(),
        source,
    })?;
    Ok(metadata.ino())
}

/// The directory of the cgroup a process is in, below the `root` of the hierarchy.
///
/// The path in `/proc/<pid>/cgroup` is relative to the reader's cgroup namespace, which may differ
/// from that of the mount. It is used only if the directory it leads to lists the process;
/// otherwise the hierarchy is searched.
///
/// # Errors
/// If the process has ended, or no cgroup below `root` lists it.
pub fn of_pid(pid: u32, root: &Path) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(|source| Error::File {
        step: "read",
        path: path.clone(),
        source,
    })?;
    let told = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let told = told.map(|relative| root.join(relative));
    if let Some(told) = told.filter(|directory| lists(directory, pid)) {
        return Ok(told);
    }
    search(root, |directory| lists(directory, pid))
        .ok_or_else(|| Error::NoCgroup { pid, root: root.to_path_buf() })
}

/// The directory of the cgroup with this id, below the `root` of the hierarchy.
pub fn of_id(wanted: u64, root: &Path) -> Option<PathBuf> {
    search(root, |directory| id(directory).is_ok_and(|id| id == wanted))
}

/// The processes in exactly this cgroup. A process outside the reader's pid namespace appears as 0.
///
/// # Errors
/// If the cgroup does not exist.
pub fn processes(cgroup: &Path) -> Result<Vec<u32>> {
    let path = cgroup.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(source) => Err(Error::File { step: "read", path, source }),
    }
}

/// The processes in a cgroup and all cgroups below it.
pub fn processes_below(cgroup: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    search(cgroup, |directory| {
        found.extend(processes(directory).unwrap_or_default());
        false
    });
    found
}

fn search(root: &Path, mut is: impl FnMut(&Path) -> bool) -> Option<PathBuf> {
    let mut pending = vec![root.to_path_buf()];
    for _ in 0..DIRECTORIES_MAX {
        let directory = pending.pop()?;
        if is(&directory) {
            return Some(directory);
        }
        // A cgroup that disappears meanwhile is skipped.
        pending.extend(subdirectories(&directory).unwrap_or_default());
    }
    None
}

fn lists(cgroup: &Path, pid: u32) -> bool {
    processes(cgroup).is_ok_and(|pids| pids.contains(&pid))
}

fn subdirectories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
