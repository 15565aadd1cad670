//! Pods whose own label requests a waypoint that they do not get: an Event reports it, because pods
//! have no condition for it.
//!
//! Invariant: one Event per pod and reason, as long as this replica leads.

use std::{collections::HashMap, sync::Arc};

use ambit_index::{Judgement, PodIdentity};

use crate::events::{Events, PodReference, Severity};

/// The last Event of each pod: reason and message by uid.
#[derive(Debug, Default)]
pub(super) struct Announced(HashMap<Arc<str>, (&'static str, String)>);

/// An Event to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pod: PodIdentity,
    reason: &'static str,
    message: String,
}

impl Announced {
    /// The refused pods without a current Event.
    pub(super) fn news<'a>(
        &mut self,
        refused: impl Iterator<Item = (PodIdentity, &'a Judgement)>,
    ) -> Vec<Refused> {
        let mut before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for (pod, Judgement { reason, message, .. }) in refused {
            let why = (*reason, message.clone());
            if before.remove(&pod.uid).as_ref() != Some(&why) {
                news.push(Refused { pod: pod.clone(), reason, message: message.clone() });
            }
            self.0.insert(pod.uid, why);
        }
        news
    }
}

impl Refused {
    /// Writes the Event.
    pub(super) async fn write_event(&self, events: &Events) {
        let PodIdentity { uid, name, .. } = &self.pod;
        let pod = PodReference { namespace: &name.namespace, name: &name.name, uid };
        events.pod(pod, Severity::Warning, self.reason, &self.message).await;
    }
}

#[cfg(test)]
mod tests {
    use ambit_index::Holds;
    use ambit_model::NamespacedName;

    use super::*;

    fn pod(name: &str) -> PodIdentity {
        PodIdentity {
            uid: name.into(),
            name: NamespacedName::new("shop", name),
            service_account: "default".into(),
            node: "n1".into(),
            terminated: false,
        }
    }

    fn because(reason: &'static str) -> Judgement {
        let message = format!("it is {reason}");
        Judgement { condition: "istio.io/WaypointBound", holds: Holds::False, reason, message }
    }

    #[test]
    fn a_pod_is_told_once_and_again_when_the_reason_is_another_or_was_gone() {
        let (mut announced, first, second) =
            (Announced::default(), because("Unsupported"), because("Denied"));
        let mut names = |refused: Vec<(PodIdentity, &Judgement)>| -> Vec<String> {
            let news = announced.news(refused.into_iter()).into_iter();
            news.map(|refused| format!("{}: {}", refused.pod.name.name, refused.reason)).collect()
        };
        assert_eq!(names(vec![(pod("a"), &first)]), ["a: Unsupported"]);
        assert_eq!(names(vec![(pod("a"), &first), (pod("b"), &first)]), ["b: Unsupported"]);
        assert_eq!(names(vec![(pod("a"), &second), (pod("b"), &first)]), ["a: Denied"]);
        assert_eq!(names(vec![(pod("b"), &first)]), Vec::<String>::new());
        assert_eq!(names(vec![(pod("a"), &second)]), ["a: Denied"]);
    }
}
