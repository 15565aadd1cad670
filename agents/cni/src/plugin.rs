//! The CNI plugin: asks the agent whether a pod may start, and passes on the result of the previous
//! plugins.
//!
//! Stateless and blocking; uses no token and no API server. Invariant: a pod that is not listed in
//! the agent's state file waits only if the agent answers so; without an answer it starts at once.

pub mod agent;
pub mod decide;
pub mod frame;
pub mod invocation;
pub mod protocol;

use std::{io::Read, path::Path, time::Duration};

use ambit_runtime::Environment;

use agent::ask;
use decide::{Verdict, decide};
use invocation::{CniCommand, Failure, Invocation};
use protocol::{Enrolled, Request};

/// How long the agent may take to answer, connecting included.
pub const AGENT_TIME_MAX: Duration = Duration::from_secs(20);
/// Largest configuration on standard input, in bytes.
const STDIN_BYTES_MAX: u64 = 1 << 20;

/// The output of the plugin.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub stdout: String,
    /// Exit code, 0 or 1.
    pub code: u8,
}

/// Runs one invocation, whose only inputs are `environment` and `stdin`.
pub fn run(environment: &dyn Environment, stdin: impl Read) -> Outcome {
    let mut text = String::new();
    let read = stdin.take(STDIN_BYTES_MAX).read_to_string(&mut text);
    let invocation = Invocation::parse(environment, if read.is_ok() { &text } else { "" });
    let version = invocation::version_of(&text);
    let result = invocation.and_then(|invocation| match invocation.command {
        CniCommand::Version => Ok(invocation::versions(&version)),
        // There is no state per container, and a failing STATUS would stop pods that are not ours.
        CniCommand::Del | CniCommand::Check | CniCommand::Gc | CniCommand::Status => Ok(String::new()),
        CniCommand::Add => add(&invocation),
    });
    match result {
        Ok(stdout) => Outcome { stdout, code: 0 },
        Err(failure) => Outcome { stdout: failure.to_json(&version), code: 1 },
    }
}

fn add(invocation: &Invocation<'_>) -> Result<String, Failure> {
    let result = invocation.previous_result()?;
    let Some(pod) = &invocation.pod else { return Ok(result.to_owned()) };
    let config = &invocation.config;
    if pod.namespace == config.system_namespace {
        return Ok(result.to_owned());
    }
    let request = Request {
        container_id: invocation.container_id.clone(),
        netns: invocation.netns.clone(),
        ifname: invocation.ifname.clone(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        ips: invocation::addresses(result),
    };
    let answer = ask(Path::new(&config.socket), &request, AGENT_TIME_MAX);
    let enrolled = || Enrolled::read(Path::new(&config.state_file));
    match decide(&request, answer, enrolled) {
        Verdict::Allow => Ok(result.to_owned()),
        Verdict::Refuse(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests;
