//! Wire types generated from `proto/`; no logic.
//!
//! Package names and field numbers are those of Istio and Envoy wherever the peer may be a foreign
//! implementation.

#![expect(clippy::allow_attributes, reason = "generated code carries its own")]
#![expect(clippy::large_enum_variant, reason = "the wire decides what an Address holds")]
#![expect(clippy::allow_attributes_without_reason, reason = "generated code carries its own")]

macro_rules! package {
    ($name:literal) => {
        tonic::include_proto!($name);
    };
}

/// Delta discovery (`envoy.service.discovery.v3`).
pub mod discovery {
    package!("envoy.service.discovery.v3");
}
/// External authorization; modules are nested like its packages.
pub mod envoy {
    /// Services.
    pub mod service {
        /// External authorization.
        pub mod auth {
            /// `envoy.service.auth.v3`
            pub mod v3 {
                package!("envoy.service.auth.v3");
            }
        }
    }
    /// Configuration.
    pub mod config {
        /// Types shared by several APIs.
        pub mod core {
            /// `envoy.config.core.v3`
            pub mod v3 {
                package!("envoy.config.core.v3");
            }
        }
    }
    /// Types.
    pub mod r#type {
        /// `envoy.type.v3`
        pub mod v3 {
            package!("envoy.r#type.v3");
        }
    }
}
/// Types shared by Google's APIs.
pub mod google {
    /// `google.rpc`
    pub mod rpc {
        package!("google.rpc");
    }
}
/// Nested like the protobuf packages, because generated code references its siblings by relative
/// path.
pub mod istio {
    /// Workloads and services, type URL [`ADDRESS`](crate::ADDRESS).
    pub mod workload {
        package!("istio.workload");
        /// The socket between node agent and proxy.
        pub mod zds {
            package!("istio.workload.zds");
        }
    }
    /// L4 policy, type URL [`AUTHORIZATION`](crate::AUTHORIZATION).
    pub mod security {
        package!("istio.security");
    }
}
/// Certificates (`istio.v1.auth`).
pub mod ca {
    package!("istio.v1.auth");
}
/// Packages of this mesh.
pub mod ambit {
    /// Packages of the node agent.
    pub mod node {
        /// Enrollment (type URL [`ENROLLMENT`](crate::ENROLLMENT)) and reports.
        pub mod v1 {
            package!("ambit.node.v1");
        }
    }
    /// Packages of waypoints.
    pub mod waypoint {
        /// A bound service, type URL [`BOUND_SERVICE`](crate::BOUND_SERVICE).
        pub mod v1 {
            package!("ambit.waypoint.v1");
        }
    }
    /// Packages of the socket between node agent and proxy.
    pub mod zds {
        /// Passing of listeners.
        pub mod v1 {
            package!("ambit.zds.v1");
        }
    }
}
/// Spans (OTLP).
pub mod opentelemetry {
    /// OTLP's packages.
    pub mod proto {
        /// Attributes.
        pub mod common {
            /// Version 1.
            pub mod v1 {
                package!("opentelemetry.proto.common.v1");
            }
        }
        /// The source of the spans.
        pub mod resource {
            /// Version 1.
            pub mod v1 {
                package!("opentelemetry.proto.resource.v1");
            }
        }
        /// Spans.
        pub mod trace {
            /// Version 1.
            pub mod v1 {
                package!("opentelemetry.proto.trace.v1");
            }
        }
        /// The receiver of the spans.
        pub mod collector {
            /// Spans.
            pub mod trace {
                /// Version 1.
                pub mod v1 {
                    package!("opentelemetry.proto.collector.trace.v1");
                }
            }
        }
    }
}
pub use ambit::node::v1 as node;
pub use ambit::waypoint::v1 as waypoint;
pub use ambit::zds::v1 as zds_ext;
pub use envoy::service::auth::v3 as auth;
pub use istio::{security, workload, workload::zds};

/// xDS type of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// xDS type of L4 policies.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
/// xDS type of the pods that a node agent enrolls.
pub const ENROLLMENT: &str = "type.googleapis.com/ambit.node.v1.Enrollment";
/// xDS type of what a waypoint does with the traffic of one service.
pub const BOUND_SERVICE: &str = "type.googleapis.com/ambit.waypoint.v1.Service";
