//! Names that a client wants to know about beside its subscription to everything.
//!
//! Invariant: every name is answered once, with what is called so (itself or by an alias) or with its removal; it is not
//! remembered after that, because changes come by the subscription to everything.

use bytes::Bytes;
use tonic::Status;

use super::{
    super::feed::{FIELD_BYTES, Feed, Found},
    RESPONSE_BYTES_TARGET,
};

/// Names of one type that may wait for an answer on one stream.
pub const QUESTIONS_MAX: usize = 4096;
/// Bytes of such a name.
pub const NAME_BYTES_MAX: usize = 512;

/// Names that wait.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<String>);

impl Questions {
    /// More names to answer.
    pub(super) fn add(&mut self, names: Vec<String>) -> Result<(), Status> {
        if self.0.len() + names.len() > QUESTIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "more than {QUESTIONS_MAX} names wait for an answer"
            )));
        }
        if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(Status::invalid_argument(format!("a name is longer than {NAME_BYTES_MAX} bytes")));
        }
        self.0.extend(names);
        Ok(())
    }

    /// Resources and names that no resource has, for a client that was sent everything up to `seen`; at least one of them
    /// and about as many as fit into a response. None while every answer has to wait for what was not sent yet.
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
                    // One says that the name is known; the client holds the others as well.
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
