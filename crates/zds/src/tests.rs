//! Both sides over real sockets, and each side against a peer that violates the protocol.

use std::os::fd::{AsFd, OwnedFd};

use ambit_proto::{
    zds::{self, AddWorkload, WorkloadInfo, WorkloadRequest, ZdsHello, workload_request::Payload},
    zds_ext,
};
use proptest::prelude::*;
use prost::Message;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{
    Add, Client, Connection, Connections, FDS_MAX, Hello, Kind, Listener, ListenerOf, PACKET_BYTES_MAX, Pod,
    Request, Server, ZdsError, codec,
    packet::{Packet, Socket},
};

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

fn some_fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn inode(fd: &OwnedFd) -> (u64, u64) {
    let stat = rustix::fs::fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

fn pod() -> Pod {
    Pod {
        uid: "3f9bb9d9-2c6e-4c12-a0f5-8d8d36ee0b2f".into(),
        name: "cart-0".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
    }
}

/// The proxy's side, and a raw socket in place of the agent.
async fn client_and_raw() -> (Client, Socket) {
    let (ours, theirs) = pair();
    let raw = Socket::new(theirs).unwrap();
    let client = Client::hello(ours, "i", &[]).await.unwrap();
    raw.receive().await.unwrap();
    (client, raw)
}

async fn both() -> (Client, Connection) {
    let (ours, theirs) = pair();
    let mut connection = Connection::new(theirs).unwrap();
    let client = Client::hello(ours, "i", &[]).await.unwrap();
    connection.hello().await.unwrap();
    (client, connection)
}

fn add_message(kinds: Option<Vec<i32>>) -> Vec<u8> {
    let add = AddWorkload {
        uid: "u".into(),
        workload_info: Some(WorkloadInfo::default()),
        listeners: kinds.map(|kinds| zds_ext::Listeners { kinds }),
    };
    WorkloadRequest { payload: Some(Payload::Add(add)) }.encode_to_vec()
}

/// The result of receiving one packet from an agent.
async fn received(bytes: &[u8], fds: usize) -> Result<Request, ZdsError> {
    let (mut client, raw) = client_and_raw().await;
    let fds: Vec<OwnedFd> = (0..fds).map(|_| some_fd()).collect();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    raw.send(bytes, &fds).await.unwrap();
    client.receive().await
}

#[tokio::test]
async fn a_pod_travels_with_its_namespace_and_listeners_in_order() {
    let (mut client, mut connection) = both().await;
    let files: Vec<OwnedFd> = ["/dev/null", "/dev/zero", "/dev/full"]
        .iter()
        .map(|path| std::fs::File::open(path).unwrap().into())
        .collect();
    let want: Vec<_> = files.iter().map(inode).collect();
    let agent = async {
        let listeners = [(Kind::Hbone, files[1].as_fd()), (Kind::Outbound, files[2].as_fd())];
        connection.add(&pod(), files[0].as_fd(), &listeners).await.unwrap();
    };
    let proxy = async {
        let Request::Add(Add { pod: got, netns, listeners }) = client.receive().await.unwrap() else {
            panic!("not an add")
        };
        assert_eq!(got, pod());
        assert_eq!(inode(&netns), want[0]);
        let kinds: Vec<_> = listeners.iter().map(|listener| (listener.kind, inode(&listener.fd))).collect();
        assert_eq!(kinds, [(Kind::Hbone, want[1]), (Kind::Outbound, want[2])]);
        client.ack(Ok(())).await.unwrap();
    };
    tokio::join!(agent, proxy);
}

#[tokio::test]
async fn every_request_arrives_as_it_was_meant() {
    let (mut client, mut connection) = both().await;
    let agent = async {
        connection.keep("k").await.unwrap();
        connection.snapshot_sent().await.unwrap();
        connection.del("d", Connections::Keep).await.unwrap();
        connection.del("d", Connections::Close).await.unwrap();
        connection.ping().await.unwrap();
        connection.drain().await.unwrap();
    };
    let proxy = async {
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(format!("{:?}", client.receive().await.unwrap()));
            client.ack(Ok(())).await.unwrap();
        }
        let want = [
            "Keep { uid: \"k\" }",
            "SnapshotSent",
            "Del { uid: \"d\", connections: Keep }",
            "Del { uid: \"d\", connections: Close }",
            "Ping",
            "Drain",
        ];
        assert_eq!(seen, want);
    };
    tokio::join!(agent, proxy);
}

