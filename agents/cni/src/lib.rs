//! The node agent and the CNI plugin: enroll the pods of one node.
//!
//! - [`plugin`]: called by the runtime for each pod; queries the agent (`admission`).
//! - `install`: keeps the plugin in the node's CNI configuration.
//! - `node`, `enroll`: the pods, and the state machine of each with its driver.
//! - `proxy`, `roster`: the pods that the proxy serves.
//! - `kernel`, `kubelet`, `proc`: redirection, probes, processes.
//! - `subscribe`, `reports`: enrollments from the operator, and reports to it.
//!
//! Invariant: an enrolled pod stays redirected until its removal from the mesh is requested.

mod admission;
mod config;
mod enroll;
mod error;
mod forwarding;
mod install;
mod kernel;
mod kubelet;
mod metrics;
mod node;
pub mod plugin;
mod proc;
mod proxy;
mod reports;
mod roster;
mod run;
mod subscribe;
mod tools;

pub use admission::{DISCONNECTED_TIME_MAX, admit};
pub use config::Config;
pub use enroll::driver::Progress;
pub use error::{Error, Problem};
pub use kernel::KernelThread;
pub use metrics::Metrics;
pub use node::{Member, Node, Past, Start};
pub use proxy::{Proxy, Surroundings};
pub use reports::Reporter;
pub use roster::Roster;
pub use run::run;
pub use tools::Tools;
