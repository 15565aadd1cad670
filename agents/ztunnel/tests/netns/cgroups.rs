//! Workers in a cgroup that is exempt from capture, everything else of this process in its parent.
//!
//! Threads of one process may be in different cgroups only below a threaded one (cgroup-v2,
//! "Threads").

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use ambit_redirect::cgroup;

/// Number of running tests; locked while the directories are created or removed.
static TESTS: Mutex<usize> = Mutex::new(0);

/// Keeps the process in `path`; the last test moves it back and removes everything.
pub(crate) struct TestCgroup {
    home: PathBuf,
    pub(crate) path: PathBuf,
}

impl TestCgroup {
    pub(crate) fn enter() -> Self {
        let mut tests = TESTS.lock().unwrap();
        let root = cgroup::root().unwrap();
        let pid = std::process::id();
        let name = format!("ambit-ztunnel-test-{pid}");
        let here = cgroup::of_pid(pid, &root).unwrap();
        let home = if *tests == 0 { here } else { here.parent().unwrap().to_path_buf() };
        let path = home.join(name);
        if *tests == 0 {
            fs::create_dir_all(path.join("proxies")).unwrap();
            fs::write(path.join("cgroup.procs"), pid.to_string()).unwrap();
            fs::write(path.join("proxies/cgroup.type"), "threaded").unwrap();
        }
        *tests += 1;
        Self { home, path }
    }

    /// Cgroup of proxies.
    pub(crate) fn proxies(&self) -> PathBuf {
        self.path.join("proxies")
    }

    /// Moves all worker threads there.
    pub(crate) fn move_workers(&self) {
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.starts_with("ztunnel-") {
                let thread = task.file_name().into_string().unwrap();
                // A thread of another test may have ended since.
                let _ = fs::write(self.proxies().join("cgroup.threads"), thread);
            }
        }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let mut tests = TESTS.lock().unwrap();
        *tests -= 1;
        if *tests == 0 {
            move_here(&self.home);
            fs::remove_dir(self.proxies()).unwrap();
            fs::remove_dir(&self.path).unwrap();
        }
    }
}

fn move_here(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}
