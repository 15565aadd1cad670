//! The operator's program: parses arguments, starts logging, runs.

use ambit_operator::{Config, HELP, manifests, run};
use ambit_runtime::{env::ProcessEnvironment, telemetry};
use clap::{Parser, Subcommand};

/// The control plane of the mesh: reconciles the Mesh, serves configuration and certificates to its agents.
#[derive(Parser)]
#[command(version, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run until a signal (the default).
    Run,
    /// Print the manifests to apply before the first Mesh.
    Manifests,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let config = Config::parse(&ProcessEnvironment)?;
    match cli.command {
        Some(Command::Manifests) => {
            #[expect(clippy::print_stdout, reason = "this is what the command is for")]
            {
                print!("{}", manifests::install(&config.images)?);
            }
            Ok(())
        }
        Some(Command::Run) | None => {
            telemetry::init(&config.log, config.log_format);
            run(config).await
        }
    }
}
