//! An operator that is asked about addresses, and knows them, does not, or is silent.

use std::sync::{Arc, Mutex};

use ambit_model::Workload;
use ambit_store::{AddressUpdate, Store};
use ambit_xds::Answer;

/// What the operator says about addresses that the store does not know: that nobody has them, unless told otherwise.
#[derive(Clone, Default)]
pub(crate) struct Operator(Arc<Mutex<Says>>);

#[derive(Default)]
struct Says {
    asked: Vec<String>,
    silent: bool,
    /// Applied to the store when it is asked about.
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

    /// From now on it answers nothing.
    pub(crate) fn falls_silent(&self) {
        self.0.lock().unwrap().silent = true;
    }

    /// It knows a workload that the store has not heard of.
    pub(crate) fn describes(&self, address: &str, store: &Arc<Store>, workload: Workload) {
        self.0.lock().unwrap().describes = Some((address.to_owned(), store.clone(), workload));
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }
}
