//! The Kubernetes API of the mesh: types, defaults and all user-visible names.
//!
//! Plain data: no client, no clock. The YAML under `crds/` is [`crd_yaml`].

pub mod conditions;
mod crd;
pub mod duration;
pub mod gateway;
pub mod labels;
pub mod mesh;
pub mod policy;
pub mod traffic_policy;

pub use crd::{CrdFile, crd_yaml, crds};
pub use duration::{InvalidDuration, parse_duration};
pub use mesh::{Mesh, MeshSpec, MeshStatus};
pub use policy::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
pub use traffic_policy::{TrafficPolicy, TrafficPolicySpec};
