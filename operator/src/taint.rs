//! The startup taint: a node that joins takes pods only once its agent takes care of them.
//!
//! It is put on by the policy of `config/startup-taint.yaml` or by who registers the node, and lifted when the node's
//! agent reports that it serves. Invariant: no other taint is touched, and none is ever put on.

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::error::{Error, is_not_found};

/// Key of the taint, whatever its value and effect.
pub(crate) const KEY: &str = "ambit.dev/agent-not-ready";
/// HTTP status of what RBAC refuses.
const FORBIDDEN: u16 = 403;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifted {
    /// It was there and is gone.
    Yes,
    /// It was not there.
    NotThere,
    /// The operator was not given the right to.
    Forbidden,
}

/// Takes the taint off a node. One that is not there is not written to.
///
/// # Errors
/// When the API server refuses, also since the node changed meanwhile: call again.
pub(crate) async fn lift(client: &Client, name: &str) -> Result<Lifted, Error> {
    let api: Api<Node> = Api::all(client.clone());
    let node = match api.get(name).await {
        Ok(node) => node,
        Err(error) if is_not_found(&error) => return Ok(Lifted::NotThere),
        Err(error) => return Err(Error::api(format!("reading Node {name}"), error)),
    };
    let Some(left) = without(node.spec.and_then(|spec| spec.taints).unwrap_or_default()) else {
        return Ok(Lifted::NotThere);
    };
    // A merge replaces the list as a whole, so it must be the one that was read.
    let patch = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "spec": {"taints": left},
    });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(Lifted::Yes),
        Err(kube::Error::Api(status)) if status.code == FORBIDDEN => Ok(Lifted::Forbidden),
        Err(error) if is_not_found(&error) => Ok(Lifted::NotThere),
        Err(error) => Err(Error::api(format!("taking the startup taint off Node {name}"), error)),
    }
}

/// The taints that stay; `None` when ours is not among them.
fn without(taints: Vec<Taint>) -> Option<Vec<Taint>> {
    let before = taints.len();
    let left: Vec<Taint> = taints.into_iter().filter(|taint| taint.key != KEY).collect();
    (left.len() != before).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_goes_whatever_its_effect() {
        let taint =
            |key: &str, effect: &str| Taint { key: key.into(), effect: effect.into(), ..Taint::default() };
        let other = taint("node.cilium.io/agent-not-ready", "NoExecute");
        assert_eq!(without(vec![]), None);
        assert_eq!(without(vec![other.clone()]), None);
        let ours = [taint(KEY, "NoExecute"), taint(KEY, "NoSchedule")];
        assert_eq!(without([vec![other.clone()], ours.to_vec()].concat()), Some(vec![other]));
        assert_eq!(without(ours.to_vec()), Some(vec![]));
    }
}
