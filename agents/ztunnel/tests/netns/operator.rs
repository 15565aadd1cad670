//! A fake operator that answers queries about addresses, or stays silent.

use std::sync::{Arc, Mutex};

use ambit_model::Workload;
use ambit_store::{AddressUpdate, Store};
use ambit_xds::Answer;

/// The answers for addresses that the store does not know; by default they are external.
#[derive(Clone, Default)]
pub(crate) struct Operator(Arc<Mutex<Says>>);

#[derive(Default)]
struct Says {
    asked: Vec<String>,
    silent: bool,
    /// Applied to the store when it is queried.
    describes: Option<(String, Arc<Store>, Workload)>,
}

impl Operator {
    pub(crate) fn answer(&self, name: &str) -> Option<Answer> {
        let mut says = self.0.lock().unwrap();
        says.asked.push(name.to_owned());
        if says.silent {
            return None;
        }
        if let Some((_, store, workload)) = says.describes.take_if(|(known, ..)| known == name) {
            store.apply_addresses(vec![AddressUpdate::Workload(workload)], &[]);
            return Some(Answer::Known);
        }
        Some(Answer::Unknown)
    }

    /// Stops answering.
    pub(crate) fn falls_silent(&self) {
        self.0.lock().unwrap().silent = true;
    }

    /// Makes it know a workload that is not in the store.
    pub(crate) fn describes(&self, address: &str, store: &Arc<Store>, workload: Workload) {
        self.0.lock().unwrap().describes = Some((address.to_owned(), store.clone(), workload));
    }

    /// The queries so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }
}
