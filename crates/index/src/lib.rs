//! Folds Kubernetes objects into the mesh model, and reports exactly what changed.
//!
//! Pure and synchronous. [`Index::apply`] and [`Index::delete`] are total. Two indexes that
//! received the same objects hold the same model, whatever the order, once every step was settled
//! ([`Index::settle`]).

mod callers;
mod changes;
mod enrollment;
mod gateways;
mod index;
mod key;
mod nodes;
mod object;
mod pods;
mod policies;
mod providers;
mod routes;
mod selector;
mod services;
mod settings;
mod slices;
mod traffic;
mod waypoints;

pub use callers::Caller;
pub use changes::Changes;
pub use enrollment::{Enrollment, NodeEnrollment, Wanted, reason};
pub use gateways::Serves;
pub use index::{Index, PodIdentity};
pub use key::{Key, Kind};
pub use object::{Object, name_of};
pub use pods::probes::{ProbeCall, Sends};
pub use policies::{
    Attachment, Holds, Judgement, Reach, StatusPatch, Target, authorization, peer_authentication,
    request_authentication,
};
pub use routes::{RouteKey, RouteKind, RouteParent, RoutePatch};
pub use settings::{Presence, Settings};
pub use waypoints::Waypoint;
