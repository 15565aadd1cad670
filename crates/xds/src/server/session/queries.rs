//! Single names that a client queries in addition to its wildcard subscription.
//!
//! Invariant: every name is answered once, with the resources that have it as name or alias, or as
//! removed. It is not remembered after that, because changes come with the wildcard subscription.

use bytes::Bytes;
use tonic::Status;

use super::super::feed::{FIELD_BYTES, Feed, Found, RESPONSE_BYTES_TARGET};

/// Names of one type that may be pending on one stream.
pub(crate) const QUERIES_MAX: usize = 4096;
/// Length of such a name in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 512;

/// Pending names.
#[derive(Debug, Default)]
pub(super) struct PendingQueries(Vec<String>);

impl PendingQueries {
    /// Adds names to answer.
    pub(super) fn add(&mut self, names: Vec<String>) -> Result<(), Status> {
        if self.0.len() + names.len() > QUERIES_MAX {
            return Err(Status::resource_exhausted(format!(
                "more than {QUERIES_MAX} names wait for an answer"
            )));
        }
        if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(Status::invalid_argument(format!("a name is longer than {NAME_BYTES_MAX} bytes")));
        }
        self.0.extend(names);
        Ok(())
    }

    /// Resources and missing names for a client that was sent everything up to `seen`: at least
    /// one, and about as many as fit into a response. `None` while every answer waits for something
    /// that was not sent yet.
    pub(super) fn answer(&mut self, feed: &Feed, seen: u64) -> Option<(Vec<Bytes>, Vec<String>)> {
        let (mut resources, mut unknown, mut size) = (Vec::new(), Vec::new(), 0);
        self.0.retain(|name| {
            if size > RESPONSE_BYTES_TARGET {
                return true;
            }
            match feed.find(name, seen) {
                Found::Unsent => true,
                Found::Nothing => {
                    size += name.len() + FIELD_BYTES;
                    unknown.push(name.clone());
                    false
                }
                Found::Resources(found) => {
                    // One resource is enough for the answer; the client holds the others as well.
                    let mut first = true;
                    for encoded in found {
                        let cost = encoded.len() + FIELD_BYTES;
                        if std::mem::take(&mut first) || size + cost <= RESPONSE_BYTES_TARGET {
                            size += cost;
                            resources.push(encoded);
                        }
                    }
                    false
                }
            }
        });
        (!resources.is_empty() || !unknown.is_empty()).then_some((resources, unknown))
    }
}
