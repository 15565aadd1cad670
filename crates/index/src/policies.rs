//! Istio's policy kinds: facts, translation, and the status of each object.

mod attachment;
pub mod authorization;
mod facts;
mod fields;
mod judgement;
pub mod peer_authentication;
pub mod request_authentication;
mod unknown;

pub use attachment::{Attachment, Reach, Target};
pub(crate) use authorization::AuthorizationFacts;
pub(crate) use facts::PolicyFacts;
pub use facts::StatusPatch;
pub(crate) use fields::header_name;
pub use judgement::{Holds, Judgement};
pub(crate) use peer_authentication::PeerFacts;
pub(crate) use request_authentication::RequestFacts;

/// The root namespaces of a mesh that sets none.
#[cfg(test)]
fn roots() -> std::collections::BTreeSet<std::sync::Arc<str>> {
    crate::Settings::default().root_namespaces
}
