//! Decides whether a pod may start, with or without the agent's answer. Pure.

use super::{
    agent::Unreachable,
    invocation::{CODE_TRY_LATER, Failure},
    protocol::{Answer, Enrolled, Request},
};

/// The result of an ADD.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pod starts.
    Allow,
    /// The runtime must retry.
    Refuse(Failure),
}

/// Decides; `enrolled` is used only when the agent gives no answer.
pub fn decide(
    pod: &Request,
    answer: Result<Answer, Unreachable>,
    enrolled: impl FnOnce() -> Enrolled,
) -> Verdict {
    let (reason, message) = match answer {
        Ok(Answer::Allow) => return Verdict::Allow,
        Ok(Answer::Wait { reason, message }) => (reason, message),
        Err(Unreachable(_)) if !enrolled().holds(&pod.namespace, &pod.uid) => return Verdict::Allow,
        Err(Unreachable(error)) => {
            let message = format!(
                "the node agent (DaemonSet ambit-node-agent) does not answer on this node, and pod {}/{} may start only when enrolled: {error}",
                pod.namespace, pod.name
            );
            ("NodeAgentUnavailable".to_owned(), message)
        }
    };
    Verdict::Refuse(Failure {
        code: CODE_TRY_LATER,
        message: format!("ambit: {reason}: pod {}/{} waits to be enrolled", pod.namespace, pod.name),
        details: message,
    })
}
