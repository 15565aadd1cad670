//! Cgroups of processes, as the kernel programs and links name them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{Error, Result};

/// Where the v2 hierarchy may be: alone, or beside the v1 controllers.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Directories a search looks at before it gives up.
const DIRECTORIES_MAX: usize = 65_536;

/// The root of the cgroup v2 hierarchy of this node.
pub fn root() -> Result<PathBuf> {
    let is_v2 = |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let [first, _] = MOUNTS;
    MOUNTS
        .iter()
        .map(PathBuf::from)
        .find(|path| is_v2(path))
        .ok_or_else(|| Error::Unmounted { path: first.into(), file_system: "cgroup2" })
}

/// The id of a cgroup: what the kernel says for a task in exactly this one.
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
/// The path the kernel tells is relative to the cgroup namespace of the reader, which need not be that of the mount.
/// So it counts only if the directory it leads to lists the process; otherwise the hierarchy is searched.
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
    let mut pending = vec![root.to_path_buf()];
    for _ in 0..DIRECTORIES_MAX {
        let Some(directory) = pending.pop() else { break };
        if lists(&directory, pid) {
            return Ok(directory);
        }
        // A cgroup that goes away meanwhile is none the process is in.
        pending.extend(subdirectories(&directory).unwrap_or_default());
    }
    Err(Error::NoCgroup { pid, root: root.to_path_buf() })
}

fn lists(cgroup: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(cgroup.join("cgroup.procs")) else { return false };
    text.lines().any(|line| line.parse() == Ok(pid))
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
