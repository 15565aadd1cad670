//! The pin directory and its cleanup.
//!
//! `<bpffs>/v<layout>/` contains the maps and the node's links, `pod/` below it one link per pod,
//! and `device/` the links of pod devices.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ambit_redirect_common::LAYOUT;
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::{Config, Error, Result};

/// Depth of the pin directory: version, `pod` or `device`, link.
const DEPTH_MAX: u32 = 3;
const UID_CHARACTERS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    version: PathBuf,
    pods: PathBuf,
    devices: PathBuf,
}

impl Pins {
    /// Checks the mounts and creates the directories.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let parent = config.bpffs.parent().unwrap_or(&config.bpffs);
        let bpffs = if config.bpffs.exists() { &config.bpffs } else { parent };
        require(bpffs, BPF_FS_MAGIC, "bpf")?;
        require(&config.cgroup, CGROUP2_SUPER_MAGIC, "cgroup2")?;
        let version = config.bpffs.join(format!("v{LAYOUT}"));
        let (pods, devices) = (version.join("pod"), version.join("device"));
        for directory in [&pods, &devices] {
            fs::create_dir_all(directory).map_err(|source| Error::File {
                step: "make directory",
                path: directory.clone(),
                source,
            })?;
        }
        let pins = Self { root: config.bpffs.clone(), version, pods, devices };
        // A process that ended between pin and rename left its link attached twice.
        pins.remove(&pins.swap())?;
        Ok(pins)
    }

    /// The pin of a map, or of a node-wide link.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.version.join(name)
    }

    /// The pin of a pod's link.
    pub(crate) fn pod(&self, uid: &str) -> Result<PathBuf> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        // The kernel rejects dots in names, and a slash would leave the directory.
        if uid.is_empty() || uid.len() > UID_CHARACTERS_MAX || !uid.chars().all(legal) {
            return Err(Error::Uid(uid.to_owned()));
        }
        Ok(self.pods.join(uid))
    }

    /// The pin of a link at a device of a pod.
    pub(crate) fn device(&self, uid: &str, index: u32, program: &str) -> Result<PathBuf> {
        self.pod(uid)?;
        Ok(self.devices.join(format!("{uid}-{index}-{program}")))
    }

    /// The pins of all links at the devices of a pod.
    pub(crate) fn devices_of(&self, uid: &str) -> Result<Vec<PathBuf>> {
        let of = |name: &str| name.rsplitn(3, '-').nth(2) == Some(uid);
        let names = names(&self.devices)?;
        Ok(names.into_iter().filter(|name| of(name)).map(|name| self.devices.join(name)).collect())
    }

    /// Temporary pin of a link, before it is renamed over another.
    pub(crate) fn swap(&self) -> PathBuf {
        self.version.join("swap")
    }

    /// The uids of all pods with a pinned link.
    pub(crate) fn pod_uids(&self) -> Result<Vec<String>> {
        names(&self.pods)
    }

    /// Removes a pin if it exists.
    pub(crate) fn remove(&self, pin: &Path) -> Result<()> {
        match fs::remove_file(pin) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { step: "remove pin", path: pin.to_path_buf(), source })
            }
            _ => Ok(()),
        }
    }

    /// Removes every pin of every layout, and the directories.
    pub(crate) fn remove_all(&self) -> Result<()> {
        remove_tree(&self.root, DEPTH_MAX)
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let read = |source| Error::File { step: "list", path: directory.to_path_buf(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        if let Ok(name) = entry.map_err(read)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_tree(directory: &Path, depth: u32) -> Result<()> {
    let file = |step| move |source| Error::File { step, path: directory.to_path_buf(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file("list")(error)),
    };
    for entry in entries {
        let entry = entry.map_err(file("list"))?;
        let path = entry.path();
        if entry.file_type().map_err(file("list"))?.is_dir() && depth > 0 {
            remove_tree(&path, depth - 1)?;
        } else {
            fs::remove_file(&path).map_err(|source| Error::File { step: "remove pin", path, source })?;
        }
    }
    fs::remove_dir(directory).map_err(file("remove directory"))
}

fn require(path: &Path, kind: FsType, file_system: &'static str) -> Result<()> {
    match statfs(path) {
        Ok(found) if found.filesystem_type() == kind => Ok(()),
        Ok(_) => Err(Error::Unmounted { path: path.to_path_buf(), file_system }),
        Err(errno) => Err(Error::File { step: "look at", path: path.to_path_buf(), source: errno.into() }),
    }
}
