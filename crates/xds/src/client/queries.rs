//! On-demand queries for single names, in addition to the wildcard subscription.
//!
//! Invariant: only the server answers. A query that it does not answer in time, for whatever
//! reason, ends without an answer. A query that is pending when the stream is lost is sent again on
//! the next.

use std::{collections::HashMap, time::Duration};

use ambit_proto::discovery::DeltaDiscoveryRequest;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::server::QUERIES_MAX as SERVER_QUERIES_MAX;

/// Names that may be pending: a quarter of the server's limit, because a slow earlier stream may
/// still hold some.
pub(super) const QUERIES_MAX: usize = SERVER_QUERIES_MAX / 4;

/// The server's answer for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is a resource with this name, and it has been passed to the handler.
    Known,
    /// There is no resource with this name.
    Unknown,
}

#[derive(Debug)]
struct Query {
    name: String,
    answer: oneshot::Sender<Answer>,
}

/// Handle for queries. Clones share the queue.
#[derive(Clone, Debug)]
pub struct QuerySender(mpsc::Sender<Query>);

/// The client's end: pending queries.
#[derive(Debug)]
pub struct Queries {
    type_url: &'static str,
    asked: mpsc::Receiver<Query>,
    waiting: HashMap<String, Vec<oneshot::Sender<Answer>>>,
    /// Names that were not sent on this stream yet.
    unsent: Vec<String>,
}

/// Creates both ends, for names of one type.
pub fn queries(type_url: &'static str) -> (QuerySender, Queries) {
    let (query_sender, asked) = mpsc::channel(QUERIES_MAX);
    (QuerySender(query_sender), Queries { type_url, asked, waiting: HashMap::new(), unsent: Vec::new() })
}

impl QuerySender {
    /// The server's answer for `name`; `None` if it does not answer within `limit`.
    pub async fn ask(&self, name: String, limit: Duration) -> Option<Answer> {
        let asking = async {
            let (answer, answered) = oneshot::channel();
            self.0.send(Query { name, answer }).await.ok()?;
            answered.await.ok()
        };
        timeout(limit, asking).await.ok().flatten()
    }
}

impl Queries {
    /// Answers without a server, for tests; `says` returns `None` to leave a query unanswered.
    pub async fn answered_by(mut self, mut says: impl FnMut(&str) -> Option<Answer>) {
        loop {
            self.come().await;
            for name in self.request().resource_names_subscribe {
                if let Some(answer) = says(&name) {
                    self.answer(&name, answer);
                }
            }
        }
    }

    /// Receives one query when there is space; otherwise never returns.
    pub(super) async fn come(&mut self) {
        if self.waiting.len() >= QUERIES_MAX {
            self.forget_abandoned();
        }
        if self.waiting.len() >= QUERIES_MAX {
            return std::future::pending().await;
        }
        match self.asked.recv().await {
            Some(question) => self.take(question),
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, Query { name, answer }: Query) {
        if answer.is_closed() {
            return;
        }
        let waiting = self.waiting.entry(name.clone()).or_default();
        // If the last one to query gave up, the query may be lost and is sent again. Otherwise
        // callers that gave up are removed from time to time, so that a popular name stays cheap.
        let is_due = waiting.last().is_none_or(oneshot::Sender::is_closed);
        if is_due || waiting.len() == waiting.capacity() {
            waiting.retain(|answer| !answer.is_closed());
        }
        waiting.push(answer);
        if is_due && !self.unsent.contains(&name) {
            self.unsent.push(name);
        }
    }

    /// Whether there are unsent names.
    pub(super) fn is_due(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The request for all names that were not sent on this stream yet.
    pub(super) fn request(&mut self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: self.type_url.to_owned(),
            resource_names_subscribe: std::mem::take(&mut self.unsent),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Passes on the server's answer.
    pub(super) fn answer(&mut self, name: &str, answer: Answer) {
        if self.waiting.is_empty() {
            return;
        }
        for waiting in self.waiting.remove(name).into_iter().flatten() {
            // The caller may have given up.
            let _ = waiting.send(answer);
        }
    }

    /// The stream was lost, with all queries sent on it.
    pub(super) fn stream_lost(&mut self) {
        self.forget_abandoned();
        self.unsent = self.waiting.keys().cloned().collect();
    }

    fn forget_abandoned(&mut self) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|answer| !answer.is_closed());
            !waiting.is_empty()
        });
        self.unsent.retain(|name| self.waiting.contains_key(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    /// Processes everything that was queued so far.
    async fn settle(queries: &mut Queries) {
        while timeout(Duration::ZERO, queries.come()).await.is_ok() {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_once_and_its_answer_goes_to_all_who_asked() {
        let (query_sender, mut queries) = queries("t");
        let asking = |name: &str| {
            let (query_sender, name) = (query_sender.clone(), name.to_owned());
            tokio::spawn(async move { query_sender.ask(name, LIMIT).await })
        };
        let (one, two, other) = (asking("/a"), asking("/a"), asking("/b"));
        tokio::task::yield_now().await;
        settle(&mut queries).await;
        assert_eq!(queries.request().resource_names_subscribe, ["/a", "/b"]);
        assert!(!queries.is_due());
        queries.answer("/a", Answer::Known);
        assert_eq!((one.await.unwrap(), two.await.unwrap()), (Some(Answer::Known), Some(Answer::Known)));
        queries.stream_lost();
        assert_eq!(queries.request().resource_names_subscribe, ["/b"], "what waits is put again");
        queries.answer("/b", Answer::Unknown);
        assert_eq!(other.await.unwrap(), Some(Answer::Unknown));
        assert!(queries.waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_a_question_ends_in_time_and_leaves_nothing_behind() {
        let (query_sender, mut queries) = queries("t");
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..3 * QUERIES_MAX {
            let query_sender = query_sender.clone();
            asking.spawn(async move { query_sender.ask(number.to_string(), LIMIT).await });
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
            settle(&mut queries).await;
            assert!(queries.waiting.len() <= QUERIES_MAX);
        }
        while let Some(answer) = asking.join_next().await {
            assert_eq!(answer.unwrap(), None);
        }
        queries.stream_lost();
        assert!(queries.waiting.is_empty() && !queries.is_due());
        settle(&mut queries).await;
        assert!(queries.waiting.is_empty(), "what nobody waits for any more is not taken in");
    }
}
