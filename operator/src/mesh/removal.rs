//! Removal of a `Mesh`: pods leave, nodes are cleaned, objects and finalizer are removed. It always
//! terminates.
//!
//! Level-triggered: [`next`] looks at what still exists, never at what was done before.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::apps::v1::DaemonSet;

use super::observe::MeshWorld;
use crate::{apply::is_ours, names, waypoint};

/// How long node agents may take to clean their nodes.
pub(crate) const CLEAN_TIME_MAX: Duration = Duration::from_secs(60);
/// How long agents' pods may take to end after that.
pub(crate) const GONE_TIME_MAX: Duration = Duration::from_secs(90);

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait until node agents have unenrolled pods and cleaned their nodes.
    AwaitClean {
        /// Nodes that are not clean yet.
        nodes: Vec<String>,
    },
    /// Delete the agents, and their pods with a short grace period.
    DeleteAgents,
    /// Wait until the agents' pods have ended.
    AwaitGone,
    /// Remove the annotations from pods.
    RemoveAnnotations,
    /// Delete all other objects.
    DeleteObjects,
    /// Nothing is left.
    RemoveFinalizer,
}

/// The next step, `elapsed` after the deletion was requested.
pub(crate) fn next(world: &MeshWorld, elapsed: Duration) -> Step {
    let agents = world.pods.iter().filter(|pod| pod.app == names::NODE_AGENT);
    let mut dirty: Vec<String> = agents
        .filter(|pod| !pod.clean && pod.has_node && !pod.is_leaving)
        .map(|pod| pod.node.clone())
        .collect();
    dirty.sort();
    if !world.daemon_sets_of_ours().is_empty() {
        if !dirty.is_empty() && elapsed < CLEAN_TIME_MAX {
            return Step::AwaitClean { nodes: dirty };
        }
        return Step::DeleteAgents;
    }
    if world.pods.iter().any(|pod| pod.has_node) && elapsed < GONE_TIME_MAX {
        let is_all_leaving = world.pods.iter().all(|pod| pod.is_leaving);
        return if is_all_leaving { Step::AwaitGone } else { Step::DeleteAgents };
    }
    if !world.redirected.is_empty() && elapsed < GONE_TIME_MAX {
        return Step::RemoveAnnotations;
    }
    if world.has_objects_of_ours() { Step::DeleteObjects } else { Step::RemoveFinalizer }
}

impl Step {
    /// Human-readable message.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::AwaitClean { nodes } => format!("pods leave the mesh; waiting for {}", nodes.join(", ")),
            Self::DeleteAgents | Self::AwaitGone => "node agents and ztunnels end".into(),
            Self::RemoveAnnotations => "annotations of pods are removed".into(),
            Self::DeleteObjects | Self::RemoveFinalizer => "the last objects are removed".into(),
        }
    }
}

impl MeshWorld {
    /// DaemonSets with our label.
    pub(crate) fn daemon_sets_of_ours(&self) -> Vec<&DaemonSet> {
        self.daemon_sets.iter().map(Arc::as_ref).filter(|set| is_ours(&set.metadata)).collect()
    }

    fn has_objects_of_ours(&self) -> bool {
        self.config_maps.iter().any(|object| is_ours(&object.metadata))
            || self.service_accounts.iter().any(|object| is_ours(&object.metadata))
            || self.secrets.iter().any(|object| is_ours(&object.metadata))
            || waypoint::prune::is_anything_left(&self.waypoints)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::mesh::observe::{AgentPod, Redirected};

    fn agent(node: &str) -> AgentPod {
        AgentPod {
            name: format!("agent-{node}"),
            app: names::NODE_AGENT.into(),
            node: node.into(),
            ready: true,
            clean: false,
            has_node: true,
            is_leaving: false,
        }
    }

    fn labelled<T: Default>(set: impl Fn(&mut T)) -> Arc<T> {
        let mut object = T::default();
        set(&mut object);
        Arc::new(object)
    }

    fn full() -> MeshWorld {
        let labels = Some([(ambit_api::labels::MESH.to_owned(), "default".to_owned())].into());
        MeshWorld {
            daemon_sets: vec![labelled(|set: &mut DaemonSet| {
                set.metadata.name = Some(names::NODE_AGENT.into());
                set.metadata.labels = labels.clone();
            })],
            config_maps: vec![labelled(|map: &mut ConfigMap| map.metadata.labels = labels.clone())],
            pods: vec![
                agent("a"),
                AgentPod { clean: true, ..agent("b") },
                AgentPod { has_node: false, ..agent("lost") },
            ],
            redirected: vec![Redirected { namespace: "shop".into(), name: "cart".into() }],
            ..MeshWorld::default()
        }
    }

    #[test]
    fn every_step_follows_from_what_is_left() {
        let early = Duration::from_secs(1);
        let mut world = full();
        assert_eq!(next(&world, early), Step::AwaitClean { nodes: vec!["a".into()] });
        world.pods[0].clean = true;
        assert_eq!(next(&world, early), Step::DeleteAgents);
        world.daemon_sets.clear();
        assert_eq!(next(&world, early), Step::DeleteAgents, "pods do not go with their DaemonSet at once");
        world.pods.iter_mut().for_each(|pod| pod.is_leaving = true);
        assert_eq!(next(&world, early), Step::AwaitGone);
        world.pods.clear();
        assert_eq!(next(&world, early), Step::RemoveAnnotations);
        world.redirected.clear();
        assert_eq!(next(&world, early), Step::DeleteObjects);
        world.config_maps.clear();
        assert_eq!(next(&world, early), Step::RemoveFinalizer);
    }

    #[test]
    fn it_ends_even_when_nodes_never_answer() {
        let mut world = full();
        assert_eq!(next(&world, CLEAN_TIME_MAX), Step::DeleteAgents);
        world.daemon_sets.clear();
        assert_eq!(next(&world, GONE_TIME_MAX), Step::DeleteObjects);
        world.config_maps.clear();
        assert_eq!(next(&world, GONE_TIME_MAX), Step::RemoveFinalizer);
    }
}
