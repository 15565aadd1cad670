//! `make bench-waypoint`: stock Envoy, a bare hyper proxy and the waypoint, interleaved in one run,
//! as ratios to Envoy.
//!
//!
//!     ambit-waypoint-bench run ENVOY WAYPOINT NETNS PROXIES HERE FOLDER
//!     ambit-waypoint-bench bare PROXIES HERE ROOTS TOKEN
//!
//! Invariant: because the machine may be busy, CPU time per request of the proxy's own threads is
//! compared; proxies alternate within every round, and the median of the rounds counts.

#![expect(clippy::print_stdout, reason = "a benchmark speaks to a person")]

mod backend;
mod bare;
mod cases;
mod control;
mod envoy;
mod load;
mod plan;
mod proxies;
mod service;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};

use crate::{control::Credentials, plan::Places, proxies::Programs};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench-waypoint: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", envoy, waypoint, netns, proxies, here, folder] => {
            let places = Places { proxies: proxies.parse()?, here: here.parse()? };
            let programs = Programs {
                envoy: envoy.into(),
                waypoint: waypoint.into(),
                netns: (*netns).to_owned(),
                folder: folder.into(),
                places,
            };
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
            runtime.block_on(cases::run(&programs))
        }
        ["bare", proxies, here, roots, token] => {
            let places = Places { proxies: proxies.parse()?, here: here.parse()? };
            let credentials = Credentials {
                address: places.control(),
                roots: PathBuf::from(roots),
                token: PathBuf::from(token),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(bare::run(places, credentials))
        }
        other => bail!("unknown {other:?}; see benches/waypoint/run.sh"),
    }
}
