//! Compiles `proto/` with a protobuf compiler written in Rust, so that `protoc` is not needed.

const FILES: &[&str] = &[
    "envoy/discovery.proto",
    "envoy/auth.proto",
    "istio/workload.proto",
    "istio/authorization.proto",
    "istio/ca.proto",
    "istio/zds.proto",
    "ambit/enrollment.proto",
    "ambit/reports.proto",
    "ambit/waypoint.proto",
    "ambit/zds_ext.proto",
    "otlp/collector.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".envoy.service.discovery.v3.Resource.resource")
        .bytes(".google.protobuf.Any")
        // Equal messages must have equal bytes, because a resource's version is the hash of its
        // body.
        .btree_map(".istio.workload.Workload.services")
        .btree_map(".ambit.waypoint.v1.Port.consumers")
        .compile_well_known_types(false)
        .compile_fds(descriptors)?;
    Ok(())
}
