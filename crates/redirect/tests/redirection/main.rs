//! Redirection in network namespaces, with real connections.
//!
//! Each test has namespaces, a BPF file system and maps of its own; the cgroup they hook into is the test process's.

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
