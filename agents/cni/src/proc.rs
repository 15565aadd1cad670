//! Processes of the node from `/proc` (the agent runs in the node's pid namespace).
//!
//! Invariant: a network namespace counts as a pod's only if a process of the pod is in it, it has
//! one of the pod's addresses, and it is not the node's own.

use std::{fs, io, net::IpAddr, path::Path};

use ambit_netns::{NetNs, run_in};

use crate::Error;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// Clock ticks from boot to its start; together with the pid this identifies a process
    /// uniquely.
    pub started: u64,
    /// Process id.
    pub pid: u32,
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn of(proc: &Path, pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
        Some(Self { started: start_time(&stat)?, pid })
    }

    /// Whether it is still running, with the same start time.
    pub(crate) fn is_alive(self, proc: &Path) -> bool {
        Self::of(proc, self.pid) == Some(self)
    }
}

/// Processes of a pod, oldest first.
///
/// # Errors
/// If `proc` cannot be listed.
pub(crate) fn of_pod(proc: &Path, uid: &str) -> io::Result<Vec<Process>> {
    select(proc, |directory| {
        fs::read_to_string(directory.join("cgroup")).is_ok_and(|text| names_pod(&text, uid))
    })
}

/// Processes with this program name, oldest first.
///
/// # Errors
/// If `proc` cannot be listed.
pub(crate) fn named(proc: &Path, name: &str) -> io::Result<Vec<Process>> {
    select(proc, |directory| {
        fs::read_to_string(directory.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}

/// The network namespace of a running pod: that of its oldest process, if it has one of `ips`.
///
/// # Errors
/// [`Error::NoAddress`] and [`Error::NoNamespace`].
pub(crate) fn netns_of_pod(proc: &Path, uid: &str, ips: &[IpAddr]) -> Result<NetNs, Error> {
    if ips.is_empty() {
        return Err(Error::NoAddress { uid: uid.to_owned() });
    }
    let host = NetNs::current()?;
    let processes = of_pod(proc, uid).map_err(Error::io("list the processes of the node"))?;
    for process in processes {
        // A process may end at any moment; try the next one of the pod.
        let Ok(netns) = NetNs::of_pid(process.pid) else { continue };
        if !netns.same(&host) && holds_one_of(&netns, ips) {
            return Ok(netns);
        }
    }
    Err(Error::NoNamespace { uid: uid.to_owned(), ips: ips.to_vec() })
}

fn holds_one_of(netns: &NetNs, ips: &[IpAddr]) -> bool {
    let local = run_in(netns, nix::ifaddrs::getifaddrs);
    let Ok(Ok(interfaces)) = local else { return false };
    interfaces.into_iter().filter_map(|interface| interface.address).any(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        v4.or(v6).is_some_and(|ip| ips.contains(&ip))
    })
}

fn select(proc: &Path, matches: impl Fn(&Path) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if matches(&entry.path()) {
            found.extend(Process::of(proc, pid));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The uid of the pod that a process belongs to, from its cgroups.
pub(crate) fn pod_of(proc: &Path, pid: u32) -> Option<String> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    pod_in(&text)
}

/// Whether a process belongs to the node itself: it runs as the node's root, in the initial pid
/// namespace, and in no pod's cgroup.
///
/// A container may use any program name and share the node's network, but it is in the cgroup of
/// its pod.
pub(crate) fn is_of_node(proc: &Path, pid: u32) -> bool {
    let directory = proc.join(pid.to_string());
    let pid_namespace = |directory: &Path| fs::read_link(directory.join("ns/pid")).ok();
    let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
    let cgroups = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
    let first = pid_namespace(&proc.join("1"));
    first.is_some()
        && pid_namespace(&directory) == first
        && runs_as_root(&status)
        && !cgroups.is_empty()
        && pod_in(&cgroups).is_none()
        && !cgroups.contains("kubepods")
}

/// Whether all four user ids in `/proc/<pid>/status` are 0.
fn runs_as_root(status: &str) -> bool {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.is_some_and(|uids| uids.split_ascii_whitespace().eq(["0"; 4]))
}

/// The pod uid in `/proc/<pid>/cgroup`, with dashes, for either cgroup driver.
///
/// The innermost one counts. A uid has 36 characters; that of a static pod is the hash of its
/// manifest, with 32.
fn pod_in(cgroup: &str) -> Option<String> {
    let is_uid = |name: &str| {
        matches!(name.len(), 32 | 36) && name.chars().all(|c| c.is_ascii_hexdigit() || c == '-' || c == '_')
    };
    cgroup.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        path.rsplit('/').find_map(|part| {
            let part = part.strip_suffix(".slice").unwrap_or(part);
            let (_, name) = part.rsplit_once("pod")?;
            is_uid(name).then(|| name.replace('_', "-"))
        })
    })
}

/// Whether `/proc/<pid>/cgroup` contains the pod, as the cgroupfs driver (`pod<uid>`) or the
/// systemd driver (`pod<uid with underscores>.slice`) writes it.
fn names_pod(cgroup: &str, uid: &str) -> bool {
    let systemd = uid.replace('-', "_");
    cgroup.lines().any(|line| {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        path.split('/').any(|part| {
            let part = part.strip_suffix(".slice").unwrap_or(part);
            part.rsplit_once("pod").is_some_and(|(_, name)| name == uid || name == systemd)
        })
    })
}

/// Field 22 of a `stat` line. The program name before it may contain anything, so counting starts
/// after it.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11";

    #[test]
    fn a_pod_is_recognised_by_the_cgroups_of_both_drivers_and_only_by_its_own() {
        let cases = [
            ("0::/kubepods/besteffort/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11/5b1f", true),
            ("12:cpu:/kubepods/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11\n0::/", true),
            (
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0c9e3b5e_7a9f_4f0e_8a44_2b2f7c2d9c11.slice/cri-1.scope",
                true,
            ),
            ("0::/../../besteffort/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11/x", true),
            ("0::/kubepods/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c12/x", false),
            ("0::/kubepods/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11-evil/x", false),
            ("0::/system.slice/kubelet.service", false),
            ("", false),
        ];
        for (text, want) in cases {
            assert_eq!(names_pod(text, UID), want, "{text}");
        }
    }

    #[test]
    fn the_pod_of_a_process_is_read_off_its_cgroups() {
        let cases = [
            ("0::/kubepods/besteffort/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11/5b1f", Some(UID)),
            ("12:cpu:/kubepods/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11\n0::/", Some(UID)),
            ("0::/a/kubepods-burstable-pod0c9e3b5e_7a9f_4f0e_8a44_2b2f7c2d9c11.slice/cri-1.scope", Some(UID)),
            ("0::/kubepods/pod7d3c0e5f9b1a4c2d8e6f0a1b2c3d4e5f/x", Some("7d3c0e5f9b1a4c2d8e6f0a1b2c3d4e5f")),
            ("0::/system.slice/kubelet.service", None),
            ("0::/system.slice/podman.service", None),
            ("0::/", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(pod_in(text).as_deref(), want, "{text}");
        }
    }

    /// A `/proc` with the node's init process and one more.
    struct Scene(std::path::PathBuf);

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scene(name: &str, uid: &str, cgroup: &str, pid_namespace: &str) -> Scene {
        let proc = std::env::temp_dir().join(format!("ambit-proc-{}-{name}", std::process::id()));
        for (pid, namespace) in [("1", "pid:[1]"), ("7", pid_namespace)] {
            let directory = proc.join(pid);
            fs::create_dir_all(directory.join("ns")).unwrap();
            std::os::unix::fs::symlink(namespace, directory.join("ns/pid")).unwrap();
            fs::write(directory.join("status"), format!("Name:\tkubelet\nUid:\t{uid}\n")).unwrap();
            fs::write(directory.join("cgroup"), cgroup).unwrap();
        }
        Scene(proc)
    }

    #[test]
    fn only_a_process_of_the_node_itself_can_be_its_kubelet() {
        let (root, own) = ("0\t0\t0\t0", "pid:[1]");
        let service = "0::/system.slice/kubelet.service";
        let cases = [
            ("kubelet", root, service, own, true),
            ("another-user", "1000\t1000\t1000\t1000", service, own, false),
            ("effective-root", "1000\t0\t0\t0", service, own, false),
            ("container", root, service, "pid:[2]", false),
            ("host-pid-pod", root, "0::/kubepods/pod0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11/x", own, false),
            ("below-pods", root, "0::/kubepods.slice/x", own, false),
            ("pod-in-v1", root, "9:cpu:/kubepods/podx/y\n0::/", own, false),
            ("unreadable", root, "", own, false),
        ];
        for (name, uid, cgroup, namespace, want) in cases {
            let scene = scene(name, uid, cgroup, namespace);
            assert_eq!(is_of_node(&scene.0, 7), want, "{name}");
        }
        assert!(!is_of_node(Path::new("/nowhere"), 1));
    }

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let fields = (3..=22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time(&format!("1 (a) b) {fields} 23")), Some(22));
        assert_eq!(start_time("1 (sh"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_of_its_pid_is_not() {
        let proc = Path::new("/proc");
        let own = Process::of(proc, std::process::id()).unwrap();
        assert!(own.is_alive(proc));
        assert!(!Process { started: own.started + 1, ..own }.is_alive(proc));
        assert!(of_pod(proc, UID).unwrap().is_empty());
    }
}
