//! The startup taint: a node that joins accepts pods only once its agent serves.
//!
//! The taint is set by the policy in `config/startup-taint.yaml` or when the node registers, and
//! removed when the node's agent reports that it serves. Invariant: no other taint is changed, and
//! none is ever added.

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::error::{Error, is_not_found};

/// Key of the taint; value and effect do not matter.
pub(crate) const KEY: &str = "ambit.dev/agent-not-ready";
/// HTTP status for requests that RBAC denies.
const FORBIDDEN: u16 = 403;

/// The result of removing the taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifted {
    /// It was removed.
    Yes,
    /// It was absent.
    NotThere,
    /// The operator lacks the permission.
    Forbidden,
}

/// Removes the taint of a node; writes only if it is present.
///
/// # Errors
/// When the API server rejects the write, also because the node changed meanwhile: call again.
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
    // A merge patch replaces the whole list, so it must be based on the version that was read.
    let patch = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "spec": {"taints": left},
    });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(Lifted::Yes),
        Err(kube::Error::Api(status)) if status.code == FORBIDDEN => Ok(Lifted::Forbidden),
        Err(error) if is_not_found(&error) => Ok(Lifted::NotThere),
        Err(error) => Err(Error::api(format!("removing the startup taint of Node {name}"), error)),
    }
}

/// The remaining taints; `None` when ours is not among them.
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