#[tokio::test]
async fn a_refusal_carries_the_reason_and_leaves_the_connection_usable() {
    let (mut client, mut connection) = both().await;
    let agent = async {
        let error = connection.ping().await.unwrap_err();
        assert!(!error.is_fatal(), "{error}");
        assert!(matches!(&error, ZdsError::Refused { reason } if reason.starts_with("port taken ééé")));
        connection.ping().await.unwrap();
    };
    let proxy = async {
        client.receive().await.unwrap();
        client.ack(Err(&format!("port taken {}", "é".repeat(2000)))).await.unwrap();
        client.receive().await.unwrap();
        client.ack(Ok(())).await.unwrap();
    };
    tokio::join!(agent, proxy);
}

#[tokio::test]
async fn a_restarted_agent_gets_every_listener_back() {
    let (ours, theirs) = pair();
    let held: Vec<ListenerOf> = (0..45)
        .map(|n| ListenerOf {
            uid: format!("3f9bb9d9-2c6e-4c12-a0f5-8d8d36ee{n:04}"),
            listener: Listener { kind: Kind::Hbone, fd: some_fd() },
        })
        .collect();
    let mut connection = Connection::new(theirs).unwrap();
    let (client, hello) = tokio::join!(Client::hello(ours, "one", &held), connection.hello());
    client.unwrap();
    let hello = hello.unwrap();
    assert_eq!(hello.instance.as_deref(), Some("one"));
    let names: Vec<_> = hello.held.iter().map(|of| of.uid.as_str()).collect();
    let want: Vec<_> = held.iter().map(|of| of.uid.as_str()).collect();
    assert_eq!(names, want);
}

#[tokio::test]
async fn a_foreign_proxy_says_hello_without_our_extension() {
    let (ours, theirs) = pair();
    let mut connection = Connection::new(theirs).unwrap();
    let raw = Socket::new(ours).unwrap();
    // Exactly what Istio's ztunnel sends: field 1, varint 1.
    raw.send(&[0x08, 0x01], &[]).await.unwrap();
    let hello = connection.hello().await.unwrap();
    assert!(hello.instance.is_none() && hello.held.is_empty());
}

