//! The program: parses arguments, starts logging, runs.

use ambit_proxy::process;
use ambit_runtime::env::ProcessEnvironment;
use ambit_ztunnel::{Config, HELP, run};

fn main() -> anyhow::Result<()> {
    process::parse_arguments("ambit-ztunnel", env!("CARGO_PKG_VERSION"), HELP);
    let config = Config::parse(&ProcessEnvironment, process::cores())?;
    process::block_on(&config.proxy.clone(), run(config))?;
    Ok(())
}
