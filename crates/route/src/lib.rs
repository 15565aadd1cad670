//! Routing: selects the rule for a request and applies its filters. Gateway API routes, compiled
//! once and executed as pure functions over `http` types.
//!
//! Invariant: compiling is total, and nothing is guessed. A rule that cannot be executed as written
//! is reported ([`Found::actions`]), and its requests get 500 instead of being routed some other
//! way.

mod criteria;
mod expression;
pub mod filter;
mod head;
mod invalid;
mod server_name;
pub mod session;
mod split;
mod table;

pub use criteria::HeaderCriteria;
pub use filter::{Arrival, Filters};
pub use head::RequestHead;
pub use invalid::Invalid;
pub use server_name::by_server_name;
pub use split::{pick, takes};
pub use table::{Actions, Found, Table};
