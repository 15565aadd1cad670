//! On real directories: what is chosen, what is written, what comes back.

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
        replaces: None,
    }
}

fn reason(state: State) -> &'static str {
    match state {
        State::Installed => "",
        State::Waiting(problem) => problem.reason,
    }
}

#[test]
fn installs_into_the_first_valid_configuration_and_leaves_as_it_came() {
    let node = Node::new();
    node.put("00-broken.conflist", "{");
    node.put("05-readme.txt", "hello");
    let path = node.put("10-bridge.conflist", LIST);
    let later = node.put("20-later.conflist", LIST);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(reconcile(&node.paths, &entry()), State::Installed);
    let written = fs::read_to_string(&path).unwrap();
    assert!(conflist::contains_ours(&written));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(&later).unwrap(), LIST);
    let binary = node.paths.binary();
    assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o777, 0o755);

    assert_eq!(reconcile(&node.paths, &entry()), State::Installed);
    assert_eq!(fs::read_to_string(&path).unwrap(), written, "twice is once");

    remove(&node.paths).unwrap();
    remove(&node.paths).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
    assert!(!binary.exists());
    assert_eq!(node.listing().len(), 4, "no temporary file stays: {:?}", node.listing());
}

#[test]
fn a_single_configuration_is_replaced_by_a_list_and_restored() {
    let node = Node::new();
    let text = "{\"name\":\"n\",\"type\":\"ptp\"}\n";
    let path = node.put("10-n.conf", text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(reconcile(&node.paths, &entry()), State::Installed);
    assert_eq!(node.listing(), ["10-n.conflist"]);
    let mode = fs::metadata(node.paths.conf_dir.join("10-n.conflist")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(reconcile(&node.paths, &entry()), State::Installed);
    remove(&node.paths).unwrap();
    assert_eq!(node.listing(), ["10-n.conf"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
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
    assert_eq!(reconcile(&node.paths, &entry()), State::Installed);
    fs::remove_dir_all(&node.paths.conf_dir).unwrap();
    assert_eq!(reason(reconcile(&node.paths, &entry())), "CNIConfigMissing");
}

#[tokio::test]
async fn puts_itself_back_when_another_writer_replaces_the_configuration() {
    let node = Node::new();
    let installer = watch(node.paths.clone(), entry()).unwrap();
    let mut state = installer.state();
    let limit = Duration::from_secs(20);
    let path = node.put("10-bridge.conflist", LIST);
    tokio::time::timeout(limit, state.wait_for(|state| *state == State::Installed)).await.unwrap().unwrap();
    files::replace(&path, LIST.as_bytes()).unwrap();
    let back = async {
        while !conflist::contains_ours(&fs::read_to_string(&path).unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, back).await.unwrap();
    installer.remove().await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
}
