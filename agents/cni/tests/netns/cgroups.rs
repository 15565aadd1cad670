//! Cgroups that identify a proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::fixture::World;

/// A process that sleeps in a cgroup; both are removed when dropped.
struct Sleeper {
    child: Child,
    cgroup: Option<PathBuf>,
}

impl Sleeper {
    fn new(cgroup: &Path) -> Self {
        let is_new = !cgroup.exists();
        fs::create_dir_all(cgroup).unwrap();
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self { child, cgroup: is_new.then(|| cgroup.to_path_buf()) }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

async fn exempt(world: &World, pid: u32, proc: &Path) -> Result<u64, String> {
    let proc = proc.to_path_buf();
    let result = world.kernel.call(move |kernel| kernel.exempt(pid, &proc)).await;
    result.map_err(|error| error.problem().reason.to_owned())
}

async fn inherited(world: &World) -> Vec<u64> {
    let found = world.kernel.call(|kernel| kernel.inherited_exemptions()).await.unwrap();
    found.into_iter().map(|(cgroup, _)| cgroup).collect()
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_proxy_is_exempt_only_in_a_cgroup_that_is_its_pods_alone() {
    World::run(async |world| {
        let proc = Path::new("/proc");
        let at_root = Sleeper::new(&world.cgroup());
        assert_eq!(exempt(world, at_root.pid(), proc).await, Err("CgroupShared".to_owned()));

        let shared = world.cgroup().join("shared");
        let (proxy, other) = (Sleeper::new(&shared), Sleeper::new(&shared));
        // On a hybrid hierarchy with an old runtime, only the v1 hierarchies distinguish pods.
        let fake_proc = world.zds.with_file_name("proc");
        let says = |pid: u32, pod: &str| {
            let directory = fake_proc.join(pid.to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup"), format!("9:cpu:/kubepods/pod{pod}/x\n0::/\n")).unwrap();
        };
        let [one, two] = ["0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c11", "0c9e3b5e-7a9f-4f0e-8a44-2b2f7c2d9c12"];
        says(proxy.pid(), one);
        says(other.pid(), two);
        assert_eq!(exempt(world, proxy.pid(), &fake_proc).await, Err("CgroupShared".to_owned()));
        says(other.pid(), one);
        let cgroup = exempt(world, proxy.pid(), &fake_proc).await.unwrap();
        assert_eq!(inherited(world).await, [cgroup]);
        drop(other);
    });
}

#[test]
#[ignore = "needs root: make test-netns"]
fn an_exemption_whose_proxy_is_gone_ends_with_the_next_agent() {
    World::run(async |world| {
        let [gone, stays] = ["gone", "stays"].map(|name| Sleeper::new(&world.cgroup().join(name)));
        exempt(world, gone.pid(), Path::new("/proc")).await.unwrap();
        let kept = exempt(world, stays.pid(), Path::new("/proc")).await.unwrap();
        drop(gone);
        assert_eq!(inherited(world).await, [kept]);
    });
}