#[tokio::test]
async fn a_hello_that_breaks_the_rules_is_refused() {
    let held = |kind| vec![zds_ext::HeldListener { uid: "u".into(), kind }];
    let ext = |instance: &str, held| {
        let ambit = Some(zds_ext::Hello { held, more: false, instance: instance.into() });
        ZdsHello { version: 1, ambit }.encode_to_vec()
    };
    let cases = [
        (ZdsHello { version: 2, ambit: None }.encode_to_vec(), 0),
        (ZdsHello { version: 1, ambit: None }.encode_to_vec(), 1),
        (ext("", Vec::new()), 0),
        (ext("i", held(0)), 0),
        (ext("i", held(0)), 2),
        (ext("i", held(9)), 1),
        (vec![0xff; 7], 0),
    ];
    for (bytes, fds) in cases {
        let (ours, theirs) = pair();
        let mut connection = Connection::new(theirs).unwrap();
        let fds: Vec<OwnedFd> = (0..fds).map(|_| some_fd()).collect();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        Socket::new(ours).unwrap().send(&bytes, &fds).await.unwrap();
        let error = connection.hello().await.unwrap_err();
        assert!(error.is_violation(), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn an_add_must_bring_exactly_its_descriptors() {
    for (kinds, fds, want) in [(None, 0, 1), (None, 2, 1), (Some(vec![0, 1, 2]), 3, 4), (Some(vec![0]), 3, 2)]
    {
        match received(&add_message(kinds), fds).await {
            Err(ZdsError::Descriptors { payload: "add", want: wanted, got }) => {
                assert_eq!((wanted, got), (want, fds));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(received(&add_message(None), 1).await, Ok(Request::Add(_))));
}

#[tokio::test]
async fn descriptors_beside_any_other_request_are_refused_and_closed() {
    let (mut client, raw) = client_and_raw().await;
    let (kept, passed) = pair();
    raw.send(&codec::encode_request(codec::keep("u")), &[passed.as_fd()]).await.unwrap();
    drop(passed);
    let error = client.receive().await.unwrap_err();
    assert!(matches!(error, ZdsError::Descriptors { payload: "keep", want: 0, got: 1 }), "{error}");
    // The peer of the passed socket sees the end only once all duplicates are closed.
    let end = Socket::new(kept).unwrap().receive().await;
    assert!(matches!(end, Err(ZdsError::Closed)), "{end:?}");
}

#[tokio::test]
async fn malformed_packets_end_the_connection_with_a_typed_error() {
    let no_info = AddWorkload { uid: "u".into(), ..AddWorkload::default() };
    let cases: Vec<(Vec<u8>, usize)> = vec![
        (vec![0xff, 0xff, 0xff], 0),
        (b"GET / HTTP/1.1".to_vec(), 0),
        // Only an unknown payload.
        (vec![0xf2, 0x3f, 0x00], 0),
        (WorkloadRequest { payload: Some(Payload::Add(no_info)) }.encode_to_vec(), 1),
        (codec::encode_request(codec::keep("")), 0),
        (codec::encode_request(codec::del("", Connections::Close)), 0),
        (add_message(Some(vec![7])), 2),
        (add_message(Some(vec![1, 1])), 3),
    ];
    for (bytes, fds) in cases {
        let error = received(&bytes, fds).await.unwrap_err();
        assert!(error.is_violation() && error.is_fatal(), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn a_packet_over_the_limit_is_neither_sent_nor_taken() {
    let (ours, theirs) = pair();
    let raw = Socket::new(ours).unwrap();
    let big = vec![0u8; PACKET_BYTES_MAX + 1];
    assert!(matches!(raw.send(&big, &[]).await, Err(ZdsError::TooLarge { .. })));
    rustix::net::send(raw.fd(), &big, rustix::net::SendFlags::empty()).unwrap();
    let taken = Socket::new(theirs).unwrap().receive().await;
    assert!(matches!(taken, Err(ZdsError::TooLarge { .. })), "{taken:?}");
}

#[tokio::test]
async fn more_descriptors_than_any_packet_may_carry_are_refused() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let (ours, theirs) = pair();
    let fd = some_fd();
    let fds = vec![fd.as_fd(); FDS_MAX * 2];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX * 2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&ours, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    let taken = Socket::new(theirs).unwrap().receive().await;
    assert!(matches!(taken, Err(ZdsError::TooManyDescriptors { .. })), "{taken:?}");
    assert!(matches!(
        Socket::new(ours).unwrap().send(b"x", &fds).await,
        Err(ZdsError::TooManyDescriptors { .. })
    ));
}

#[tokio::test]
async fn received_descriptors_are_close_on_exec() {
    let (ours, theirs) = pair();
    Socket::new(ours).unwrap().send(b"x", &[some_fd().as_fd()]).await.unwrap();
    let Packet { fds, .. } = Socket::new(theirs).unwrap().receive().await.unwrap();
    let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[tokio::test]
async fn the_snapshot_ends_once_and_no_keep_follows_it() {
    for late in [codec::keep("u"), codec::snapshot_sent()] {
        let (mut client, raw) = client_and_raw().await;
        raw.send(&codec::encode_request(codec::snapshot_sent()), &[]).await.unwrap();
        client.receive().await.unwrap();
        assert!(client.receive().await.is_err(), "an ack is owed");
        client.ack(Ok(())).await.unwrap();
        assert!(client.ack(Ok(())).await.is_err(), "nothing to acknowledge");
        raw.send(&codec::encode_request(late), &[]).await.unwrap();
        assert!(matches!(client.receive().await, Err(ZdsError::Protocol(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_costs_five_seconds_and_the_connection() {
    let (_client, mut connection) = both().await;
    let before = tokio::time::Instant::now();
    let error = connection.ping().await.unwrap_err();
    assert!(matches!(error, ZdsError::Timeout { payload: "ping", .. }) && error.is_fatal(), "{error}");
    assert_eq!(before.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn an_idle_connection_notices_a_proxy_that_leaves_or_speaks_out_of_turn() {
    let (client, mut connection) = both().await;
    drop(client);
    assert!(matches!(connection.ended().await, ZdsError::Closed));

    let (ours, theirs) = pair();
    let raw = Socket::new(ours).unwrap();
    let mut connection = Connection::new(theirs).unwrap();
    raw.send(&codec::encode_ack(Ok(())), &[]).await.unwrap();
    assert!(matches!(connection.ended().await, ZdsError::Protocol(_)));
}

#[tokio::test]
async fn the_server_listens_over_a_stale_socket_and_knows_its_peer() {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("ambit-zds-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("zds.sock");
    drop(Server::bind(&path).unwrap());
    let server = Server::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (client, connection) = tokio::join!(Client::connect(&path, "i", &[]), server.accept());
    client.unwrap();
    let mut connection = connection.unwrap();
    assert_eq!(connection.peer().pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(connection.hello().await.unwrap().instance.as_deref(), Some("i"));
    drop(server);
    assert!(matches!(Client::connect(&path, "i", &[]).await, Err(ZdsError::Io { .. })));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn field_numbers_are_istios() {
    let del = codec::encode_request(codec::del("u", Connections::Close));
    assert_eq!(del, [0x12, 0x03, 0x12, 0x01, b'u'], "del is field 2, its uid field 2");
    let keep = codec::encode_request(codec::keep("u"));
    assert_eq!(keep, [0x2a, 0x03, 0x0a, 0x01, b'u'], "keep is field 5, its uid field 1");
    assert_eq!(codec::encode_request(codec::snapshot_sent()), [0x1a, 0x00]);
    assert_eq!(codec::encode_ack(Ok(())), [0x0a, 0x00]);
    assert_eq!(codec::encode_ack(Err("no")), [0x0a, 0x04, 0x0a, 0x02, b'n', b'o']);
    assert!(matches!(codec::decode_ack(&[], &[]), Err(ZdsError::Protocol(_))));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_cleanly(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec::decode_request(&bytes, Vec::new());
        let _ = codec::decode_ack(&bytes, &[]);
        let _ = codec::decode_hello(&mut Hello::default(), &bytes, Vec::new());
    }

    #[test]
    fn uids_and_names_round_trip(uid in "[a-z0-9-]{1,64}", name in "[a-z0-9.-]{0,253}", close in any::<bool>()) {
        let connections = if close { Connections::Close } else { Connections::Keep };
        match codec::decode_request(&codec::encode_request(codec::del(&uid, connections)), Vec::new()) {
            Ok(Request::Del { uid: got, connections: how }) => prop_assert_eq!((got, how), (uid.clone(), connections)),
            other => prop_assert!(false, "{:?}", other),
        }
        let sent = Pod { uid, name, namespace: "ns".into(), service_account: "sa".into() };
        let bytes = codec::encode_request(codec::add(&sent, &[Kind::Outbound]));
        prop_assert!(bytes.len() <= PACKET_BYTES_MAX);
        match codec::decode_request(&bytes, vec![some_fd(), some_fd()]) {
            Ok(Request::Add(Add { pod, .. })) => prop_assert_eq!(pod, sent),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_reason_of_any_length_fits_its_packet(reason in ".{0,2000}") {
        prop_assert!(codec::encode_ack(Err(&reason)).len() <= PACKET_BYTES_MAX);
    }
}

#[test]
fn the_longest_names_of_kubernetes_fit_one_packet() {
    let long = |n: usize| "x".repeat(n);
    let pod = Pod { uid: long(64), name: long(253), namespace: long(63), service_account: long(253) };
    let kinds = [Kind::Outbound, Kind::InboundPlaintext, Kind::Hbone];
    assert!(codec::encode_request(codec::add(&pod, &kinds)).len() <= PACKET_BYTES_MAX);
    let held: Vec<ListenerOf> = (0..codec::HELD_PER_PACKET)
        .map(|_| ListenerOf { uid: long(36), listener: Listener { kind: Kind::Hbone, fd: some_fd() } })
        .collect();
    let packets = codec::hello(&long(40), &held);
    assert_eq!(packets.len(), 1);
    assert!(packets[0].0.len() <= PACKET_BYTES_MAX);
    assert_eq!(zds::Version::V1 as i32, 1);
}
