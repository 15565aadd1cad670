//! The decision table, and complete invocations against a fake agent.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
};

use super::{agent::Unreachable, protocol::Answer, *};

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"n","type":"ambit-cni","socket":"SOCKET",
"stateFile":"STATE","systemNamespace":"ambit-system",
"prevResult":{ "cniVersion":"1.0.0", "ips":[{"address":"10.42.0.7/24"},{"address":"fd00::7/64"}],"z":1,"a":2 }}"#;
const PREVIOUS: &str =
    r#"{ "cniVersion":"1.0.0", "ips":[{"address":"10.42.0.7/24"},{"address":"fd00::7/64"}],"z":1,"a":2 }"#;

fn environment(command: &str, namespace: &str) -> HashMap<String, String> {
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=p;K8S_POD_UID=u-1");
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", &args),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

struct Scene {
    directory: PathBuf,
    stdin: String,
}

impl Scene {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ambit-plugin-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let path = |file: &str| directory.join(file).display().to_string();
        let stdin = CONFIG.replace("SOCKET", &path("sock")).replace("STATE", &path("enrolled.json"));
        Self { directory, stdin }
    }

    fn enroll(&self, namespace: &str) {
        let enrolled = Enrolled { namespaces: [namespace.to_owned()].into(), ..Enrolled::default() };
        enrolled.write(&self.directory.join("enrolled.json")).unwrap();
    }

    /// An agent that gives `answer` to one request, whatever it is, and ends.
    fn agent(&self, answer: Vec<u8>) -> std::thread::JoinHandle<Request> {
        let listener = UnixListener::bind(self.directory.join("sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut prefix = [0; frame::PREFIX_BYTES];
            stream.read_exact(&mut prefix).unwrap();
            let mut question = vec![0; frame::length(prefix).unwrap()];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(&answer).unwrap();
            frame::decode(&question).unwrap()
        })
    }

    fn add(&self, namespace: &str) -> Outcome {
        run(&environment("ADD", namespace), self.stdin.as_bytes())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_decision_table() {
    let pod = |of: &str| {
        let (namespace, uid) = of.split_once('/').unwrap();
        Request {
            container_id: "c".into(),
            netns: "/n".into(),
            ifname: "eth0".into(),
            namespace: namespace.into(),
            name: "p".into(),
            uid: uid.into(),
            ips: Vec::new(),
        }
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    // `part` contains pods enrolled by their own label: `labelled` is one of them, `left` and `out`
    // are not.
    let enrolled = || Enrolled {
        namespaces: set(&["shop", "part"]),
        pods: set(&["labelled"]),
        outside: set(&["left", "out"]),
    };
    let wait = || Answer::Wait { reason: "ProxyNotConnected".into(), message: "no proxy".into() };
    let away = || Unreachable("refused".into());
    let cases = [
        ("shop/u", Ok(Answer::Allow), None),
        ("other/u", Ok(Answer::Allow), None),
        ("shop/u", Ok(wait()), Some("ProxyNotConnected")),
        ("other/u", Ok(wait()), Some("ProxyNotConnected")),
        ("shop/u", Err(away()), Some("NodeAgentUnavailable")),
        ("shop/", Err(away()), Some("NodeAgentUnavailable")),
        ("shop/left", Err(away()), None),
        ("part/labelled", Err(away()), Some("NodeAgentUnavailable")),
        ("part/new", Err(away()), Some("NodeAgentUnavailable")),
        ("part/", Err(away()), Some("NodeAgentUnavailable")),
        ("part/out", Err(away()), None),
        // Its namespace is not listed (any more), but the operator's description of the pod itself
        // counts.
        ("other/labelled", Err(away()), Some("NodeAgentUnavailable")),
        ("other/u", Err(away()), None),
    ];
    for (of, answer, want) in cases {
        match (decide(&pod(of), answer, enrolled), want) {
            (Verdict::Allow, None) => {}
            (Verdict::Refuse(failure), Some(reason)) => {
                assert_eq!(failure.code, 11);
                assert!(failure.message.contains(reason), "{failure:?}");
            }
            (verdict, _) => panic!("{of}: {verdict:?}"),
        }
    }
    assert_eq!(
        decide(&pod("shop/u"), Err(away()), Enrolled::default),
        Verdict::Allow,
        "no file: nothing enrolled"
    );
}

#[test]
fn an_allowed_pod_gets_the_previous_result_unchanged_and_the_agent_hears_all() {
    let scene = Scene::new("allow");
    let agent = scene.agent(frame::encode(&Answer::Allow).unwrap());
    assert_eq!(scene.add("shop"), Outcome { stdout: PREVIOUS.into(), code: 0 });
    let heard = agent.join().unwrap();
    assert_eq!((heard.netns.as_str(), heard.uid.as_str()), ("/run/netns/x", "u-1"));
    assert_eq!(heard.ips, ["10.42.0.7", "fd00::7"]);
}

#[test]
fn a_pod_that_must_wait_gets_a_retriable_error_with_the_reason() {
    let scene = Scene::new("wait");
    let wait = Answer::Wait { reason: "ProxyNotConnected".into(), message: "no ztunnel on this node".into() };
    let agent = scene.agent(frame::encode(&wait).unwrap());
    let outcome = scene.add("shop");
    agent.join().unwrap();
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (outcome.code, value["code"].as_u64(), value["cniVersion"].as_str()),
        (1, Some(11), Some("1.0.0"))
    );
    assert!(value["msg"].as_str().unwrap().contains("ProxyNotConnected"));
    assert_eq!(value["details"], "no ztunnel on this node");
}

#[test]
fn without_an_agent_only_pods_of_enrolled_namespaces_wait() {
    let scene = Scene::new("away");
    assert_eq!(scene.add("shop").code, 0, "no file yet");
    scene.enroll("shop");
    let outcome = scene.add("shop");
    assert_eq!(outcome.code, 1);
    assert!(outcome.stdout.contains("NodeAgentUnavailable") && outcome.stdout.contains("ambit-node-agent"));
    assert_eq!(scene.add("other").code, 0);
    scene.enroll("ambit-system");
    assert_eq!(scene.add("ambit-system").code, 0, "our own pods always start");
    std::fs::write(scene.directory.join("enrolled.json"), r#"{"namespaces": ["shop"]}"#).unwrap();
    assert_eq!(scene.add("shop").code, 1, "the file of an agent that knew namespaces only");
    std::fs::write(scene.directory.join("enrolled.json"), "{\"namespaces\": [").unwrap();
    assert_eq!(scene.add("shop").code, 0, "a file that says nothing holds up nobody");
}

#[test]
fn an_answer_that_is_none_counts_as_no_agent() {
    let allow = r#"{"version":1,"body":{"verdict":"allow"}}"#;
    let frame =
        |json: &str| [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat();
    for answer in [
        Vec::new(),
        vec![0, 0],
        allow.as_bytes().to_vec(),
        frame(allow)[..20].to_vec(),
        frame("nonsense"),
        frame(r#"{"verdict":"allow"}"#),
        frame(r#"{"version":2,"body":{"verdict":"allow"}}"#),
        frame(r#"{"version":1,"body":{"verdict":"perhaps"}}"#),
        // An older agent, which used HTTP.
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{\"verdict\":\"allow\"}".to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
    ] {
        let scene = Scene::new("odd");
        scene.enroll("shop");
        let agent = scene.agent(answer.clone());
        let outcome = scene.add("shop");
        assert_eq!(outcome.code, 1, "{answer:?}");
        assert!(outcome.stdout.contains("NodeAgentUnavailable"), "{}", outcome.stdout);
        agent.join().unwrap();
    }
}

#[test]
fn every_other_verb_succeeds_without_asking_anybody() {
    for verb in ["DEL", "CHECK", "STATUS", "GC"] {
        let outcome = run(&environment(verb, "shop"), CONFIG.as_bytes());
        assert_eq!(outcome, Outcome { stdout: String::new(), code: 0 }, "{verb}");
    }
    assert_eq!(run(&environment("DEL", "shop"), "".as_bytes()).code, 0);
    let versions = run(&environment("VERSION", "shop"), r#"{"cniVersion":"1.1.0"}"#.as_bytes()).stdout;
    assert_eq!(
        versions,
        r#"{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
    );
}

#[test]
fn bad_input_is_answered_as_cni_says() {
    let code = |outcome: Outcome| {
        assert_eq!(outcome.code, 1);
        serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap()["code"].as_u64().unwrap()
    };
    assert_eq!(code(run(&environment("ADD", "shop"), "not json".as_bytes())), 6);
    assert_eq!(code(run(&environment("ADD", "shop"), r#"{"cniVersion":"9.9"}"#.as_bytes())), 1);
    assert_eq!(code(run(&environment("ADD", "shop"), r#"{"cniVersion":"1.0.0"}"#.as_bytes())), 7);
    assert_eq!(code(run(&environment("FLY", "shop"), CONFIG.as_bytes())), 4);
    let mut environment = environment("ADD", "shop");
    environment.remove("CNI_NETNS");
    assert_eq!(code(run(&environment, CONFIG.as_bytes())), 4);
}

#[test]
fn a_container_that_is_no_pod_passes() {
    let mut environment = environment("ADD", "shop");
    environment.insert("CNI_ARGS".into(), String::new());
    assert_eq!(run(&environment, CONFIG.as_bytes()), Outcome { stdout: PREVIOUS.into(), code: 0 });
}
