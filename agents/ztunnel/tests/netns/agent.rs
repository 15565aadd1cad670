//! Node agent and ztunnel over a real ZDS socket.

use std::{
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use ambit_netns::{NetNs, testing::namespace};
use ambit_runtime::Readiness;
use ambit_zds::{Connection, Connections, Hello, Kind, Server};
use ambit_ztunnel::{Held, Link};

use crate::fixture::*;

const UID: &str = "5e1f0c2a-0000-4000-8000-0000000000aa";

/// A separate socket for each test.
fn path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ambit-zds-{}-{number}.sock", std::process::id()))
}

async fn hello(server: &Server) -> (Connection, Hello) {
    let mut connection = tokio::time::timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
    let hello = connection.hello().await.unwrap();
    (connection, hello)
}

async fn add(
    connection: &mut Connection,
    netns: &NetNs,
    listeners: &[(Kind, TcpListener)],
) -> Result<(), ambit_zds::ZdsError> {
    let fds: Vec<(Kind, BorrowedFd<'_>)> = listeners.iter().map(|(kind, fd)| (*kind, fd.as_fd())).collect();
    connection.add(&zds_pod(UID, "cart"), netns.as_fd(), &fds).await
}

#[test]
#[ignore = "needs root: make test-netns"]
fn serves_what_the_agent_says_also_while_it_is_away_and_gives_the_sockets_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ca = ambit_identity::testing::FakeCa::new("cluster.local").unwrap();
    let ztunnel = Ztunnel::start(&runtime, "cart", &Default::default(), &ca);
    let metrics = ztunnel.shared.metrics.clone();
    let readiness = Readiness::default();
    let path = path();
    runtime.block_on(async {
        let link = Link::new(path.clone(), "test-1".to_owned(), &readiness);
        let mut held = Held::new(ztunnel.shared.clone(), ztunnel.plane.unwrap());
        let running = tokio::spawn(async move {
            let ended = link.run(&mut held).await;
            (ended, held)
        });

        // A first agent opens the sockets.
        let netns = namespace();
        let sockets = listeners(&netns);
        let server = Server::bind(&path).unwrap();
        let (mut connection, greeting) = hello(&server).await;
        assert!(greeting.instance.as_deref() == Some("test-1") && greeting.held.is_empty());
        add(&mut connection, &netns, &sockets).await.unwrap();
        assert_eq!(readiness.pending(), ["zds"]);
        connection.snapshot_sent().await.unwrap();
        eventually(|| if readiness.pending().is_empty() { Ok(()) } else { Err("not ready".into()) });
        connection.ping().await.unwrap();
        assert_eq!(metrics.pods.get(), 1);

        // It dies with its sockets, except for the duplicates here.
        drop((connection, server, sockets));
        let server = Server::bind(&path).unwrap();
        let (mut connection, greeting) = hello(&server).await;
        let mut kinds: Vec<Kind> = greeting.held.iter().map(|of| of.listener.kind).collect();
        kinds.sort_unstable_by_key(|kind| *kind as i32);
        assert_eq!(kinds, [Kind::Outbound, Kind::InboundPlaintext, Kind::Hbone]);
        assert!(greeting.held.iter().all(|of| {
            let facts = ambit_netns::inspect(&of.listener.fd).unwrap();
            of.uid == UID && facts.listening && facts.cookie == netns.cookie()
        }));
        assert_eq!(metrics.pods.get(), 1);

        drop(greeting);

        // The second agent no longer knows the pod.
        connection.snapshot_sent().await.unwrap();
        assert_eq!(metrics.pods.get(), 0);

        // Sockets of another namespace are refused with an error for the agent.
        let elsewhere = listeners(&namespace());
        let refused = add(&mut connection, &netns, &elsewhere).await.unwrap_err().to_string();
        assert!(refused.contains("is not one of this pod's namespace"), "{refused}");

        // Istio's agent passes no listeners.
        add(&mut connection, &netns, &[]).await.unwrap();
        add(&mut connection, &netns, &[]).await.unwrap();
        assert_eq!((metrics.pods.get(), metrics.pods_started.get()), (1, 2));
        connection.del(UID, Connections::Keep).await.unwrap();
        assert_eq!(metrics.pods.get(), 0);
        let again = listeners(&netns);
        drop(again);

        // A newer process takes over.
        connection.drain().await.unwrap();
        let (ended, held) = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
        assert_eq!(readiness.pending(), ["handed over"]);
        drop(ended);
        held.into_plane().drain(Duration::from_secs(1)).await;
    });
    std::fs::remove_file(path).unwrap();
}
