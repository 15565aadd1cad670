//! Redirection in network namespaces, with real connections.
//!
//! Each test has its own namespaces, BPF file system and maps; the cgroup is that of the test
//! process.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that fails is a test that fails")]

mod adoption;
mod exemption;
mod failure;
mod fixture;
mod forwarding;
mod inbound;
mod local;
mod outbound;
mod probes;
mod switching;
