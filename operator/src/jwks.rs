//! Key sets that policies reference by URI: fetched by every replica, for the proxies that it
//! serves.
//!
//! Invariant: a fetched key set is used until it is replaced. Until the first fetch succeeds, its
//! issuer has no keys, so all its tokens are rejected.

use std::{collections::BTreeSet, sync::Arc};

use ambit_index::request_authentication::key_set;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::watches::Seen;

pub(crate) mod fetch;
pub(crate) mod mesh;
pub(crate) mod schedule;
mod special;

use fetch::{FetchError, Fetcher};
use schedule::{Schedule, Wanted};

/// The result of one fetch.
type Fetched = (Arc<str>, Result<Arc<str>, FetchError>);

/// Fetches the `wanted` key sets until the channel is closed.
pub(crate) async fn run(fetcher: Fetcher, mut wanted: watch::Receiver<Wanted>, seen: mpsc::Sender<Seen>) {
    let mut schedule = Schedule::default();
    let mut held: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut told: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut fetches: JoinSet<Fetched> = JoinSet::new();
    loop {
        let now = Instant::now();
        let current = wanted.borrow_and_update().clone();
        schedule.want(&current, now);
        held.retain(|address| current.contains_key(address));
        for gone in told.extract_if(.., |address| !current.contains_key(address)).collect::<Vec<_>>() {
            if seen.send(Seen::KeySet(gone, None)).await.is_err() {
                return;
            }
        }
        for address in schedule.take(now) {
            let fetcher = fetcher.clone();
            let time_max = current.get(&address).map(|wanted| wanted.timeout).unwrap_or_default();
            fetches.spawn(async move {
                let result = fetcher.fetch(&address, time_max).await;
                (address, result.and_then(|text| key_set(&text).map_err(FetchError::KeySet)))
            });
        }
        let next = schedule.next();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            Some(Ok((address, result))) = fetches.join_next() => {
                if schedule.done(&address, result.is_ok(), Instant::now()) {
                    told.insert(address.clone());
                    if send_to_index(&seen, &mut held, address, result).await.is_err() {
                        return;
                    }
                }
            }
            () = async { sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {}
        }
    }
}

/// Sends new keys to the index, and a failure only if it has no keys.
async fn send_to_index(
    seen: &mpsc::Sender<Seen>,
    held: &mut BTreeSet<Arc<str>>,
    address: Arc<str>,
    result: Result<Arc<str>, FetchError>,
) -> Result<(), mpsc::error::SendError<Seen>> {
    match result {
        Ok(keys) => {
            held.insert(address.clone());
            seen.send(Seen::KeySet(address, Some(Ok(keys)))).await
        }
        Err(error) => {
            // The status gets a fixed text; the details are in the operator's log.
            tracing::warn!(%address, ?error, "A key set cannot be fetched, trying again");
            if held.contains(&address) {
                return Ok(());
            }
            seen.send(Seen::KeySet(address, Some(Err(error.to_string())))).await
        }
    }
}

#[cfg(test)]
mod tests {
    use ambit_index::request_authentication::{TIMEOUT, WantedKeySet};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::{mesh::MeshClient, *};

    fn wanted(address: &Arc<str>) -> Wanted {
        let namespaces = BTreeSet::from([Arc::from("shop")]);
        Wanted::from([(address.clone(), WantedKeySet { namespaces, timeout: TIMEOUT })])
    }

    const KEYS: &str = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;

    /// An issuer that answers one request with this body.
    async fn issuer(body: &'static str) -> (Arc<str>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Arc<str> = format!("http://{}/keys", listener.local_addr().unwrap()).into();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        (address, served)
    }

    #[tokio::test]
    async fn keys_are_told_once_fetched_and_forgotten_once_nobody_wants_them() {
        let (address, served) = issuer(KEYS).await;
        let (wanted, wants) = watch::channel(wanted(&address));
        let (seen, mut told) = mpsc::channel(4);
        let fetcher = Fetcher::anywhere();
        let task = tokio::spawn(run(fetcher, wants, seen));
        let Some(Seen::KeySet(of, Some(Ok(keys)))) = told.recv().await else { panic!("no keys") };
        assert_eq!((of, &*keys), (address.clone(), KEYS));
        wanted.send_replace(Wanted::new());
        let Some(Seen::KeySet(of, None)) = told.recv().await else { panic!("not forgotten") };
        assert_eq!(of, address);
        drop(wanted);
        task.await.unwrap();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_asked_is_told_with_the_reason() {
        let address: Arc<str> = "http://127.0.0.1:1/keys".into();
        let (_wanted, wants) = watch::channel(wanted(&address));
        let (seen, mut told) = mpsc::channel(4);
        let task = tokio::spawn(run(Fetcher::new(MeshClient::nowhere()).unwrap(), wants, seen));
        let Some(Seen::KeySet(_, Some(Err(reason)))) = told.recv().await else { panic!("no reason") };
        assert!(reason.contains("local to the operator"), "{reason}");
        task.abort();
    }

    #[tokio::test]
    async fn an_answer_that_is_no_key_set_is_a_failure_and_says_what_it_is() {
        for (body, says) in [
            ("<html>sign in</html>", "not a JWK set"),
            (r#"{"keys":[{"kty":"RSA"}]}"#, "not a JWK set"),
            ("\"hunter2\"", "not a JWK set"),
        ] {
            let (address, served) = issuer(body).await;
            let (_wanted, wants) = watch::channel(wanted(&address));
            let (seen, mut told) = mpsc::channel(4);
            let task = tokio::spawn(run(Fetcher::anywhere(), wants, seen));
            let Some(Seen::KeySet(_, Some(Err(reason)))) = told.recv().await else { panic!("no reason") };
            assert!(reason.contains(says) && !reason.contains("hunter2"), "{reason}");
            served.await.unwrap();
            task.abort();
        }
    }

    #[tokio::test]
    async fn a_failure_does_not_take_keys_back_that_are_held() {
        let (seen, mut told) = mpsc::channel(4);
        let address: Arc<str> = "http://a/keys".into();
        let mut held = BTreeSet::from([address.clone()]);
        send_to_index(&seen, &mut held, address.clone(), Err(FetchError::Text)).await.unwrap();
        send_to_index(&seen, &mut held, address, Ok(KEYS.into())).await.unwrap();
        drop(seen);
        assert!(matches!(told.recv().await, Some(Seen::KeySet(_, Some(Ok(_))))));
        assert!(told.recv().await.is_none());
    }
}
