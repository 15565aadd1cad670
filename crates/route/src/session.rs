//! Session persistence: a client stays with the endpoint that answered its first request.
//!
//! Invariant: the client holds only a hash of an endpoint, which is compared with the current
//! endpoints; it cannot select any other address. Nothing is stored here, so every replica accepts
//! the same value, also after a restart.

use std::{
    hash::Hasher as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ambit_model::{
    NamespacedName,
    bound::{PathMatch, SessionCookie, SessionLifetime, SessionPersistence},
};
use fnv::FnvHasher;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::RequestHead;

/// Longest value accepted from a client; valid ones have at most 50 bytes.
const VALUE_BYTES_MAX: usize = 64;

/// The endpoint of a session, and the session's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The hash from [`endpoint`].
    pub endpoint: u64,
    /// When it began, in seconds since 1970.
    began: u64,
    /// When it was last used, in seconds since 1970.
    used: u64,
}

/// The hash of an endpoint for the sessions of a route.
pub fn endpoint(route: &NamespacedName, uid: &str) -> u64 {
    // FNV-1a, because the result must be the same in every build and a collision gains nothing.
    let mut fnv = FnvHasher::default();
    for part in [route.namespace.as_bytes(), &[0], route.name.as_bytes(), &[0], uid.as_bytes()] {
        fnv.write(part);
    }
    fnv.finish()
}

/// The session of a request. `None`: there is none, it has expired, or it was not written by a
/// waypoint.
pub fn read(policy: &SessionPersistence, head: &RequestHead<'_>, now: SystemTime) -> Option<Session> {
    let values: Vec<&str> = match &policy.cookie {
        Some(_) => head.cookies(&policy.name).collect(),
        None => head.headers.get(&*policy.name).and_then(|value| value.to_str().ok()).into_iter().collect(),
    };
    values.into_iter().filter_map(parse).find(|session| lives(policy, session, seconds(now)))
}

/// The response header that sets the session. `None`: the client's value is still valid.
pub fn write(
    policy: &SessionPersistence,
    matched: &PathMatch,
    before: Option<Session>,
    endpoint: u64,
    now: SystemTime,
) -> Option<(HeaderName, HeaderValue)> {
    let now = seconds(now);
    let same = before.filter(|before| before.endpoint == endpoint);
    // With an idle timeout, each use must be written back to the client.
    if same.is_some_and(|before| policy.idle_timeout.is_none() || before.used == now) {
        return None;
    }
    let began = same.map_or(now, |session| session.began);
    let value = format!("{endpoint:016x}.{began:x}.{now:x}");
    match &policy.cookie {
        Some(cookie) => {
            let cookie = set_cookie(policy, *cookie, matched, &value, now - began);
            Some((header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
        }
        None => Some((HeaderName::try_from(&*policy.name).ok()?, HeaderValue::try_from(value).ok()?)),
    }
}

/// Adds the session header to a response.
pub fn mark(headers: &mut HeaderMap, session: Option<(HeaderName, HeaderValue)>) {
    match session {
        Some((name, value)) if name == header::SET_COOKIE => _ = headers.append(name, value),
        Some((name, value)) => _ = headers.insert(name, value),
        None => {}
    }
}

fn set_cookie(
    policy: &SessionPersistence,
    cookie: SessionCookie,
    matched: &PathMatch,
    value: &str,
    age_seconds: u64,
) -> String {
    let path = match matched {
        PathMatch::Exact(path) | PathMatch::Prefix(path) if is_cookie_path(path) => path,
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_) => "/",
    };
    let max_age = match cookie.lifetime {
        SessionLifetime::Session => None,
        SessionLifetime::Permanent => policy.absolute_timeout,
    };
    let max_age = max_age
        .map(|timeout| format!("; Max-Age={}", timeout.as_secs().saturating_sub(age_seconds)))
        .unwrap_or_default();
    format!("{}={value}; Path={path}{max_age}; HttpOnly; SameSite=Lax", policy.name)
}

/// A path as in RFC 6265 §4.1.1: anything except control characters and `;`.
fn is_cookie_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')
}

fn parse(value: &str) -> Option<Session> {
    if value.len() > VALUE_BYTES_MAX {
        return None;
    }
    let mut parts = value.split('.').map(|part| u64::from_str_radix(part, 16).ok());
    let session = Session { endpoint: parts.next()??, began: parts.next()??, used: parts.next()?? };
    (parts.next().is_none() && session.began <= session.used).then_some(session)
}

fn lives(policy: &SessionPersistence, session: &Session, now: u64) -> bool {
    let within = |since: u64, limit: Option<Duration>| {
        limit.is_none_or(|limit| now.saturating_sub(since) < limit.as_secs().max(1))
    };
    // Clocks of replicas may differ slightly; a value further in the future was not written by any
    // of them.
    let written = session.used <= now + CLOCK_SKEW_SECONDS_MAX;
    written && within(session.began, policy.absolute_timeout) && within(session.used, policy.idle_timeout)
}

