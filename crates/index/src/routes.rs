//! Routes attached to Services, each translated once from its own object.
//!
//! Invariant: a rule that cannot be executed as written stays in the table, its requests get 500,
//! and the route's status names it. It is never routed some other way, and other rules are not
//! affected.

pub(crate) mod attach;
mod facts;
mod filters;
pub(crate) mod grpc;
pub(crate) mod http;
mod precedence;
pub(crate) mod resolve;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod table;

pub(crate) use facts::{BackendFacts, FilterFacts, Parent, RouteFacts, RuleFacts};
pub use facts::{RouteKey, RouteKind};
pub(crate) use precedence::Rank;
pub use status::{RouteParent, RoutePatch};
