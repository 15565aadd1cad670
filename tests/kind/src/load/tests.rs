//! The real load program against a server that delays one request: in which second is it counted?

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{Progress, Totals, newest};

/// Connections closed without a response, before the server is completely up.
const REFUSED: usize = 3;
/// Number of the request that hangs: some seconds into the load.
const HANGS: usize = 25;
const HANG: Duration = Duration::from_millis(2500);
const LIMIT: Duration = Duration::from_secs(60);

fn answer(mut stream: TcpStream) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        line.clear();
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
}

/// Refuses a few connections, answers the rest, and lets one hang before closing it without a
/// response.
fn serve(listener: &TcpListener) {
    for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
        match n {
            0..REFUSED => drop(stream),
            _ if n == REFUSED + HANGS => drop(thread::spawn(move || {
                thread::park_timeout(HANG);
                drop(stream);
            })),
            _ => drop(thread::spawn(move || answer(stream))),
        }
    }
}

/// Progress lines of the shop's load program.
fn lines(url: &str) -> (std::process::Child, mpsc::Receiver<Progress>) {
    let mut child = Command::new("go")
        .args(["run", "./shop", "load", "--url", url, "--rate", "10", "--duration", "8s"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("CGO_ENABLED", "0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            newest(&line).map(|progress| sender.send(progress));
        }
    });
    (child, receiver)
}

#[test]
fn a_request_is_counted_with_the_second_it_began_in_once_it_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || serve(&listener));
    let (mut child, received) = lines(&url);

    let mut all = vec![received.recv_timeout(LIMIT).unwrap()];
    while let Ok(next) = received.recv_timeout(LIMIT) {
        all.push(next);
    }
    child.wait().unwrap();
    for line in &all {
        assert_eq!(line.totals.sent, line.totals.ok + line.totals.failed, "a request is open: {line:?}");
    }
    // Refusals before the first response do not count, but the hanging request does.
    assert_eq!(all.last().unwrap().totals.failed, 1, "{all:?}");
    // While it hangs, the second in which it started is held back; no later measurement counts it.
    let held = all.iter().find(|line| line.through + 2 <= line.at).unwrap().through;
    for line in &all {
        assert_eq!(line.totals.failed, u64::from(line.through > held), "{all:?}");
    }
}

#[test]
fn the_newest_line_that_is_progress_counts() {
    let log = "failed at 3 ms after 1 ms: EOF\n{\"at\":4,\"through\":3,\"sent\":9,\"ok\":8,\"failed\":1}\nfailed at 9 ms\n";
    let totals = Totals { sent: 9, ok: 8, failed: 1 };
    assert_eq!(newest(log), Some(Progress { at: 4, through: 3, totals }));
    assert_eq!(newest("{\"sent\":9,\"ok\":8,\"failed\":1,\"p50_ms\":1}"), None);
    assert_eq!(newest(""), None);
}
