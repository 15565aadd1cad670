//! Applies enrollments received over xDS.
//!
//! Invariant: a resource that cannot be decoded is rejected by name and changes nothing.

use ambit_proto::node::{Enrollment, enrollment::Subject};
use ambit_xds::{Handler, Rejection, Resource};
use prost::Message;

use crate::node::Node;

/// Name prefix of pod resources.
const POD: &str = "pod/";

/// The xDS handler that applies enrollments to the node.
#[derive(Debug)]
pub(crate) struct Enrollments(pub Node);

impl Handler for Enrollments {
    fn apply(&mut self, _: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        for name in &removed {
            if let Some(uid) = name.strip_prefix(POD) {
                self.0.remove(uid);
            }
        }
        let refused = |resource: Resource| {
            self.one(&resource).err().map(|reason| Rejection { name: resource.name, reason })
        };
        let refused = resources.into_iter().filter_map(refused).collect();
        self.0.keep();
        refused
    }
}

impl Enrollments {
    fn one(&self, resource: &Resource) -> Result<(), String> {
        let enrollment = Enrollment::decode(resource.bytes.clone()).map_err(|error| error.to_string())?;
        match enrollment.subject {
            Some(Subject::Pod(pod)) if resource.name == format!("{POD}{}", pod.uid) => self.0.describe(pod),
            Some(Subject::Pod(_)) => Err("its name does not match its pod".to_owned()),
            Some(Subject::Node(node)) => {
                self.0.describe_node(node);
                Ok(())
            }
            None => Err("it has no subject".to_owned()),
        }
    }
}
