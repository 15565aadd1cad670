//! `ambit-cni-plugin`: reads the environment and standard input, and answers on standard output.

use std::{
    io::{Write, stdin, stdout},
    process::ExitCode,
};

use ambit_cni::plugin;
use ambit_runtime::env::ProcessEnvironment;

fn main() -> ExitCode {
    let outcome = plugin::run(&ProcessEnvironment, stdin().lock());
    match stdout().write_all(outcome.stdout.as_bytes()) {
        Ok(()) => ExitCode::from(outcome.code),
        Err(_) => ExitCode::FAILURE,
    }
}
