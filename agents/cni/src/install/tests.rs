//! Tests with real directories: what is embedded, written and restored.

use std::{
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::*;

struct Node {
    root: PathBuf,
    paths: Paths,
}

impl Node {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ambit-install-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        let paths = Paths {
            conf_dir: root.join("net.d"),
            bin_dir: root.join("bin"),
            plugin_source: root.join("plugin"),
        };
        fs::create_dir_all(&paths.conf_dir).unwrap();
        fs::create_dir_all(&paths.bin_dir).unwrap();
        fs::write(&paths.plugin_source, b"ELF").unwrap();
        Self { root, paths }
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.paths.conf_dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn listing(&self) -> Vec<String> {
        let mut all: Vec<_> = fs::read_dir(&self.paths.conf_dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

const LIST: &str = include_str!("../../testdata/10-bridge.conflist");

fn entry() -> Entry {
    Entry {
        plugin: PLUGIN.into(),
        socket: "/run/ambit/cni.sock".into(),
        state_file: "/var/lib/ambit/enrolled.json".into(),
        system_namespace: "ambit-system".into(),
        embeds: None,
        replaces: None,
    }
}

fn reason(state: InstallState) -> &'static str {
    match state {
        InstallState::Installed => "",
        InstallState::Waiting(problem) => problem.reason,
    }
}

const OWN: &str = "01-ambit.conflist";

#[test]
fn our_list_comes_first_follows_the_primary_and_leaves_without_a_trace() {
    let node = Node::new();
    node.put("05-readme.txt", "hello");
    let path = node.put("10-bridge.conflist", LIST);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    let own = node.paths.conf_dir.join(OWN);
    let written = fs::read_to_string(&own).unwrap();
    assert!(conflist::contains_ours(&written));
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
    let binary = node.paths.binary();
    assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    assert_eq!(fs::read_to_string(&own).unwrap(), written, "twice is once");

    // The embedded configuration changes, is half written, disappears, and comes back under another
    // name.
    fs::write(&path, LIST.replace("10.42", "10.43")).unwrap();
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    let followed = fs::read_to_string(&own).unwrap();
    assert!(followed.contains("10.43") && !followed.contains("10.42"), "{followed}");
    fs::write(&path, "").unwrap();
    assert_eq!(reason(reconcile(&node.paths, &entry())), "CNIConfigInvalid");
    fs::remove_file(&path).unwrap();
    assert_eq!(reason(reconcile(&node.paths, &entry())), "CNIConfigMissing");
    assert_eq!(
        fs::read_to_string(&own).unwrap(),
        followed,
        "a runtime reads it as long as nothing better is known"
    );
    node.put("07-next.conflist", LIST);
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    assert!(fs::read_to_string(&own).unwrap().contains("07-next.conflist"));

    let path = node.put("00-net.conflist", LIST);
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    assert!(
        !own.exists() && node.paths.conf_dir.join("00-ambit.conflist").exists(),
        "under a name that is first"
    );
    remove(&node.paths).unwrap();
    remove(&node.paths).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
    assert!(!binary.exists() && before <= fs::metadata(&path).unwrap().modified().unwrap());
    assert_eq!(node.listing(), ["00-net.conflist", "05-readme.txt", "07-next.conflist"]);
}

#[test]
fn what_an_earlier_agent_put_into_the_files_of_others_is_taken_out_once_ours_is_there() {
    let node = Node::new();
    let earlier = include_str!("../../testdata/earlier/10-bridge.conflist");
    let path = node.put("10-bridge.conflist", earlier);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    node.put("20-net.conflist", include_str!("../../testdata/earlier/05-net.conflist"));
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(node.listing(), [OWN, "05-net.conf", "10-bridge.conflist"]);
    let own = fs::read_to_string(node.paths.conf_dir.join(OWN)).unwrap();
    assert_eq!(own.matches(PLUGIN).count(), 1, "{own}");

    // The Mesh is deleted before this agent has installed its list.
    node.put("10-bridge.conflist", earlier);
    remove(&node.paths).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
    assert_eq!(node.listing(), ["05-net.conf", "10-bridge.conflist"]);
}

#[test]
fn a_missing_empty_or_invalid_configuration_is_named_and_never_written() {
    let node = Node::new();
    assert_eq!(reason(reconcile(&node.paths, &entry())), "CNIConfigMissing");
    for text in ["", "{}", "garbage", "{\"name\":\"n\",\"plugins\":[]}"] {
        let path = node.put("10-x.conflist", text);
        assert_eq!(reason(reconcile(&node.paths, &entry())), "CNIConfigInvalid", "{text:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    node.put("10-x.conflist", LIST);
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    fs::remove_dir_all(&node.paths.conf_dir).unwrap();
    assert_eq!(reason(reconcile(&node.paths, &entry())), "CNIConfigMissing");
}

#[test]
fn a_configuration_that_calls_others_but_not_ours_is_named() {
    let node = Node::new();
    node.put("10-bridge.conflist", LIST);
    let multus = r#"{"name":"m","type":"multus","delegates":[{"name":"n","plugins":[{"type":"ptp"}]}]}"#;
    node.put("00-multus.conf", multus);
    let InstallState::Waiting(problem) = reconcile(&node.paths, &entry()) else { panic!("pods pass us by") };
    assert_eq!(problem.reason, "CNIConfigNotFirst");
    assert!(problem.message.contains("00-multus.conf") && problem.message.contains(OWN), "{problem:?}");
    // Multus uses the first list besides its own, which is ours by now.
    let own = fs::read_to_string(node.paths.conf_dir.join(OWN)).unwrap();
    node.put("00-multus.conf", &format!(r#"{{"name":"m","type":"multus","delegates":[{own}]}}"#));
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    // An earlier agent put our plugin into it. It stays until the mesh leaves, because it is read
    // before ours.
    fs::remove_file(node.paths.conf_dir.join("00-multus.conf")).unwrap();
    let earlier = format!(r#"{{"name":"m","plugins":[{multus}, {{"type":"ambit-cni"}}]}}"#);
    let path = node.put("00-multus.conflist", &earlier);
    assert_eq!(reconcile(&node.paths, &entry()), InstallState::Installed);
    assert_eq!(fs::read_to_string(&path).unwrap(), earlier);
    remove(&node.paths).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains(PLUGIN));
}

#[tokio::test]
async fn a_foreign_program_that_rewrites_its_file_never_opens_a_window() {
    let node = Node::new();
    let installer = watch(node.paths.clone(), entry()).unwrap();
    let mut state = installer.state();
    let limit = Duration::from_secs(20);
    let path = node.put("10-bridge.conflist", LIST);
    tokio::time::timeout(limit, state.wait_for(|state| *state == InstallState::Installed))
        .await
        .unwrap()
        .unwrap();
    // Runtimes read the first file by name.
    let first = |node: &Node| {
        let directory = &node.paths.conf_dir;
        fs::read_to_string(directory.join(&names(directory).unwrap()[0])).unwrap()
    };
    for round in 0..200 {
        let text = LIST.replace("10.42", &format!("10.{round}"));
        match round % 4 {
            0 => files::replace(&path, text.as_bytes()).unwrap(),
            1 => fs::write(&path, text).unwrap(),
            2 => {
                fs::remove_file(&path).unwrap();
                assert!(conflist::contains_ours(&first(&node)), "while it is gone, round {round}");
                fs::write(&path, text).unwrap();
            }
            _ => {
                fs::write(&path, "").unwrap();
                assert!(conflist::contains_ours(&first(&node)), "while it is empty, round {round}");
                fs::write(&path, text).unwrap();
            }
        }
        assert!(conflist::contains_ours(&first(&node)), "round {round}");
    }
    let followed = async {
        while !first(&node).contains("10.199") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, followed).await.unwrap();
    // Another program removes ours (Cilium does unless cni.exclusive=false): it is written again.
    fs::remove_file(node.paths.conf_dir.join(OWN)).unwrap();
    let back = async {
        while !node.paths.conf_dir.join(OWN).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, back).await.unwrap();
    installer.remove().await.unwrap();
    assert_eq!(node.listing(), ["10-bridge.conflist"]);
}
