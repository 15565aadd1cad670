//! Which rule takes a request, and what its filters do to it: routes of the Gateway API, compiled once and executed as
//! pure functions over `http` types.
//!
//! Invariant: compiling is total and nothing here guesses. A rule that cannot be executed as written says so
//! ([`Found::actions`]), and its requests are answered 500 instead of being routed some other way.

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