/// Tolerated clock difference between replicas.
const CLOCK_SKEW_SECONDS_MAX: u64 = 60;

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(cookie: Option<SessionLifetime>) -> SessionPersistence {
        SessionPersistence {
            name: "stay".into(),
            cookie: cookie.map(|lifetime| SessionCookie { lifetime }),
            absolute_timeout: Some(Duration::from_secs(100)),
            idle_timeout: None,
            route: NamespacedName::new("shop", "cart"),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    /// The next request of a client that received `header`.
    fn answered(policy: &SessionPersistence, header: &(HeaderName, HeaderValue)) -> http::request::Parts {
        let value = header.1.to_str().unwrap();
        let (name, value) = match policy.cookie {
            Some(_) => ("cookie", format!("other=1; {}", value.split(';').next().unwrap())),
            None => ("stay", value.to_owned()),
        };
        http::Request::builder().header(name, value).body(()).unwrap().into_parts().0
    }

    fn read_back(
        policy: &SessionPersistence,
        header: &(HeaderName, HeaderValue),
        now: SystemTime,
    ) -> Option<Session> {
        read(policy, &RequestHead::from(&answered(policy, header)), now)
    }

    #[test]
    fn a_client_stays_with_its_endpoint_by_cookie_or_by_header() {
        for policy in [policy(Some(SessionLifetime::Session)), policy(None)] {
            let here = endpoint(&policy.route, "pod/a");
            let told = write(&policy, &PathMatch::default(), None, here, at(0)).unwrap();
            let session = read_back(&policy, &told, at(1)).unwrap();
            assert_eq!(session.endpoint, here);
            assert_eq!(write(&policy, &PathMatch::default(), Some(session), here, at(1)), None);
            assert!(write(&policy, &PathMatch::default(), Some(session), here + 1, at(1)).is_some());
        }
    }

    #[test]
    fn the_cookie_says_where_and_how_long_it_holds() {
        let cases = [
            (
                SessionLifetime::Session,
                PathMatch::Prefix("/cart".into()),
                "; Path=/cart; HttpOnly; SameSite=Lax",
            ),
            (SessionLifetime::Session, PathMatch::Prefix("/a;b".into()), "; Path=/; HttpOnly; SameSite=Lax"),
            (SessionLifetime::Session, PathMatch::default(), "; Path=/; HttpOnly; SameSite=Lax"),
            (SessionLifetime::Session, PathMatch::Regex("/.*".into()), "; Path=/; HttpOnly; SameSite=Lax"),
            (
                SessionLifetime::Permanent,
                PathMatch::Exact("/x".into()),
                "; Path=/x; Max-Age=100; HttpOnly; SameSite=Lax",
            ),
        ];
        for (lifetime, matched, expected) in cases {
            let (name, value) = write(&policy(Some(lifetime)), &matched, None, 7, at(0)).unwrap();
            assert_eq!(name, header::SET_COOKIE);
            let value = value.to_str().unwrap();
            assert_eq!(value, format!("stay=0000000000000007.f4240.f4240{expected}"));
        }
    }

    #[test]
    fn a_session_ends_at_its_absolute_and_its_idle_timeout() {
        let mut policy = policy(Some(SessionLifetime::Permanent));
        policy.idle_timeout = Some(Duration::from_secs(40));
        let first = write(&policy, &PathMatch::default(), None, 7, at(0)).unwrap();
        assert!(read_back(&policy, &first, at(39)).is_some());
        assert_eq!(read_back(&policy, &first, at(40)), None);

        let mut told = first;
        for now in [30, 60, 90] {
            let session = read_back(&policy, &told, at(now)).unwrap();
            told = write(&policy, &PathMatch::default(), Some(session), 7, at(now)).unwrap();
            let left = format!("Max-Age={};", 100 - now);
            assert!(told.1.to_str().unwrap().contains(&left), "{told:?}");
        }
        assert!(read_back(&policy, &told, at(99)).is_some());
        assert_eq!(read_back(&policy, &told, at(100)), None);
    }

    #[test]
    fn what_no_waypoint_wrote_is_no_session() {
        let policy = policy(None);
        let future = format!("7.{:x}.{:x}", 1_000_061, 1_000_061);
        let long = format!("{}.1.1", "0".repeat(VALUE_BYTES_MAX));
        let values = ["", "7", "7.1", "7.2.1", "7.1.1.1", "x.1.1", "7.1.1", "10.0.0.1", &future, &long];
        for value in values {
            let parts = http::Request::builder().header("stay", value).body(()).unwrap().into_parts().0;
            assert_eq!(read(&policy, &RequestHead::from(&parts), at(0)), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_session_is_read_as_it_was_written_and_junk_is_none(
            endpoint: u64,
            age in 0_u64..200,
            junk in "[0-9a-f.x-]{0,30}",
        ) {
            let policy = policy(Some(SessionLifetime::Session));
            let told = write(&policy, &PathMatch::default(), None, endpoint, at(0)).unwrap();
            let session = read_back(&policy, &told, at(age));
            prop_assert_eq!(session.map(|session| session.endpoint), (age < 100).then_some(endpoint));
            if let Some(session) = parse(&junk) {
                prop_assert!(session.began <= session.used);
                prop_assert_eq!(junk.split('.').count(), 3);
            }
        }
    }

    #[test]
    fn endpoints_and_routes_have_hashes_of_their_own() {
        let route = NamespacedName::new("shop", "cart");
        let other = NamespacedName::new("sho", "pcart");
        assert_ne!(endpoint(&route, "pod/a"), endpoint(&route, "pod/b"));
        assert_ne!(endpoint(&route, "pod/a"), endpoint(&other, "pod/a"));
        // Sessions outlive an update of the waypoint, so this value must never change.
        assert_eq!(endpoint(&route, "pod/a"), 0xa401_2904_9587_c5f6);
    }

    #[test]
    fn a_cookie_joins_those_of_the_service_and_a_header_replaces_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        headers.insert("stay", HeaderValue::from_static("old"));
        mark(&mut headers, Some((header::SET_COOKIE, HeaderValue::from_static("stay=1"))));
        mark(&mut headers, Some((HeaderName::from_static("stay"), HeaderValue::from_static("new"))));
        mark(&mut headers, None);
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), 2);
        assert_eq!(headers.get_all("stay").iter().collect::<Vec<_>>(), ["new"]);
    }
}
