//! Plugin and agent at both ends of a socket, and each against an older version of the other.

use std::path::PathBuf;

use tokio::{net::UnixListener, task::spawn_blocking};

use super::*;
use crate::plugin::agent::{Unreachable, ask};

/// What the plugin of an agent that used HTTP sends.
const HTTP: &[u8] =
    b"POST /add HTTP/1.1\r\nhost: node-agent\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

fn request() -> Request {
    Request {
        container_id: "c".into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        namespace: "shop".into(),
        name: "cart".into(),
        uid: "u-1".into(),
        ips: vec!["10.42.0.7".into()],
    }
}

/// A socket in a temporary directory of its own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ambit-admission-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn plugin_and_agent_understand_each_other() {
    let wait = || Answer::Wait { reason: "ProxyNotConnected".into(), message: "no ztunnel".into() };
    for expected in [Answer::Allow, wait()] {
        let place = Place::new("both");
        let listener = bind(&place.socket()).unwrap();
        let path = place.socket();
        let asked = spawn_blocking(move || ask(&path, &request(), Duration::from_secs(20)));
        let (stream, _) = listener.accept().await.unwrap();
        let given = expected.clone();
        answer(stream, async move |heard| {
            assert_eq!(heard, request());
            given
        })
        .await
        .unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn what_is_no_question_of_this_version_gets_no_answer_and_does_not_hang() {
    let frame =
        |json: &str| [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat();
    let cases: [(Vec<u8>, &str); 7] = [
        (HTTP.to_vec(), "another version"),
        (vec![0xff; 64], "larger than"),
        (frame(r#"{"version":2,"body":{"pod":"?"}}"#), "speaks version 2"),
        (frame(r#"{"body":{}}"#), "malformed"),
        (frame(r#"{"version":1,"body":{"netns":"/n"}}"#), "malformed"),
        (frame(""), "malformed"),
        (vec![0, 0], "connection failed"),
    ];
    for (sent, expected) in cases {
        let (mut plugin, agent) = UnixStream::pair().unwrap();
        plugin.write_all(&sent).await.unwrap();
        plugin.shutdown().await.unwrap();
        let error = answer(agent, async |_| panic!("judged")).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        let mut heard = Vec::new();
        // Unread data resets the connection; either way it has ended.
        let _ = plugin.read_to_end(&mut heard).await;
        assert!(heard.is_empty(), "{heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_never_comes_is_not_waited_for() {
    let (_plugin, agent) = UnixStream::pair().unwrap();
    let begun = tokio::time::Instant::now();
    let ended = answer(agent, async |_| panic!("judged")).await;
    assert!(matches!(ended, Err(Unanswered::Late)), "{ended:?}");
    assert_eq!(begun.elapsed(), FRAME_TIME_MAX);
}

#[tokio::test]
async fn an_agent_that_speaks_http_and_one_that_is_gone_are_no_answer() {
    let place = Place::new("http");
    let path = place.socket();
    let asked = |path: PathBuf| spawn_blocking(move || ask(&path, &request(), Duration::from_secs(20)));
    assert!(asked(path.clone()).await.unwrap().is_err(), "nobody has ever listened");
    let listener = UnixListener::bind(&path).unwrap();
    let old = asked(path.clone());
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let Err(Unreachable(why)) = old.await.unwrap() else { panic!("an answer") };
    assert!(why.contains("another version"), "{why}");
    drop(listener);
    assert!(asked(path).await.unwrap().is_err(), "the socket is there and nobody listens");
}

#[test]
fn an_agent_that_does_not_accept_any_more_holds_the_plugin_no_longer_than_its_limit() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let place = Place::new("full");
    let address = SockAddr::unix(place.socket()).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    // Until the queue is full; then connecting fails at once.
    let mut queued = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&address) {
            Ok(()) => queued.push(client),
            Err(_) => break,
        }
        assert!(queued.len() < 100);
    }
    let Err(Unreachable(why)) = ask(&place.socket(), &request(), Duration::from_millis(50)) else {
        panic!("an answer")
    };
    assert!(why.contains("in time"), "{why}");
}
